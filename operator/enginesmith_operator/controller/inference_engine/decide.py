"""Decides the writes, the status and the events for an InferenceEngine from one snapshot. Pure.

    resolve_engine   precision (fallback) ── model known? (preparation) ── plan ──> Resolution
    decide_engine    per target: builds, rollout, objects (target) ── builds before the preparation has ended
                     (early_builds) ── status (status) ──> EngineDecision

Between the two, the caller looks up whether other InferenceEngines build the engines that the plan wants.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final

from enginesmith_operator.api.conditions import PREPARED, ConditionStatus
from enginesmith_operator.api.engine_status import EngineStatus, PrecisionRefusal, StoredEngine
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.inference_engine.builds import is_outdated, lost_engines
from enginesmith_operator.controller.inference_engine.conflicts import with_foreign_changes
from enginesmith_operator.controller.inference_engine.early_builds import decide_early_builds, foresee_plan
from enginesmith_operator.controller.inference_engine.fallback import (
    find_refusal,
    in_wanted_precision,
    known_refusals,
    with_refusals,
)
from enginesmith_operator.controller.inference_engine.gpu_limit import grant_gpus
from enginesmith_operator.controller.inference_engine.leaving import decide_leaving
from enginesmith_operator.controller.inference_engine.preparation import PreparationStep, resolve_preparation
from enginesmith_operator.controller.inference_engine.preparation_jobs import (
    job_to_replace,
    jobs_to_end,
    seconds_to_end,
)
from enginesmith_operator.controller.inference_engine.retention import builds_to_forget
from enginesmith_operator.controller.inference_engine.rollout_input import TargetView
from enginesmith_operator.controller.inference_engine.snapshot import ChosenStore, EngineSnapshot
from enginesmith_operator.controller.inference_engine.status import compose_status, engine_events
from enginesmith_operator.controller.inference_engine.target import TargetDecision, decide_target
from enginesmith_operator.controller.shared.cache import Address
from enginesmith_operator.controller.shared.conditions import Observation
from enginesmith_operator.controller.shared.decision import Deletion, EventNote
from enginesmith_operator.controller.shared.drift import must_apply, stamp
from enginesmith_operator.controller.shared.foreign_writers import foreign_changes
from enginesmith_operator.controller.shared.gpu_use import count_gpus
from enginesmith_operator.kinds import APPLIED, DEPLOYMENT, ENGINE_BUILD, JOB, SERVICE
from enginesmith_operator.objects.labels import TARGET, TEMPLATE
from enginesmith_operator.objects.preparation_job import preparation_job
from enginesmith_operator.objects.services import engine_service, headless_service
from enginesmith_operator.planning.gpu_limit import with_replicas
from enginesmith_operator.planning.plan import plan
from enginesmith_operator.planning.plan_records import Plan
from enginesmith_operator.planning.preparation import preparation_job_request
from enginesmith_operator.planning.refusals import Refusal
from enginesmith_operator.planning.rollout_state import Obstacle
from enginesmith_operator.planning.rollout_words import MAKING_ROOM

__all__ = ["EngineDecision", "Resolution", "decide_engine", "resolve_engine", "wanted_keys"]

_SHARED_MODE: Final = "ReadWriteMany"
_SHOWN: Final = 3


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """The plan, and what it was made of.

    Attributes:
        engine: in the precision that is wanted.
        refused: precisions that are not.
        store: a refusal where nothing can be prepared or built.
        foreseen: the plan as it will be when the preparation has succeeded, with keys; None: nothing is built before.
    """

    engine: InferenceEngine
    refused: tuple[PrecisionRefusal, ...]
    store: ChosenStore | Refusal
    preparation: PreparationStep
    plan: Plan
    foreseen: Plan | None = None


@dataclass(frozen=True, kw_only=True)
class EngineDecision:
    """What is to be done, in this order.

    Attributes:
        deletes: before anything of the same name is made.
        creates: objects that never change once they are there.
        applies: stamped objects that differ from what is there.
        requeue_seconds: when to look again although nothing was heard; None: never.
        gpus: that its Deployments take, at the most that their autoscalers may set.
    """

    status: EngineStatus
    deletes: tuple[Deletion, ...] = ()
    creates: tuple[Json, ...] = ()
    applies: tuple[Json, ...] = ()
    events: tuple[EventNote, ...] = ()
    requeue_seconds: float | None = None
    gpus: int = 0


def resolve_engine(snapshot: EngineSnapshot) -> Resolution:
    """Return the plan with everything that is known about the model, in the first precision that is not refused."""
    refused = known_refusals(snapshot)
    while True:
        resolution = _resolve_precision(in_wanted_precision(snapshot, refused), refused)
        found = find_refusal(snapshot, resolution.engine, resolution.preparation, resolution.plan)
        if found is None:
            return resolution
        refused = (*refused, found)


def _resolve_precision(snapshot: EngineSnapshot, refused: tuple[PrecisionRefusal, ...]) -> Resolution:
    store = _usable_store(snapshot)
    if isinstance(store, ChosenStore):
        step = resolve_preparation(snapshot, store)
    else:
        condition = Observation.of(PREPARED, False, store.rule, f"{store.found}; {store.wanted}")
        step = PreparationStep(
            status=snapshot.status.preparation,
            model=snapshot.status.model,
            condition=condition,
            observed=snapshot.observed,
        )
    observed = with_refusals(step.observed, refused)
    planned = plan(snapshot.engine, observed, snapshot.now)
    foreseen = foresee_plan(snapshot, step, observed)
    if step.job_wanted and not planned.has_target:
        waits = Observation.of(PREPARED, False, "NoPlan", "the preparation starts when a target has a plan")
        step = replace(step, condition=waits)
    return Resolution(
        engine=snapshot.engine, refused=refused, store=store, preparation=step, plan=planned, foreseen=foreseen
    )


def wanted_keys(resolution: Resolution) -> tuple[str, ...]:
    """Return the keys that the plan wants and the store is not known to have."""
    foreseen = resolution.foreseen.targets if resolution.foreseen is not None else ()
    return tuple(
        one.engine_key
        for target in (*resolution.plan.targets, *foreseen)
        for planned in target.engines
        for one in planned.variants
        if one.engine_key is not None and not one.stored
    )


def decide_engine(snapshot: EngineSnapshot, resolution: Resolution) -> EngineDecision:
    """Return what is to be done for an InferenceEngine."""
    snapshot = replace(snapshot, engine=resolution.engine)
    step, store = resolution.preparation, resolution.store
    digests = _digests(snapshot, step)
    leaving = decide_leaving(snapshot, _targets(snapshot, resolution, digests))
    targets = leaving.targets
    # Targets that leave come first: what they wait for must be known before the status names it.
    wanted = (*leaving.objects, *_services(snapshot, targets), *(one for each in targets for one in each.objects))
    desired = [stamp(one) for one in wanted]
    early = decide_early_builds(snapshot, resolution.plan, resolution.foreseen, resolution.preparation, store, targets)
    creates = _new_builds((*(one for target in targets for one in target.creates), *early.creates))
    again = list(dict.fromkeys(one for target in targets for one in target.deletes))
    shares = [one for target in targets for one in target.shares]
    deletes = [*again, *early.deletes, *_unwanted(snapshot, desired, targets, resolution, leaving.names)]
    job = _preparation_job(snapshot, resolution, store) if isinstance(store, ChosenStore) else None
    another = _preparation_to_replace(snapshot, step, job)
    ended = _preparations_to_end(snapshot, step, another)
    deletes += [Deletion(address=_job_address(snapshot, uid), uid=uid) for uid in ended]
    if job is not None and resolution.plan.has_target and (another or (step.job_wanted and not step.job_deleted)):
        creates.append(job)
    status = compose_status(snapshot, resolution.plan, step, targets, digests, leaving=leaving.names)
    status = status.model_copy(update={"refused_precisions": resolution.refused})
    changes = [
        change
        for one in desired
        for change in foreign_changes(one, snapshot.objects.get((one["kind"], one["metadata"]["name"])))
    ]
    status, changed, until_told = with_foreign_changes(status, changes, snapshot)
    waits = [
        step.requeue_seconds,
        until_told,
        seconds_to_end(snapshot),
        *(target.requeue_seconds for target in targets),
    ]
    return EngineDecision(
        status=status,
        deletes=tuple(deletes),
        creates=tuple(creates),
        applies=(
            *shares,
            *(one for one in desired if must_apply(one, snapshot.objects.get((one["kind"], one["metadata"]["name"])))),
        ),
        events=(*leaving.events, *changed, *engine_events(snapshot.status, status)),
        requeue_seconds=min((seconds for seconds in waits if seconds is not None), default=None),
        gpus=count_gpus(desired),
    )


def _targets(snapshot: EngineSnapshot, resolution: Resolution, digests: dict[str, str]) -> list[TargetDecision]:
    """Decide for each target; while one stops a replica to free a GPU, the targets after it do not."""
    previous = {one.name: one for one in snapshot.status.targets}
    targets: list[TargetDecision] = []
    granted = grant_gpus(snapshot, resolution.plan)
    for spec, planned in zip(snapshot.engine.spec.targets, resolution.plan.targets, strict=True):
        share = granted.get(spec.name)
        view = TargetView(
            snapshot=snapshot,
            target=spec if share is None else with_replicas(spec, share.replicas),
            held="" if share is None else share.held,
            planned=planned,
            store=resolution.store,
            digests=digests,
            previous=previous.get(spec.name),
            obstacle=_obstacle(resolution.preparation),
            may_make_room=not any(one.status.reason in MAKING_ROOM for one in targets),
        )
        targets.append(decide_target(view))
    return targets


def _new_builds(wanted: Iterable[Json]) -> list[Json]:
    """Return the builds to be made, one for each engine: the first of several targets that want it has it built."""
    builds: dict[str, Json] = {}
    for one in wanted:
        builds.setdefault(one["spec"]["request"]["engineKey"], one)
    return list(builds.values())


def _usable_store(snapshot: EngineSnapshot) -> ChosenStore | Refusal:
    """Return the store, unless it is a volume that the engine's pods cannot all mount at the same time."""
    store = snapshot.store
    if isinstance(store, Refusal) or store.access_modes is None or _SHARED_MODE in store.access_modes:
        return store
    selector = snapshot.engine.spec.pod_template.node_selector
    nodes = sorted(
        facts.name
        for facts in snapshot.observed.nodes
        if all(facts.labels.get(label) == value for label, value in selector.items())
    )
    if len(nodes) <= 1:
        return store
    modes = ", ".join(store.access_modes) or "no access mode"
    named = ", ".join(nodes[:_SHOWN]) + (", ..." if len(nodes) > _SHOWN else "")
    found = f"the claim is {modes}, and pods may run on {len(nodes)} nodes ({named})"
    wanted = f"use a claim with {_SHARED_MODE}, or select one node with podTemplate.nodeSelector"
    return Refusal(rule="StoreNotShared", found=found, wanted=wanted)


