"""Many refusals as a few stable lines."""

from enginesmith_operator.planning.refusals import NodeRefusal, Refusal, count_refusals


def _no(
    node: str, rule: str = "DriverFloor", found: str = "driver 470", wanted: str = "a driver >= 535"
) -> NodeRefusal:
    return NodeRefusal(node=node, refusal=Refusal(rule=rule, found=found, wanted=wanted))


def test_names_come_in_natural_order_and_three_are_shown() -> None:
    (count,) = count_refusals([_no("node-10"), _no("node-2"), _no("node-1"), _no("node-3")])

    want = "DriverFloor: 4 nodes (node-1, node-2, node-3, ...): driver 470; a driver >= 535"
    assert count.sentence() == want


def test_causes_that_differ_stand_with_their_counts_and_the_common_remedy_once() -> None:
    (count,) = count_refusals([_no("a"), _no("b", found="driver 450"), _no("c", found="driver 450")])

    want = "DriverFloor: 3 nodes (a, b, c): driver 450 (2), driver 470 (1); a driver >= 535"
    assert count.sentence() == want


def test_causes_with_remedies_of_their_own_keep_them() -> None:
    (count,) = count_refusals([_no("a"), _no("b", found="driver 450", wanted="a new driver")])

    want = "DriverFloor: 2 nodes (a, b): driver 450; a new driver (1), driver 470; a driver >= 535 (1)"
    assert count.sentence() == want


def test_causes_that_all_nodes_have_stand_without_a_count() -> None:
    causes = ("node 'a': it is UINT8", "nodes 'b', 'c': their zero points are not 0")
    (count,) = count_refusals([_no(node, "UnsupportedOperators", found, "") for node in "xy" for found in causes])

    assert count.sentence() == f"UnsupportedOperators: 2 nodes (x, y): {causes[0]}, {causes[1]}"


def test_a_node_counts_once_for_a_rule() -> None:
    (count,) = count_refusals([_no("a"), _no("a"), _no("a", found="driver 450")])

    assert count.count == 1


def test_what_keeps_the_nodes_that_are_meant_comes_first_and_other_nodes_have_no_remedy() -> None:
    refusals = [
        *(_no(f"cpu-{n}", rule="NoGpu", found="no GPU", wanted="install the device plugin") for n in range(9)),
        *(_no(f"l4-{n}", rule="ProductDiffers", found="its GPU is L4", wanted="A100 is asked for") for n in range(3)),
        _no("a100-1"),
    ]

    for order in (refusals, refusals[::-1]):
        assert [count.sentence() for count in count_refusals(order)] == [
            "DriverFloor: 1 node (a100-1): driver 470; a driver >= 535",
            "ProductDiffers: 3 nodes (l4-0, l4-1, l4-2): its GPU is L4",
            "NoGpu: 9 nodes (cpu-0, cpu-1, cpu-2, ...): no GPU",
        ]


def test_where_no_node_is_meant_the_nearest_ones_keep_their_remedy() -> None:
    cpu = _no("cpu", rule="NoGpu", found="no GPU", wanted="install the device plugin")
    other = _no("l4", rule="ProductDiffers", found="its GPU is L4", wanted="A100 is asked for")

    assert [count.sentence() for count in count_refusals([cpu, other])] == [
        "ProductDiffers: 1 node (l4): its GPU is L4; A100 is asked for",
        "NoGpu: 1 node (cpu): no GPU",
    ]
    assert [count.sentence() for count in count_refusals([cpu])] == [
        "NoGpu: 1 node (cpu): no GPU; install the device plugin",
    ]


def test_the_most_frequent_rule_comes_first_whatever_the_order() -> None:
    refusals = [_no("a", rule="Z"), _no("b", rule="Z"), _no("a", rule="B"), _no("a", rule="A")]

    for order in (refusals, refusals[::-1]):
        assert [count.rule for count in count_refusals(order)] == ["Z", "A", "B"]
