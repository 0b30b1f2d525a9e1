"""The conditions that say whether an InferenceEngine answers requests, and with the engines of its spec. Pure.

| condition | a target that is asked to serve and |
|---|---|
| Ready | served before has to answer, or what stands in for it: its standby, or the target whose place it takes |
| AllTargets | is new has to answer too |
| UpToDate | answers has to do so with the full engines that the spec asks for |
"""

from collections.abc import Iterable
from typing import Final

from enginesmith_operator.api.conditions import ALL_TARGETS, READY, SERVING, UP_TO_DATE
from enginesmith_operator.api.engine_status import TargetPhase, TargetStatus
from enginesmith_operator.api.targets import TargetSpec
from enginesmith_operator.controller.inference_engine.target import TargetDecision
from enginesmith_operator.controller.shared.conditions import Observation
from enginesmith_operator.controller.shared.waiting import PODS_REFUSED

__all__ = ["answers", "observe_serving"]

# Targets in these phases are not asked to serve.
_RESTING: Final = frozenset({TargetPhase.STANDBY, TargetPhase.IDLE})
# Targets in these phases cannot serve until a user changes something, so other targets do not wait for them.
_HOPELESS: Final = frozenset({TargetPhase.REFUSED, TargetPhase.FAILED})


def answers(target: TargetStatus) -> bool:
    """Whether a target has a replica that answers requests."""
    return target.ready_replicas > 0


def observe_serving(
    specs: Iterable[TargetSpec], targets: Iterable[TargetDecision], leaving: Iterable[str]
) -> tuple[Observation, Observation, Observation, Observation]:
    """Return Ready, AllTargets, UpToDate and Serving.

    Args:
        specs: targets of the spec.
        targets: the same, as they were decided.
        leaving: names of targets that are not in the spec any more and serve until others do.
    """
    decided, stay = tuple(targets), sorted(leaving)
    statuses = [one.status for one in decided]
    asked = [one for one in statuses if one.phase not in _RESTING]
    missed = _missed(tuple(specs), decided)
    return _ready(asked, missed, stay), _all_targets(asked), _up_to_date(asked), _serving(asked, statuses, stay)


def _missed(specs: tuple[TargetSpec, ...], decided: tuple[TargetDecision, ...]) -> list[TargetStatus]:
    """Return the targets that served before, do not answer, and have no standby that answers in their place."""
    found: list[TargetStatus] = []
    for spec, one in zip(specs, decided, strict=True):
        status = one.status
        if spec.standby and answers(status):
            found.clear()
        elif one.has_served and not answers(status) and status.phase not in _RESTING | _HOPELESS:
            found.append(status)
    return found


def _ready(asked: list[TargetStatus], missed: list[TargetStatus], leaving: list[str]) -> Observation:
    if not asked:
        return Observation.of(READY, True, "NothingToServe", "no target should serve")
    good = [*(one.name for one in asked if answers(one)), *leaving]
    lacking = [one for one in asked if not answers(one)]
    if not good or missed:
        shown = missed or [one for one in lacking if one.phase not in _HOPELESS] or lacking
        return Observation.of(READY, False, shown[0].reason or shown[0].phase.value, _first_of(shown))
    without = f"; without {_first_of(lacking)}" if lacking else ""
    return Observation.of(READY, True, "SomeTargets" if lacking else "Serving", f"on {', '.join(good)}{without}")


def _all_targets(asked: list[TargetStatus]) -> Observation:
    lacking = [one for one in asked if not answers(one)]
    if lacking:
        return Observation.of(ALL_TARGETS, False, lacking[0].reason or lacking[0].phase.value, _first_of(lacking))
    return Observation.of(ALL_TARGETS, True, "Serving", "every target that should serve does")


def _up_to_date(asked: list[TargetStatus]) -> Observation:
    lacking = [one for one in asked if not _serves_what_is_wanted(one)]
    if lacking:
        return Observation.of(UP_TO_DATE, False, lacking[0].reason or lacking[0].phase.value, _first_of(lacking))
    told = "every target that should serve has the engines of the current spec"
    return Observation.of(UP_TO_DATE, True, "Serving" if asked else "NothingToServe", told)


def _first_of(targets: list[TargetStatus]) -> str:
    rest = f" (and {len(targets) - 1} more)" if len(targets) > 1 else ""
    return f"{targets[0].name}: {targets[0].message}{rest}"


def _serves_what_is_wanted(target: TargetStatus) -> bool:
    # Until the model is known, it is not known which engines are wanted.
    is_known = all(one.key is not None for one in target.engines)
    serves = target.phase is TargetPhase.SERVING and bool(target.serving) and target.reason != PODS_REFUSED
    return serves and is_known and set(target.serving) >= set(target.desired)


def _serving(asked: list[TargetStatus], statuses: list[TargetStatus], leaving: list[str]) -> Observation:
    serving = [one for one in asked if answers(one)]
    found = [one.name for one in serving or statuses if answers(one)]
    gone = [f"{name} (removed from the spec; it is deleted when the targets that replace it serve)" for name in leaving]
    if found or gone:
        return Observation.of(SERVING, True, "Serving", f"on {', '.join((*found, *gone))}")
    return Observation.of(SERVING, False, "NoReplicaReady", "no target has a ready replica")
