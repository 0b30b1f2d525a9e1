"""`spec.precision.fallback`: when the next precision takes the place of one, and what is said of it. Pure.

| a precision is refused | where that shows |
|---|---|
| the model cannot be had in it | the failure of the preparation |
| its answers on a CPU are beyond the limit | the plan of the prepared model |
| an engine of it fails the verification | the build, or the first server of the engine |
| an engine of it is slower than the FP16 engine of the same GPU, and both were measured | the two builds |

The whole document changes its precision, so that all targets give the same answers. Other failures (broken calibration
data, a builder without memory) need a person, and change nothing.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from enginesmith_contract.backends import Precision
from enginesmith_operator.api.conditions import PRECISION_FALLBACK
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.planning.plan_records import Condition, EnginePlan, Plan, TargetState
from enginesmith_operator.planning.snapshot import RefusedPrecision

__all__ = [
    "GATE_FAILED",
    "compare_latencies",
    "fallback_condition",
    "following",
    "in_half_precision",
    "pair_engines",
    "refused_by_model",
    "refused_by_plan",
    "without_refused",
]

GATE_FAILED: Final = "VerificationFailed"
"""Reason of an engine whose answers are not those of the model."""
_BEYOND_LIMIT: Final = "PrecisionBeyondLimit"
_SLOWER: Final = "SlowerThanFP16"
_NOT_TO_BE_HAD: Final = frozenset({"NotQuantisable", "PrecisionNotAvailable"})
_SAID: Final = {
    GATE_FAILED: "failed its gate",
    _BEYOND_LIMIT: "fails its gate on a CPU",
    _SLOWER: "is slower than fp16",
}
_QUANTISED: Final = frozenset({Precision.INT8, Precision.FP8})


def following(engine: InferenceEngine) -> InferenceEngine | None:
    """Return the engine in the precision that is tried next; None: nothing is."""
    precision = engine.spec.precision.following
    if precision is None:
        return None
    return engine.model_copy(update={"spec": engine.spec.model_copy(update={"precision": precision})})


def without_refused(engine: InferenceEngine, refused: Collection[Precision]) -> InferenceEngine:
    """Return the engine in the first precision that was not refused, or in the last one."""
    while engine.spec.precision.default in refused and (after := following(engine)) is not None:
        engine = after
    return engine


def refused_by_model(precision: Precision, reason: str, message: str) -> RefusedPrecision | None:
    """Return that the model cannot be had in a precision, where that is why its preparation failed."""
    if reason not in _NOT_TO_BE_HAD:
        return None
    return RefusedPrecision(precision=precision, reason=reason, message=message)


def refused_by_plan(plan: Plan) -> RefusedPrecision | None:
    """Return that the precision's answers are beyond the limit, where that is why a target has no plan."""
    refused = (target for target in plan.targets if target.state is TargetState.REFUSED)
    counts = (count for target in refused for count in target.refusals)
    found = next((count for count in counts if count.rule == _BEYOND_LIMIT), None)
    if found is None:
        return None
    precision = plan.preparation.precision.default
    return RefusedPrecision(precision=precision, reason=found.rule, message=found.sentence())


def fallback_condition(precision: Precision, refused: Sequence[RefusedPrecision]) -> tuple[Condition, ...]:
    """Return what is said where `precision` takes the place of others; nothing where it takes that of none."""
    if not refused:
        return ()
    why = ", and of ".join(f"{one.precision}, which {_what(one)} ({one.message})" for one in refused)
    message = f"{precision} is used in place of {why}"
    return (Condition(type=PRECISION_FALLBACK, status=True, reason=refused[-1].reason, message=message),)


def in_half_precision(engine: InferenceEngine) -> InferenceEngine | None:
    """Return the engine in FP16, where its precision is a quantised one and FP16 is tried after it."""
    if engine.spec.precision.default not in _QUANTISED:
        return None
    after = following(engine)
    while after is not None and after.spec.precision.default is not Precision.FP16:
        after = following(after)
    return after


def pair_engines(plan: Plan, other: Plan) -> Iterator[tuple[EnginePlan, EnginePlan]]:
    """Give each engine for a GPU with the engine of another plan for the same target and GPU."""
    for target, its_other in zip(plan.targets, other.targets, strict=True):
        others = {(one.hardware.product, one.hardware.mig_profile): one for one in its_other.engines}
        for engine in target.engines:
            found = others.get((engine.hardware.product, engine.hardware.mig_profile))
            if engine.hardware.product is not None and found is not None:
                yield engine, found


def compare_latencies(
    engine: InferenceEngine, product: str | None, latencies: Mapping[str, float], half: Mapping[str, float]
) -> RefusedPrecision | None:
    """Return that an engine is slower than the one in FP16 at the opt shapes of the first profile that both have.

    Args:
        engine: in the precision that is judged.
        product: GPU of both.
        latencies: of one inference in seconds, by profile.
        half: the same of the FP16 engine.
    """
    names = [profile.name for profile in engine.spec.profiles] or sorted(latencies)
    name = next((name for name in names if name in latencies and name in half), None)
    if name is None or latencies[name] <= half[name]:
        return None
    message = f"{1000 * latencies[name]:.3g} ms and {1000 * half[name]:.3g} ms on {product}, profile {name}"
    return RefusedPrecision(precision=engine.spec.precision.default, reason=_SLOWER, message=message)


def _what(refused: RefusedPrecision) -> str:
    return _SAID.get(refused.reason, "the model cannot be had in")
