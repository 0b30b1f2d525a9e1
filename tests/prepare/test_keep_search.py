"""The search for nodes that are not quantised: bounded, ended by trials, and never on a set that was not tried."""

from collections.abc import Callable

import pytest

from enginesmith_contract.auto_keep import AutoKeepResult, Sensitivity
from enginesmith_contract.calibration import AutoKeep
from enginesmith_runtime.prepare.quantize.keep_search import Trial, by_damage_per_byte, search

Needs = Callable[[frozenset[str]], bool]
ALL = AutoKeep(budget=1.0)


def _ranked(count: int = 10, size: int = 1000) -> tuple[Sensitivity, ...]:
    """Return nodes n0, n1, ... of which the first does the most damage."""
    return tuple(Sensitivity(node=f"n{i}", damage=1.0 / (i + 1), size_bytes=size) for i in range(count))


def _measure(needs: Needs, tried: list[frozenset[str]], trials: int = 1000) -> Callable[[frozenset[str]], Trial | None]:
    def measure(kept: frozenset[str]) -> Trial | None:
        if len(tried) == trials:
            return None
        tried.append(kept)
        passed = needs(kept)
        return Trial(agreement=0.99 if passed else 0.5 + len(kept) / 1000, passed=passed)

    return measure


@pytest.mark.parametrize("needed", range(1, 11))
def test_the_fewest_of_the_first_nodes_are_kept(needed: int) -> None:
    tried: list[frozenset[str]] = []
    wanted = {f"n{i}" for i in range(needed)}
    found = search(_ranked(), ALL, _measure(lambda kept: kept >= wanted, tried))
    assert (found.reached, found.complete) == (True, True)
    assert set(found.kept) == wanted
    assert len(tried) == len(found.curve) <= 2 + 4 + 8
    assert found.curve[-1].kept_bytes == 1000 * found.curve[-1].kept_nodes


def test_nothing_is_kept_where_nothing_has_to_be() -> None:
    tried: list[frozenset[str]] = []
    found = search(_ranked(), ALL, _measure(lambda _: True, tried))
    assert (found.kept, found.reached, len(tried)) == ((), True, 1)


def test_nodes_that_are_not_needed_are_given_back_the_largest_first() -> None:
    ranking = [
        Sensitivity(node="small", damage=3, size_bytes=100),
        Sensitivity(node="large", damage=400, size_bytes=40_000),
        Sensitivity(node="needed", damage=0.02, size_bytes=10_000),
    ]
    tried: list[frozenset[str]] = []
    found = search(by_damage_per_byte(ranking), ALL, _measure(lambda kept: "needed" in kept, tried))
    assert found.kept == ("needed",)
    assert tried.index(frozenset({"small", "needed"})) < tried.index(frozenset({"needed"}))


@pytest.mark.parametrize(
    ("bounds", "want"),
    [(AutoKeep(budget=0.3), 3), (AutoKeep(budget=1.0, max_nodes=4), 4), (AutoKeep(budget=0.2, max_nodes=4), 2)],
)
def test_the_bounds_are_kept_and_the_best_within_them_is_returned(bounds: AutoKeep, want: int) -> None:
    tried: list[frozenset[str]] = []
    found = search(_ranked(), bounds, _measure(lambda kept: len(kept) >= 8, tried))
    assert (found.reached, found.complete, len(found.kept)) == (False, True, want)
    assert found.stopped_by == ("maxNodes" if want == 4 else "budget",)
    assert max(map(len, tried)) == want


def test_a_node_that_does_not_fit_the_budget_is_left_out_for_smaller_ones() -> None:
    ranking = (
        Sensitivity(node="huge", damage=9, size_bytes=9000),
        Sensitivity(node="small", damage=1, size_bytes=1000),
    )
    found = search(ranking, AutoKeep(budget=0.25), _measure(lambda kept: "small" in kept, []))
    assert found.kept == ("small",)


@pytest.mark.parametrize("trials", [0, 1, 2, 3, 5])
def test_a_timeout_ends_on_the_best_set_that_was_tried(trials: int) -> None:
    tried: list[frozenset[str]] = []
    found = search(_ranked(), ALL, _measure(lambda kept: len(kept) >= 6, tried, trials))
    assert not found.complete
    assert not found.kept or frozenset(found.kept) in tried
    assert found.reached == any(len(kept) >= 6 for kept in tried)
    assert found.stopped_by == (() if found.reached else ("timeout",))


def test_an_agreement_that_is_not_monotonic_ends_on_a_set_that_passed() -> None:
    passing = {3, 5, 10}
    tried: list[frozenset[str]] = []
    found = search(_ranked(), ALL, _measure(lambda kept: len(kept) in passing, tried))
    assert found.reached
    assert len(found.kept) in passing
    assert frozenset(found.kept) in tried


def test_damage_counts_by_the_bytes_that_it_costs_to_avoid() -> None:
    ranking = [
        Sensitivity(node="head", damage=1.0, size_bytes=2_000_000),
        Sensitivity(node="early", damage=0.5, size_bytes=100),
        Sensitivity(node="add", damage=0.1, size_bytes=0),
    ]
    assert [one.node for one in by_damage_per_byte(ranking)] == ["early", "add", "head"]


def test_a_search_that_kept_all_nodes_in_vain_names_no_bound() -> None:
    found = search(_ranked(), ALL, _measure(lambda _: False, []))
    assert (found.reached, found.stopped_by) == (False, ())


def test_a_search_without_time_for_a_trial_names_no_agreement() -> None:
    found = search(_ranked(), ALL, lambda _: None)
    result = AutoKeepResult(tensorrt=found, samples=8, weight_bytes=1, ranking=tuple(_ranked()))
    said = result.shortfall("TensorRT", found) or ""
    assert "no time for a trial" in said
    assert "agreement" not in said
