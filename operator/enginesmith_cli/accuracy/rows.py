"""The figures of one precision."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from enginesmith_contract.auto_keep import AutoKeepResult, KeepSearch
from enginesmith_contract.verification import OutputAgreement
from enginesmith_runtime.prepare.accuracy.jobs import LayerError, Measured

__all__ = ["Row", "pareto_front"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One precision.

    Attributes:
        label: of the candidate.
        measured: None: there is no prepared model, and `failure` says why.
        kept: number of nodes that stay in a higher precision.
        size_bytes: of the prepared model.
        engine_bytes: of the engine; None: none was built.
        latency_ms: of one inference at each profile's opt, by profile.
        gate: result of the engine's verification; empty: no engine was built.
        alarms: of the engine's verification, one sentence each.
        auto_keep: what the search for nodes to keep found; None: none was made.
        search: its part for this model.
        failure: why there is no prepared model, or no engine.
    """

    label: str
    measured: Measured | None = None
    kept: int = 0
    size_bytes: int = 0
    engine_bytes: int | None = None
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    gate: str = ""
    alarms: tuple[str, ...] = ()
    auto_keep: AutoKeepResult | None = None
    search: KeepSearch | None = None
    failure: str = ""

    @property
    def latency(self) -> float | None:
        """Return the latency of the first profile in ms."""
        return next(iter(self.latency_ms.values()), None)

    @property
    def outputs(self) -> Sequence[OutputAgreement]:
        """Return what was measured of each output."""
        return () if self.measured is None else self.measured.outputs

    @property
    def layers(self) -> Sequence[LayerError]:
        """Return what was measured of values inside the model."""
        return () if self.measured is None else self.measured.layers

    @property
    def agreement(self) -> float:
        """Return the smallest agreement of the outputs, 0 where one is broken; NaN where there is none."""
        if any(one.found is not None for one in self.outputs):
            return 0.0
        return min((one.agreement for one in self.outputs if one.agreement is not None), default=math.nan)

    @property
    def cosine(self) -> float | None:
        """Return the smallest cosine of the outputs."""
        return min((one.cosine for one in self.outputs if one.cosine is not None), default=None)

    @property
    def mean_relative_error(self) -> float | None:
        """Return the largest mean relative error of the outputs."""
        errors = (one.mean_relative_error for one in self.outputs)
        return max((error for error in errors if error is not None), default=None)

    @property
    def sqnr_db(self) -> float | None:
        """Return the smallest signal to noise ratio of the outputs in dB; None: no output has any noise."""
        return min((one.sqnr_db for one in self.outputs if one.sqnr_db is not None), default=None)


def pareto_front(points: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """Return the indices of the points that no other one beats, by cost.

    Args:
        points: (cost, gain) of each; a point is beaten by one that costs no more and gains no less, and is not equal.
    """
    front = [
        index
        for index, (cost, gain) in enumerate(points)
        if not any((c, g) != (cost, gain) and c <= cost and g >= gain for c, g in points)
    ]
    return tuple(sorted(front, key=lambda index: points[index]))