def _digests(snapshot: EngineSnapshot, step: PreparationStep) -> dict[str, str]:
    """Return the engines that the store is known to have: remembered, reported, or built since."""
    lost = lost_engines(snapshot)
    stored: tuple[StoredEngine, ...] = step.status.stored_engines if step.status is not None else ()
    found = {one.key: one.digest for one in stored if one.key not in lost}
    built = {
        key: build.digest
        for key, build in snapshot.builds.items()
        if build.digest is not None and not is_outdated(build, lost)
    }
    return found | built


def _obstacle(step: PreparationStep) -> Obstacle | None:
    """Return why the model is not prepared, unless the preparation is running."""
    is_good = step.condition.status is ConditionStatus.TRUE or step.condition.reason in {"Preparing", "Starting"}
    return None if is_good else Obstacle(reason=step.condition.reason, message=step.condition.message)


def _services(snapshot: EngineSnapshot, targets: Iterable[TargetDecision]) -> tuple[Json, ...]:
    if not any(target.is_planned or target.objects for target in targets):
        return ()
    return engine_service(snapshot.engine), headless_service(snapshot.engine)


def _unwanted(
    snapshot: EngineSnapshot,
    desired: list[Json],
    targets: list[TargetDecision],
    resolution: Resolution,
    leaving: frozenset[str],
) -> Iterable[Deletion]:
    """Yield the children that are no longer needed: of removed targets, and builds of keys that no target wants."""
    namespace = snapshot.document["metadata"]["namespace"]
    if isinstance(resolution.store, Refusal):
        # There is no complete plan, so existing objects stay.
        return
    names = {(one["kind"], one["metadata"]["name"]) for one in desired}
    asked = [*(target.status.name for target in targets), *leaving]
    for (kind, name), document in snapshot.objects.items():
        if kind in APPLIED and (kind, name) not in names and _may_go(kind, document, asked, leaving):
            yield Deletion(address=Address(kind, namespace, name), uid=document["metadata"]["uid"])
    if resolution.plan.preparation_key is None:
        return
    wanted = {key for target in targets for key in target.wants}
    # The failed build of a precision is why another one is used.
    wanted |= {one.key for one in resolution.refused if one.build is not None and one.key is not None}
    for build in builds_to_forget(
        snapshot,
        wanted,
        targets=asked,
        undecided={target.status.name for target in targets if not target.is_planned},
        quick={one.quick.engine_key for each in resolution.plan.targets for one in each.engines if one.quick},
    ):
        yield Deletion(address=Address(ENGINE_BUILD.kind, namespace, build.name), uid=build.uid)


