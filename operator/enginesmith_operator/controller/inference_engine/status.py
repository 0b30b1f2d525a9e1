"""The status of an InferenceEngine and the events that go with its changes. Pure."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from enginesmith_operator.api.conditions import (
    BUILT,
    CONFLICT,
    PRECISION_FALLBACK,
    READY,
    UP_TO_DATE,
    ConditionStatus,
)
from enginesmith_operator.api.engine_build import BuildPhase
from enginesmith_operator.api.engine_status import (
    EngineStatus,
    PreparationPhase,
    PreparationStatus,
    StoredEngine,
    TargetPhase,
    TargetStatus,
)
from enginesmith_operator.api.targets import TargetSpec
from enginesmith_operator.controller.inference_engine.policies import observe_policies, policy_events
from enginesmith_operator.controller.inference_engine.preparation import PreparationStep
from enginesmith_operator.controller.inference_engine.readiness import answers, observe_serving
from enginesmith_operator.controller.inference_engine.rollout_input import build_obstacle
from enginesmith_operator.controller.inference_engine.snapshot import EngineSnapshot
from enginesmith_operator.controller.inference_engine.target import TargetDecision
from enginesmith_operator.controller.shared.conditions import (
    Observation,
    bounded_line,
    find_condition,
    observed_conditions,
)
from enginesmith_operator.controller.shared.decision import EventNote
from enginesmith_operator.kinds import SERVICE
from enginesmith_operator.planning.plan_records import Plan

__all__ = ["compose_status", "engine_events", "not_up_to_date", "obstacle_events", "with_conflict", "with_refusal"]

_MAX_STORED: Final = 256
_LINE: Final = 1024
_NAMES: Final = 4096
_TOLD: Final = {
    TargetPhase.SERVING: False,
    TargetPhase.REFUSED: True,
    TargetPhase.FAILED: True,
    TargetPhase.WAITING_FOR_GPU: True,
    TargetPhase.ROLLING_OUT: False,
}
"""Phases whose start causes an event, and whether it is a warning."""
_OBSTACLES: Final = frozenset({"NameTaken", "Refused", "SpecInvalid"})
"""Reasons of UpToDate that no target has: the engine as a whole cannot be reconciled."""
_TOLD_REASONS: Final = frozenset({"MadeRoom", "Replacing"})
"""Reasons that cause an event in every phase: the operator itself stops a replica."""


def compose_status(
    snapshot: EngineSnapshot,
    plan: Plan,
    step: PreparationStep,
    targets: Iterable[TargetDecision],
    digests: dict[str, str],
    *,
    leaving: Iterable[str] = (),
) -> EngineStatus:
    """Return the status; `leaving`: targets that are not in the spec any more and serve until others do."""
    decided = tuple(targets)
    statuses = tuple(target.status for target in decided)
    ready, all_targets, up_to_date, serving = observe_serving(snapshot.engine.spec.targets, decided, leaving)
    generation = snapshot.engine.metadata.generation
    observations = (
        ready,
        all_targets,
        up_to_date,
        *(Observation.of(one.type, one.status, one.reason, one.message) for one in plan.conditions[:1]),
        *(Observation.of(one.type, one.status, one.reason, one.message) for one in plan.conditions[1:2]),
        step.condition,
        _built(snapshot, statuses, digests, step),
        serving,
        *(Observation.of(one.type, one.status, one.reason, one.message) for one in plan.conditions[2:]),
        *observe_policies(snapshot),
    )
    return EngineStatus(
        observed_generation=generation,
        serving=_share(snapshot.engine.spec.targets, statuses),
        serving_on=bounded_line(", ".join(_hardware(one) for one in statuses if answers(one)), _LINE),
        target_names=bounded_line(",".join(one.name for one in statuses), _NAMES),
        model=step.model,
        preparation=_preparation(step.status, _still_needed(snapshot, decided, digests)),
        inherited=snapshot.observed.inherited,
        targets=statuses,
        conditions=observed_conditions(
            observations, snapshot.status.conditions, generation=generation, now=snapshot.now
        ),
    )


def with_conflict(status: EngineStatus, names: tuple[str, ...], snapshot: EngineSnapshot) -> EngineStatus:
    """Return the status with the operator's names that objects of others have; without such names, unchanged."""
    if not names:
        return status
    belongs = "belongs" if len(names) == 1 else "belong"
    text = f"{', '.join(names)} {belongs} to another owner: delete or rename, or rename the InferenceEngine"
    conflict = Observation.of(CONFLICT, True, "NameTaken", text)
    # Without its Services no client reaches what serves.
    hides = any(name.startswith(SERVICE.kind) for name in names)
    return not_up_to_date(
        status, "NameTaken", text, snapshot.status, snapshot.now, also=(conflict,), keeps_ready=not hides
    )


