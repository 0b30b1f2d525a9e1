"""`minMemory` where no label tells the memory: the data sheet, less a margin, and what CPU and GPU share."""

import pytest
from tests.planning.conftest import DIGEST, NOW, MakeEngine, MakeObserved, refused_rules

from enginesmith_operator.planning.hardware import NodeFacts, read_node
from enginesmith_operator.planning.label_mapping import load_label_mapping
from enginesmith_operator.planning.node_object import NodeObject
from enginesmith_operator.planning.plan import plan
from enginesmith_operator.planning.plan_records import Plan


def _node(product: str, *, resource: str = "nvidia.com/gpu", memory: str | None = None, **labels: str) -> NodeFacts:
    amounts = {resource: "1"}
    document = {
        "metadata": {
            "name": "node",
            "labels": {"nvidia.com/gpu.product": product}
            | {f"nvidia.com/{key.replace('_', '.')}": value for key, value in labels.items()},
        },
        "status": {"capacity": amounts | ({"memory": memory} if memory else {}), "allocatable": amounts},
    }
    return read_node(NodeObject.model_validate(document), load_label_mapping())


def _plan(make_engine: MakeEngine, make_observed: MakeObserved, node: NodeFacts, **gpu: str) -> Plan:
    engine = make_engine(targets=[{"name": "gpu", "backend": "onnxruntime", "gpu": gpu}])
    return plan(engine, make_observed(node, source_digest=DIGEST), NOW)


@pytest.mark.parametrize(
    ("product", "asked", "want"),
    [
        ("NVIDIA-A10G", "16Gi", True),
        ("NVIDIA-A10G", "22Gi", True),
        ("NVIDIA-A10G", "24Gi", False),
        ("NVIDIA-B200", "160Gi", True),
        ("NVIDIA-B200", "180Gi", False),
        ("Tesla-T4", "14Gi", True),
        ("Tesla-T4", "15Gi", False),
        ("NVIDIA-H200", "128Gi", True),
        ("NVIDIA-A100-SXM4-80GB-SHARED", "70Gi", True),
    ],
)
def test_a_product_without_a_memory_label_has_its_data_sheet_s_size_less_a_margin(
    product: str,
    asked: str,
    make_engine: MakeEngine,
    make_observed: MakeObserved,
    *,
    want: bool,
) -> None:
    result = _plan(make_engine, make_observed, _node(product), minMemory=asked)

    assert ("Memory" not in refused_rules(result)) is want


def test_the_refusal_says_where_the_size_comes_from_and_what_would_match(
    make_engine: MakeEngine, make_observed: MakeObserved
) -> None:
    result = _plan(make_engine, make_observed, _node("NVIDIA-A10G"), minMemory="24Gi")

    sentence = result.targets[0].refusals[0].sentence()
    assert "memory is about 22609 MiB (data sheet of NVIDIA-A10G: 24 GB, less 8 %)" in sentence
    assert "minMemory is 24576 MiB; 22Gi would match" in sentence


def test_a_label_goes_before_the_data_sheet(make_engine: MakeEngine, make_observed: MakeObserved) -> None:
    result = _plan(make_engine, make_observed, _node("NVIDIA-A10G", gpu_memory="23028"), minMemory="24Gi")

    assert "memory is 23028 MiB; minMemory" in result.targets[0].refusals[0].sentence()


@pytest.mark.parametrize(("profile", "asked", "want"), [("2g.10gb", "9Gi", True), ("1g.24gb-me", "24Gi", False)])
def test_a_slice_without_a_memory_label_has_its_profile_s_size_less_a_margin(
    profile: str,
    asked: str,
    make_engine: MakeEngine,
    make_observed: MakeObserved,
    *,
    want: bool,
) -> None:
    node = _node("NVIDIA-A100-SXM4-40GB", resource=f"nvidia.com/mig-{profile}")
    result = _plan(make_engine, make_observed, node, minMemory=asked, migProfile=profile)

    assert ("Memory" not in refused_rules(result)) is want


def test_a_product_of_unknown_size_stays_unknown_with_what_helps(
    make_engine: MakeEngine, make_observed: MakeObserved
) -> None:
    result = _plan(make_engine, make_observed, _node("NVIDIA-A10-24Q"), minMemory="8Gi")

    sentence = result.targets[0].refusals[0].sentence()
    assert "memory is unknown: no label gives it" in sentence
    assert "the version matrix has no size for NVIDIA-A10-24Q" in sentence
    assert "install GPU Feature Discovery, or remove minMemory" in sentence


@pytest.mark.parametrize("product", ["NVIDIA-GB10", "Orin", "NVIDIA-Thor"])
def test_a_gpu_that_shares_the_machine_s_memory_is_measured_by_it(
    product: str, make_engine: MakeEngine, make_observed: MakeObserved
) -> None:
    node = _node(product, memory="64000000Ki")

    assert "Memory" not in refused_rules(_plan(make_engine, make_observed, node, minMemory="60Gi"))
    sentence = _plan(make_engine, make_observed, node, minMemory="64Gi").targets[0].refusals[0].sentence()
    assert f"memory is 62500 MiB, the machine's own, which CPU and GPU of {product} share" in sentence


def test_a_shared_memory_of_unknown_size_says_what_is_meant(
    make_engine: MakeEngine, make_observed: MakeObserved
) -> None:
    gb10 = _plan(make_engine, make_observed, _node("NVIDIA-GB10"), minMemory="120Gi").targets[0].refusals[0].sentence()
    orin = _plan(make_engine, make_observed, _node("Orin"), minMemory="8Gi").targets[0].refusals[0].sentence()

    assert "data sheet: 128 GB; the machine's own, which CPU and GPU of NVIDIA-GB10 share" in gb10
    assert "117Gi would match" in gb10
    assert "memory is unknown: it is the machine's own, which CPU and GPU of Orin share" in orin
    assert "remove minMemory, and select nodes with podTemplate.nodeSelector" in orin
