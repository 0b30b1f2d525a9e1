"""The precisions that are compared: each without kept nodes, and the document's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from enginesmith_contract.backends import Precision
from enginesmith_contract.errors import SpecError
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.precision import PrecisionSpec

__all__ = ["Candidate", "candidates"]

_OWN: Final = "{}-file"
"""Label of the document's own precision, where it is none of the others."""
_USUAL: Final = (Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8)
"""Precisions that are compared by default; FP8 is faster only on few GPUs and for few operators."""
_CALIBRATED: Final = frozenset({Precision.INT8, Precision.FP8})


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One precision; `engine` is the document with it."""

    label: str
    engine: InferenceEngine


def candidates(engine: InferenceEngine, wanted: Sequence[Precision]) -> tuple[Candidate, ...]:
    """Return FP32 first, then the wanted precisions, each without kept nodes, and the document's own.

    Args:
        engine: the document.
        wanted: empty: every precision that the document has what it takes for.

    Raises:
        SpecError: a wanted precision needs calibration data, and the document has none.
    """
    own = engine.spec.precision.model_copy(update={"fallback": ()})
    for precision in wanted:
        if precision in _CALIBRATED and own.calibration is None:
            raise SpecError(
                f"{precision.value} needs calibration data",
                where=f"--precision {precision.value}",
                why="the document has no spec.precision.calibration",
                remedy="add it to the document",
                reason="Usage",
            )
    chosen = wanted or tuple(one for one in _USUAL if one not in _CALIBRATED or own.calibration is not None)
    whole = {
        precision: PrecisionSpec(default=precision, calibration=own.calibration)
        if precision in _CALIBRATED
        else PrecisionSpec(default=precision)
        for precision in dict.fromkeys((Precision.FP32, *chosen))
    }
    found = [Candidate(label=precision.value, engine=_with(engine, spec)) for precision, spec in whole.items()]
    if not wanted and own not in whole.values() and own.default is not Precision.FP32:
        found.append(Candidate(label=_OWN.format(own.default.value), engine=_with(engine, own)))
    return tuple(found)


def _with(engine: InferenceEngine, precision: PrecisionSpec) -> InferenceEngine:
    return engine.model_copy(update={"spec": engine.spec.model_copy(update={"precision": precision})})
