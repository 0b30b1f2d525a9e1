"""The search for the fewest nodes that must not be quantised.

    order by damage per byte ──> bisect the number of nodes ──> try to quantise the largest again, one by one

The order by damage is not the order of effect on the answers: the agreement is not monotonic in the number of nodes. So
only trials decide, and the result of the search is a set that passed a trial.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from enginesmith_contract.auto_keep import KeepSearch, KeptPoint, Sensitivity
from enginesmith_contract.calibration import AutoKeep

__all__ = ["Trial", "by_damage_per_byte", "search"]

_OVERHEAD_BYTES: Final = 20_000  # also a node with few weights has a cost, because it ends a fused INT8 sequence
_MOST_RETURNS: Final = 8


class Trial(NamedTuple):
    """Result for a set of kept nodes: the smallest agreement over the outputs, and whether all reach their limits."""

    agreement: float
    passed: bool


def by_damage_per_byte(ranking: Iterable[Sensitivity]) -> tuple[Sensitivity, ...]:
    """Return nodes in the order of the benefit of keeping them."""
    return tuple(sorted(ranking, key=lambda one: (-one.damage / (one.size_bytes + _OVERHEAD_BYTES), one.node)))


def search(
    ranking: Sequence[Sensitivity], bounds: AutoKeep, measure: Callable[[frozenset[str]], Trial | None]
) -> KeepSearch:
    """Search within the bounds.

    Args:
        ranking: All nodes that could be kept, in the order of `by_damage_per_byte`.
        bounds: Bounds of the kept nodes.
        measure: Function that runs a trial, or returns None if the time is over.
    """
    order, stopped_by = _within(ranking, bounds)
    found = _Search(ranking, measure).run(order)
    if found.reached:
        return found
    return found.model_copy(update={"stopped_by": stopped_by if found.complete else ("timeout",)})


def _within(ranking: Sequence[Sensitivity], bounds: AutoKeep) -> tuple[list[str], tuple[str, ...]]:
    """Return the nodes that may be kept together, in order, and the bounds that excluded others."""
    left = bounds.budget * sum(one.size_bytes for one in ranking)
    most = len(ranking) if bounds.max_nodes is None else bounds.max_nodes
    chosen: list[str] = []
    stopped_by: set[str] = set()
    for one in ranking:
        if one.damage <= 0:
            continue
        beyond = {"maxNodes"} if len(chosen) >= most else {"budget"} if one.size_bytes > left else set()
        stopped_by |= beyond
        if not beyond:
            left -= one.size_bytes
            chosen.append(one.node)
    return chosen, tuple(sorted(stopped_by))


class _TimeIsOverError(Exception):
    """No time is left for another trial."""


class _Search:
    def __init__(self, ranking: Sequence[Sensitivity], measure: Callable[[frozenset[str]], Trial | None]) -> None:
        self._sizes = {one.node: one.size_bytes for one in ranking}
        self._measure = measure
        self._curve: list[KeptPoint] = []
        self._best: tuple[bool, float, tuple[str, ...]] = (False, -1.0, ())

    def run(self, order: list[str]) -> KeepSearch:
        complete = True
        try:
            self._look(order)
        except _TimeIsOverError:
            complete = False
        reached, _, kept = self._best
        return KeepSearch(kept=kept, reached=reached, complete=complete, curve=tuple(self._curve))

    def _look(self, order: list[str]) -> None:
        if self._passes(()) or not order or not self._passes(order):
            return
        enough, too_few = len(order), 0
        while enough - too_few > 1:
            middle = (enough + too_few) // 2
            enough, too_few = (middle, too_few) if self._passes(order[:middle]) else (enough, middle)
        kept = order[:enough]
        for node in sorted(kept, key=lambda one: -self._sizes[one])[:_MOST_RETURNS]:
            left = [one for one in kept if one != node]
            if left and self._passes(left):
                kept = left

    def _passes(self, kept: Sequence[str]) -> bool:
        trial = self._measure(frozenset(kept))
        if trial is None:
            raise _TimeIsOverError
        size = sum(self._sizes[one] for one in kept)
        self._curve.append(
            KeptPoint(kept_nodes=len(kept), kept_bytes=size, agreement=trial.agreement, passed=trial.passed)
        )
        # The last passing set is the smallest one. Without a passing set, use the one with the best agreement.
        if trial.passed or (not self._best[0] and trial.agreement > self._best[1]):
            self._best = (trial.passed, trial.agreement, tuple(kept))
        return trial.passed
