"""Decides which candidates are measured and which one is recommended; it starts no process.

The document's own settings are measured first. Each dimension is then tried from the best settings so far. The winner
has to win again at the end: in a short measurement, the luckiest of many looks better than it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from enginesmith_cli.bench.settings import FROM_FILE, Settings
from enginesmith_cli.bench.wanted import Objective

__all__ = ["AGAIN", "FILE", "Found", "Measured", "Trial", "search"]

FILE: Final = "file"
"""The dimension of the first measurement."""
AGAIN: Final = "again"
"""The dimension of the two measurements at the end."""
_MARGIN: Final = 1.03
"""Settings are better from here on; the difference of two runs of the same settings is about this large."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What clients saw of one server.

    Attributes:
        p50_ms: the median latency in milliseconds.
        p99_ms: the latency that 99 of 100 requests stayed below.
        cpu_us: processor time of the server for one request, in microseconds.
        client_load: processor time of the busiest client process, as a part of the time measured; near 1 it is the
            client that limits the rate.
        refused: requests that failed; `refusal` is the first one's message.
    """

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    client_load: float
    refused: int = 0
    refusal: str = ""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One measurement. `failure`: why there is none."""

    dimension: str
    settings: Settings
    measured: Measured | None = None
    failure: str = ""

    @property
    def counts(self) -> bool:
        """Whether every request was answered."""
        return self.measured is not None and not self.measured.refused and self.measured.requests_per_second > 0


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search found.

    Attributes:
        trials: in the order in which they were made.
        settings: that are recommended.
        gain: how many times as good they are as the document's; 1.0: they are the document's.
    """

    trials: tuple[Trial, ...]
    settings: Settings = FROM_FILE
    gain: float = 1.0


Measure = Callable[[str, Settings], Trial]
Propose = Callable[[str, Settings], Sequence[Settings]]


def search(dimensions: Sequence[str], propose: Propose, measure: Measure, objective: Objective) -> Found:
    """Measure candidates and recommend one.

    Args:
        dimensions: in their order.
        propose: returns the candidates of a dimension, given the best settings so far.
        measure: of the given dimension's name and settings.
        objective: what is wanted.
    """
    best = first = measure(FILE, FROM_FILE)
    trials = [first]
    for dimension in dimensions:
        for settings in propose(dimension, best.settings):
            trials.append(measure(dimension, settings))
            if _gain(best, trials[-1], objective) >= _MARGIN:
                best = trials[-1]
    if best is first:
        return Found(trials=tuple(trials))
    before, after = measure(AGAIN, FROM_FILE), measure(AGAIN, best.settings)
    trials += [before, after]
    gain = _gain(before, after, objective)
    if gain < _MARGIN:
        return Found(trials=tuple(trials))
    return Found(trials=tuple(trials), settings=best.settings, gain=gain)


def _gain(before: Trial, after: Trial, objective: Objective) -> float:
    """Return how many times as good `after` is; 0 if it is not valid, infinity if only it is valid."""
    if not after.counts or after.measured is None:
        return 0.0
    if not before.counts or before.measured is None:
        return float("inf")
    if objective is Objective.LATENCY:
        return before.measured.p99_ms / after.measured.p99_ms
    return after.measured.requests_per_second / before.measured.requests_per_second
