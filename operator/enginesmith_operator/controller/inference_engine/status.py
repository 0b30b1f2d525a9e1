"""The status of an InferenceEngine and the events that go with its changes. Pure."""

from collections.abc import Iterable
from typing import Final

from enginesmith_operator.api.conditions import (
    ALL_TARGETS,
    BUILT,
    CONFLICT,
    READY,
    SERVING,
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
from enginesmith_operator.controller.inference_engine.preparation import PreparationStep
from enginesmith_operator.controller.inference_engine.rollout import build_obstacle
from enginesmith_operator.controller.inference_engine.snapshot import EngineSnapshot
from enginesmith_operator.controller.inference_engine.target import TargetDecision
from enginesmith_operator.controller.shared.conditions import (
    Observation,
    bounded_line,
    find_condition,
    observed_conditions,
)
from enginesmith_operator.controller.shared.decision import EventNote
from enginesmith_operator.controller.shared.waiting import PODS_REFUSED
from enginesmith_operator.planning.plan_records import Plan

__all__ = ["compose_status", "engine_events", "obstacle_events", "with_conflict", "with_refusal"]

_MAX_STORED: Final = 256
_LINE: Final = 1024
_NAMES: Final = 4096
# Targets in these phases are not asked to serve.
_RESTING: Final = frozenset({TargetPhase.STANDBY, TargetPhase.IDLE})
# Targets in these phases cannot serve until a user changes something; others need not wait for them.
_HOPELESS: Final = frozenset({TargetPhase.REFUSED, TargetPhase.FAILED})
_TOLD: Final = {
    TargetPhase.SERVING: False,
    TargetPhase.REFUSED: True,
    TargetPhase.FAILED: True,
    TargetPhase.WAITING_FOR_GPU: True,
    TargetPhase.ROLLING_OUT: False,
}
"""Phases whose beginning is an event, and whether it is a warning."""
_OBSTACLES: Final = frozenset({"NameTaken", "Refused", "SpecInvalid"})
"""Reasons of Ready that no target has: the engine as a whole cannot be worked on."""
_TOLD_REASONS: Final = frozenset({"MadeRoom", "Replacing"})
"""Reasons that are an event in whatever phase: the operator ends a replica by itself."""


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
    asked = [one for one in statuses if one.phase not in _RESTING]
    serving = [one for one in asked if _serves(one)]
    generation = snapshot.engine.metadata.generation
    observations = (
        _ready(asked),
        _all_targets(asked),
        *(_from_plan(one.type, one.status, one.reason, one.message) for one in plan.conditions[:1]),
        *(_from_plan(one.type, one.status, one.reason, one.message) for one in plan.conditions[1:2]),
        step.condition,
        _built(snapshot, statuses, digests, step),
        _serving(serving, statuses, sorted(leaving)),
        *(_from_plan(one.type, one.status, one.reason, one.message) for one in plan.conditions[2:]),
    )
    return EngineStatus(
        observed_generation=generation,
        serving=_share(snapshot.engine.spec.targets, statuses),
        serving_on=bounded_line(", ".join(_hardware(one) for one in statuses if _serves(one)), _LINE),
        target_names=bounded_line(",".join(one.name for one in statuses), _NAMES),
        model=step.model,
        preparation=_preparation(step.status, _still_needed(snapshot, decided, digests)),
        targets=statuses,
        conditions=observed_conditions(
            observations, snapshot.status.conditions, generation=generation, now=snapshot.now
        ),
    )


def with_conflict(status: EngineStatus, names: tuple[str, ...], snapshot: EngineSnapshot) -> EngineStatus:
    """Return the status with the operator's names that objects of others have; without such names, unchanged."""
    if not names:
        return status
    text = f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} there and not ours: delete or rename"
    conflict = Observation.of(CONFLICT, True, "NameTaken", text)
    return _not_ready(status, "NameTaken", text, snapshot, also=(conflict,))


def with_refusal(status: EngineStatus, sentence: str, snapshot: EngineSnapshot) -> EngineStatus:
    """Return the status with the API server's refusal of an operator's object: a quota, a policy, a missing right."""
    return _not_ready(status, "Refused", sentence, snapshot)