def _may_go(kind: str, document: Json, asked: Collection[str], leaving: frozenset[str]) -> bool:
    """Whether an object that is not wanted now may be deleted.

    A Deployment and a Service are deleted only with their target, and the engine's own Services only with the engine.
    So the addresses that clients use stay while a target temporarily has no plan. All objects of a target that leaves
    are deleted with it.
    """
    target = (document["metadata"].get("labels") or {}).get(TARGET)
    if kind not in {DEPLOYMENT.kind, SERVICE.kind}:
        return target not in leaving
    return target is not None and target not in asked


def _preparation_to_replace(snapshot: EngineSnapshot, step: PreparationStep, job: Json | None) -> str:
    """Return the uid of the preparation's Job if a changed spec requires a different one; empty: it stays."""
    if job is None or not step.job_name or step.condition.status is ConditionStatus.TRUE:
        return ""
    found = job_to_replace(snapshot, step.job_name, job["metadata"]["annotations"][TEMPLATE])
    return found.uid if found is not None else ""


def _preparations_to_end(snapshot: EngineSnapshot, step: PreparationStep, another: str) -> tuple[str, ...]:
    """Return the uids of preparation Jobs that are to go; `another`: of one that is made again at once."""
    if not step.job_name:
        return ()
    over = jobs_to_end(snapshot, step.job_name, is_known=step.condition.status is ConditionStatus.TRUE)
    uids = (another, step.job_deleted, *(one.uid for one in over))
    return tuple(dict.fromkeys(uid for uid in uids if uid))


def _job_address(snapshot: EngineSnapshot, uid: str) -> Address:
    name = next(name for name, job in snapshot.preparation_jobs.items() if job.uid == uid)
    return Address(JOB.kind, snapshot.document["metadata"]["namespace"], name)


def _preparation_job(snapshot: EngineSnapshot, resolution: Resolution, store: ChosenStore) -> Json | None:
    chosen = [one.toolchain for target in resolution.plan.targets for one in target.engines]
    image = snapshot.catalog.preparation_image(chosen, snapshot.observed.policies)
    if image is None:
        return None
    archs = {
        platform.partition("/")[2]
        for entry in snapshot.catalog.entries.values()
        if image in {entry.image, entry.preparation_image}
        for platform in entry.platforms
    }
    return preparation_job(
        snapshot.engine,
        preparation_job_request(resolution.plan, store.uri),
        image=image,
        archs=tuple(sorted(archs)) or ("amd64",),
        store=store.spec,
        limits=snapshot.limits_of_preparation,
        rules=snapshot.rules,
        occasion=resolution.preparation.occasion,
    )