def with_refusal(status: EngineStatus, sentence: str, snapshot: EngineSnapshot) -> EngineStatus:
    """Return the status with the API server's refusal of an operator's object: a quota, a policy, a missing right."""
    return not_up_to_date(status, "Refused", sentence, snapshot.status, snapshot.now, keeps_ready=True)


def not_up_to_date(
    status: EngineStatus,
    reason: str,
    message: str,
    before: EngineStatus,
    now: datetime,
    *,
    also: tuple[Observation, ...] = (),
    keeps_ready: bool = False,
) -> EngineStatus:
    """Return a status that says why the engine as a whole cannot be worked on.

    Args:
        status: to change; its `observedGeneration` is that of the new conditions.
        reason: of UpToDate, and of Ready where that does not hold.
        message: of the same.
        before: status with the times of the conditions.
        now: the time.
        also: more conditions, for the end.
        keeps_ready: whether Ready stays where it holds: what serves is known to answer.
    """
    ready = find_condition(status.conditions, READY)
    stays = keeps_ready and ready is not None and ready.status is ConditionStatus.TRUE
    heads = [Observation.of(kind, False, reason, message) for kind in (READY, UP_TO_DATE)[int(stays) :]]
    fresh = observed_conditions((*heads, *also), before.conditions, generation=status.observed_generation, now=now)
    new = {one.type for one in fresh}
    kept = [one for one in status.conditions if one.type not in new]
    first = [one for one in kept if one.type == READY]
    rest = [one for one in kept if one.type != READY]
    count = len(heads)
    return status.model_copy(update={"conditions": (*first, *fresh[:count], *rest, *fresh[count:])})


def obstacle_events(before: EngineStatus, after: EngineStatus) -> tuple[EventNote, ...]:
    """Return what keeps the engine as a whole from being worked on, when that begins."""
    was, now = (find_condition(one.conditions, UP_TO_DATE) for one in (before, after))
    if now is None or now.reason not in _OBSTACLES or (was is not None and was.reason == now.reason):
        return ()
    since = (was.last_transition_time or "") if was is not None else ""
    return (EventNote(is_warning=True, reason=now.reason, message=now.message, since=since),)


def engine_events(before: EngineStatus, after: EngineStatus) -> tuple[EventNote, ...]:
    """Return the events that matter to users: a target serves, fails, waits or is refused."""
    known = {one.name: one for one in before.targets}
    notes = []
    for target in after.targets:
        old = known.get(target.name)
        if not _is_news(old, target):
            continue
        notes.append(
            EventNote(
                is_warning=_TOLD.get(target.phase, False),
                reason=_camel(target.reason) or target.phase.value,
                message=f"{target.name}: {target.message}",
                since=(old.since if old is not None else "") or "",
            )
        )
    told = find_condition(after.conditions, PRECISION_FALLBACK)
    if told is not None and len(after.refused_precisions) > len(before.refused_precisions):
        notes.append(EventNote(is_warning=True, reason="PrecisionFallback", message=told.message))
    failure = after.preparation.failure if after.preparation else None
    was = before.preparation.failure if before.preparation else None
    if failure is not None and (was is None or was.sentence() != failure.sentence()):
        notes.append(EventNote(is_warning=True, reason=failure.reason, message=failure.sentence()))
    return (*notes, *policy_events(before, after))