def _not_ready(
    status: EngineStatus, reason: str, message: str, snapshot: EngineSnapshot, *, also: tuple[Observation, ...] = ()
) -> EngineStatus:
    ready = Observation.of(READY, False, reason, message)
    generation = snapshot.engine.metadata.generation
    fresh = observed_conditions((ready, *also), snapshot.status.conditions, generation=generation, now=snapshot.now)
    kept = [one for one in status.conditions if one.type not in {READY, *(each.type for each in also)}]
    return status.model_copy(update={"conditions": (fresh[0], *kept, *fresh[1:])})


def obstacle_events(before: EngineStatus, after: EngineStatus) -> tuple[EventNote, ...]:
    """Return what keeps the engine as a whole from being worked on, when that begins."""
    was, now = find_condition(before.conditions, READY), find_condition(after.conditions, READY)
    if now is None or now.reason not in _OBSTACLES or (was is not None and was.reason == now.reason):
        return ()
    since = (was.last_transition_time or "") if was is not None else ""
    return (EventNote(is_warning=True, reason=now.reason, message=now.message, since=since),)


def engine_events(before: EngineStatus, after: EngineStatus) -> tuple[EventNote, ...]:
    """Return what a person would want to hear of: a target that serves, fails, waits or is refused."""
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
    failure = after.preparation.failure if after.preparation else None
    was = before.preparation.failure if before.preparation else None
    if failure is not None and (was is None or was.sentence() != failure.sentence()):
        notes.append(EventNote(is_warning=True, reason=failure.reason, message=failure.sentence()))
    return tuple(notes)


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
    serving = sum(map(_serves, expected)) or int(any(map(_serves, statuses)))
    return f"{min(serving, len(expected))}/{len(expected)}"


def _ready(asked: list[TargetStatus]) -> Observation:
    lacking = [one for one in asked if not _serves_what_is_wanted(one)]
    if not asked:
        return Observation.of(READY, True, "NothingToServe", "no target is asked to serve")
    waited_for = [one for one in lacking if one.phase not in _HOPELESS]
    if not lacking or (not waited_for and len(lacking) < len(asked)):
        good = ", ".join(one.name for one in asked if one not in lacking)
        without = f"; without {_first_of(lacking)}" if lacking else ""
        return Observation.of(READY, True, "SomeTargets" if lacking else "Serving", f"on {good}{without}")
    shown = waited_for or lacking
    return Observation.of(READY, False, shown[0].reason or shown[0].phase.value, _first_of(shown))


def _all_targets(asked: list[TargetStatus]) -> Observation:
    lacking = [one for one in asked if not _serves_what_is_wanted(one)]
    if lacking:
        return Observation.of(ALL_TARGETS, False, lacking[0].reason or lacking[0].phase.value, _first_of(lacking))
    return Observation.of(ALL_TARGETS, True, "Serving", "every target that is asked to serve does")


def _first_of(targets: list[TargetStatus]) -> str:
    rest = f" (and {len(targets) - 1} more)" if len(targets) > 1 else ""
    return f"{targets[0].name}: {targets[0].message}{rest}"


def _serves(target: TargetStatus) -> bool:
    return target.ready_replicas > 0


def _serves_what_is_wanted(target: TargetStatus) -> bool:
    # Until the model is known, it is not known which engines are wanted.
    is_known = all(one.key is not None for one in target.engines)
    serves = target.phase is TargetPhase.SERVING and bool(target.serving) and target.reason != PODS_REFUSED
    return serves and is_known and set(target.serving) >= set(target.desired)


def _serving(serving: list[TargetStatus], statuses: tuple[TargetStatus, ...], leaving: list[str]) -> Observation:
    found = [one.name for one in serving or statuses if _serves(one)]
    gone = [f"{name} (not in the spec any more; it goes when what came in its place serves)" for name in leaving]
    if found or gone:
        return Observation.of(SERVING, True, "Serving", f"on {', '.join((*found, *gone))}")
    return Observation.of(SERVING, False, "NoReplicaReady", "no target has a replica that is ready")


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
        return f"{text}; taken from the store, nothing had to be built"
    return f"{text}; {found} of them taken from the store, the others built"


def _failed(step: PreparationStep) -> bool:
    return step.status is not None and step.status.phase is PreparationPhase.FAILED


def _from_plan(kind: str, holds: bool, reason: str, message: str) -> Observation:  # noqa: FBT001 - a condition's parts
    return Observation.of(kind, holds, reason, message)


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
        (f"{one.product} {one.mig_profile}" if one.mig_profile else one.product or "CPU")
        for one in target.engines
        if one.serving
    )
    return "/".join(products) or "CPU"


def _camel(text: str) -> str:
    return text if text.isalnum() else ""
