"""EngineBuilds of quick engines that begin while the model is still being prepared (`build.quickStart`). Pure.

| the preparation | and the quick engine's build |
|---|---|
| runs on a node, the model's digest is expected, and nothing serves yet | is created: its builder starts, and waits |
| succeeds | is a build like any other; one of another key, or for a model that the plan refuses, is deleted |
| fails, or something keeps it from running | is deleted, so that its GPU is free |
| takes longer than the builder waits | has ended (`PreparationLate`), and is created again when the model is prepared |
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from enginesmith_operator.api.conditions import ConditionStatus
from enginesmith_operator.api.engine_build import BuildPhase
from enginesmith_operator.api.engine_status import TargetPhase
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.inference_engine.preparation import PreparationStep
from enginesmith_operator.controller.inference_engine.snapshot import ChosenStore, EngineSnapshot, KnownBuild
from enginesmith_operator.controller.inference_engine.target import TargetDecision
from enginesmith_operator.controller.shared.cache import Address
from enginesmith_operator.controller.shared.decision import Deletion
from enginesmith_operator.kinds import ENGINE_BUILD
from enginesmith_operator.objects.engine_build import engine_build
from enginesmith_operator.planning.plan import plan
from enginesmith_operator.planning.plan_records import EnginePlan, Plan, TargetState
from enginesmith_operator.planning.quick_start import may_begin_early
from enginesmith_operator.planning.refusals import Refusal
from enginesmith_operator.planning.snapshot import Observed

__all__ = ["EarlyBuilds", "decide_early_builds", "foresee_plan"]

_UNDER_WAY: Final = frozenset({"Preparing", "Starting", "ResultLost"})
"""Reasons of a preparation that nothing is known to keep from succeeding."""


@dataclass(frozen=True, kw_only=True)
class EarlyBuilds:
    """What is to be done with the builds that wait for the preparation.

    Attributes:
        creates: EngineBuilds to create.
        deletes: EngineBuilds that wait in vain.
    """

    creates: tuple[Json, ...] = ()
    deletes: tuple[Deletion, ...] = ()


def foresee_plan(snapshot: EngineSnapshot, step: PreparationStep, observed: Observed) -> Plan | None:
    """Return the plan as it will be when the model that is expected is prepared; None: nothing is built before.

    Args:
        snapshot: with the engine in the precision that is wanted.
        step: what is known of the model.
        observed: what the plan was made of.
    """
    digest = _expected_digest(snapshot)
    is_known = step.condition.status is ConditionStatus.TRUE
    if digest is None or is_known or step.condition.reason not in _UNDER_WAY:
        return None
    if not may_begin_early(snapshot.engine.spec):
        return None
    return plan(snapshot.engine, observed.model_copy(update={"source_digest": digest}), snapshot.now)


def decide_early_builds(
    snapshot: EngineSnapshot,
    planned: Plan,
    foreseen: Plan | None,
    step: PreparationStep,
    store: ChosenStore | Refusal,
    targets: Iterable[TargetDecision],
) -> EarlyBuilds:
    """Return which builds begin before the preparation has ended, and which wait in vain.

    Args:
        snapshot: with the builds of the foreseen keys, of any owner.
        planned: the plan with what is known.
        foreseen: what `foresee_plan` returned.
        step: what is known of the model.
        store: nothing is built, and nothing goes, without one.
        targets: as they were decided.
    """
    if isinstance(store, Refusal):
        return EarlyBuilds()
    waiting = [one for one in snapshot.builds.values() if _waits(one)]
    if step.condition.status is ConditionStatus.TRUE:
        refused = _refused_by_model(snapshot, planned, step) if waiting else frozenset()
        return EarlyBuilds(deletes=_deletions(snapshot, (one for one in waiting if one.target in refused)))
    wanted = dict(_wanted(foreseen, targets)) if foreseen is not None else {}
    creates = (
        engine_build(snapshot.engine, target, quick, store=store.spec, limits=snapshot.limits_of_build, is_early=True)
        for key, (target, quick) in wanted.items()
        if key not in snapshot.builds and _has_node(snapshot, step)
    )
    in_vain = (one for one in waiting if one.key not in wanted)
    return EarlyBuilds(creates=tuple(creates), deletes=_deletions(snapshot, in_vain))


def _expected_digest(snapshot: EngineSnapshot) -> str | None:
    """Return the digest that the model is expected to have; a wrong one costs a build that is deleted."""
    model, known = snapshot.engine.spec.model, snapshot.status.model
    if model.sha256 is not None:
        return model.sha256
    return known.digest if known is not None and known.uri == model.uri else None


def _wanted(foreseen: Plan, targets: Iterable[TargetDecision]) -> Iterator[tuple[str, tuple[str, EnginePlan]]]:
    """Yield the quick engines that are built first if nothing else becomes known, by key, each with its target."""
    for one, decided in zip(foreseen.targets, targets, strict=True):
        if decided.has_served or decided.status.phase is not TargetPhase.PREPARING:
            continue
        if one.deployment is None or not one.deployment.serves or one.deployment.replicas == 0:
            continue
        for quick in (engine.quick for engine in one.engines):
            if quick is not None and quick.engine_key is not None and quick.toolchain.image is not None:
                yield quick.engine_key, (one.name, quick)


def _has_node(snapshot: EngineSnapshot, step: PreparationStep) -> bool:
    """Whether the preparation's pod has a node: on a small one, a build could take the place that it waits for."""
    pods = snapshot.preparation_pods.get(step.job_name, ())
    return any(pod.node and not (pod.is_finished or pod.is_terminating) for pod in pods)


def _waits(build: KnownBuild) -> bool:
    """Whether a build is this engine's alone, began before the preparation ended, and has stored nothing."""
    is_ours = build.is_owned and len(build.owners) == 1
    return is_ours and build.awaits_preparation and build.phase is not BuildPhase.SUCCEEDED


def _refused_by_model(snapshot: EngineSnapshot, planned: Plan, step: PreparationStep) -> frozenset[str]:
    """Return the targets whose plan is refused for what the preparation found out, and for nothing else."""
    refused = {one.name for one in planned.targets if one.state is TargetState.REFUSED}
    if not refused:
        return frozenset()
    unknown = step.observed.model_copy(update={"model_facts": None})
    before = plan(snapshot.engine, unknown, snapshot.now)
    return frozenset(one.name for one in before.targets if one.name in refused and one.state is TargetState.PLANNED)


def _deletions(snapshot: EngineSnapshot, builds: Iterable[KnownBuild]) -> tuple[Deletion, ...]:
    namespace = snapshot.document["metadata"]["namespace"]
    return tuple(Deletion(address=Address(ENGINE_BUILD.kind, namespace, one.name), uid=one.uid) for one in builds)