def _is_news(old: TargetStatus | None, target: TargetStatus) -> bool:
    if target.reason in _TOLD_REASONS:
        return old is None or old.reason != target.reason
    return target.phase in _TOLD and (old is None or old.phase is not target.phase)


def _share(specs: tuple[TargetSpec, ...], statuses: tuple[TargetStatus, ...]) -> str:
    """Return how many targets serve of those that the spec asks to, as `2/3`.

    The second number follows from the spec alone. A standby, which stands in for all of them, counts as one where none
    of them serves.
    """
    expected = [
        status
        for number, (spec, status) in enumerate(zip(specs, statuses, strict=True))
        # No target stands before the first one, so it always serves.
        if (number == 0 or not spec.standby) and (spec.replicas > 0 or spec.autoscaling is not None)
    ]
    serving = sum(map(answers, expected)) or int(any(map(answers, statuses)))
    return f"{min(serving, len(expected))}/{len(expected)}"


def _built(
    snapshot: EngineSnapshot, statuses: tuple[TargetStatus, ...], digests: dict[str, str], step: PreparationStep
) -> Observation:
    wanted = {engine.key for target in statuses for engine in target.engines if engine.key is not None}
    if not wanted:
        return Observation.of(
            BUILT, False, step.condition.reason if _failed(step) else "Pending", "no key is known yet"
        )
    lacking = sorted(wanted - set(digests))
    if not lacking:
        return Observation.of(BUILT, True, "Stored", _stored(len(wanted), len(wanted - set(snapshot.builds))))
    failed = [build for key in lacking if (build := snapshot.builds.get(key)) and build.phase is BuildPhase.FAILED]
    if failed:
        first = failed[0]
        reason = first.failure.reason if first.failure else "BuildFailed"
        message = first.failure.message if first.failure else first.message
        return Observation.of(BUILT, False, reason, f"{first.target}: {message}")
    waiting = [build for key in lacking if (build := snapshot.builds.get(key)) and build_obstacle(build)]
    if waiting:
        return Observation.of(BUILT, False, waiting[0].reason, f"{waiting[0].target}: {waiting[0].message}")
    return Observation.of(BUILT, False, "Building", f"{len(wanted) - len(lacking)} of {len(wanted)} engines are stored")


def _stored(engines: int, found: int) -> str:
    """Say that all engines are stored, and how many of them were there before: nothing had to be built for those."""
    text = "1 engine is stored" if engines == 1 else f"{engines} engines are stored"
    if not found:
        return text
    if found == engines:
        return f"{text}; found in the store, so nothing was built"
    return f"{text}; {found} of them were found in the store, the others were built"


def _failed(step: PreparationStep) -> bool:
    return step.status is not None and step.status.phase is PreparationPhase.FAILED


def _preparation(memory: PreparationStatus | None, digests: dict[str, str]) -> PreparationStatus | None:
    """Return what is remembered of the preparation, with the engines of the store that are needed."""
    if memory is None or memory.phase is not PreparationPhase.SUCCEEDED:
        return memory
    stored = tuple(StoredEngine(key=key, digest=digests[key]) for key in sorted(digests))[:_MAX_STORED]
    return memory.model_copy(update={"stored_engines": stored})


def _still_needed(
    snapshot: EngineSnapshot, targets: tuple[TargetDecision, ...], digests: dict[str, str]
) -> dict[str, str]:
    """Leave out engines that no target returns to: no sweep of the store may delete what a status names."""
    running = (one.notes for one in snapshot.deployments.values())
    needed = {key for target in targets for key in target.wants}
    needed |= {one.key for notes in running for one in (*notes.engines, *notes.served)}
    needed |= set(snapshot.builds)
    return {key: digest for key, digest in digests.items() if key in needed}


def _hardware(target: TargetStatus) -> str:
    products = dict.fromkeys(
        " ".join(
            part for part in (one.product or "CPU", one.mig_profile, "(quick)" if one.serving_quick else "") if part
        )
        for one in target.engines
        if one.serving or one.serving_quick
    )
    return "/".join(products) or "CPU"


def _camel(text: str) -> str:
    return text if text.isalnum() else ""
