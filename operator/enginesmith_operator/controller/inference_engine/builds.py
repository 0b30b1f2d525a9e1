"""The EngineBuilds of one target: made once, shared, and made again where another attempt can help. Pure.

| an EngineBuild that | then |
|---|---|
| is not there | it is made |
| is another engine's | it is owned by both |
| failed for a reason that may pass | it is made again, after as long as builds have been failing, within bounds |
| waited too long for the model's preparation (`early_builds`) | it is made again at once |
| has not begun, and the GPU is for another build or a pod first (`build.quickStart`) | it is deleted, and made later |
| failed or has not begun, and its spec would be another one now (more memory, another image) | it is made again |
| succeeded, and a pod does not find its engine in the store | it is made again |
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic import ValidationError

from enginesmith_contract.pull_request import ServingReport
from enginesmith_operator.api.conditions import BUILT, ConditionStatus
from enginesmith_operator.api.engine_build import BuildPhase, BuildPlacement, EngineBuildSpec
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.inference_engine.rollout_input import ENGINE_MISSING, TargetView
from enginesmith_operator.controller.inference_engine.snapshot import ChosenStore, EngineSnapshot, KnownBuild
from enginesmith_operator.controller.shared.cache import Address
from enginesmith_operator.controller.shared.conditions import find_condition
from enginesmith_operator.controller.shared.decision import Deletion
from enginesmith_operator.kinds import ENGINE_BUILD
from enginesmith_operator.objects.deployment import PULL_CONTAINER
from enginesmith_operator.objects.engine_build import engine_build
from enginesmith_operator.objects.owners import owner_reference
from enginesmith_operator.planning.plan_records import EnginePlan

__all__ = ["BuildSteps", "decide_builds", "is_outdated", "lost_engines"]

_FIRST_RETRY_SECONDS: Final = 60.0
_LONGEST_RETRY_SECONDS: Final = 1800.0


@dataclass(frozen=True, kw_only=True)
class BuildSteps:
    """What is to be done with a target's builds.

    Attributes:
        creates: that are not there.
        deletes: that ended and must be made again.
        shares: of others, with their whole owner references.
        requeue_seconds: when one that failed is to be tried again; None: none is.
    """

    creates: tuple[Json, ...] = ()
    deletes: tuple[Deletion, ...] = ()
    shares: tuple[Json, ...] = ()
    requeue_seconds: float | None = None


def decide_builds(
    view: TargetView, lacking: Iterable[EnginePlan], store: ChosenStore, *, may_run: Collection[str]
) -> BuildSteps:
    """Return what is to be done with the builds of engines that the store lacks.

    Args:
        view: all that the decision depends on.
        lacking: engines that the store lacks.
        store: that receives them.
        may_run: keys of engines whose builds may run now: the others get no GPU before them.
    """
    creates: list[Json] = []
    deletes: list[Deletion] = []
    shares: list[Json] = []
    waits: list[float] = []
    for planned in lacking:
        build = view.build_of(planned)
        if planned.toolchain.image is None:
            continue
        desired = engine_build(
            view.snapshot.engine, view.target.name, planned, store=store.spec, limits=view.snapshot.limits_of_build
        )
        if planned.engine_key not in may_run:
            if build is not None and build.phase is BuildPhase.PENDING and _is_ours_alone(build):
                deletes.append(_deletion(view, build))
            continue
        if build is None:
            creates.append(desired)
            continue
        if not build.is_owned:
            shares.append(_shared(view.snapshot, build))
        wait = _seconds_until_again(view, build, desired)
        if wait is not None and wait <= 0:
            deletes.append(_deletion(view, build))
        elif wait is not None:
            waits.append(wait)
    return BuildSteps(
        creates=tuple(creates),
        deletes=tuple(deletes),
        shares=tuple(shares),
        requeue_seconds=min(waits, default=None),
    )


def _deletion(view: TargetView, build: KnownBuild) -> Deletion:
    namespace = view.snapshot.document["metadata"]["namespace"]
    return Deletion(address=Address(ENGINE_BUILD.kind, namespace, build.name), uid=build.uid)


def _is_ours_alone(build: KnownBuild) -> bool:
    return build.is_owned and len(build.owners) == 1


def lost_engines(snapshot: EngineSnapshot) -> dict[str, str]:
    """Return engines that a pod did not find in the store, each with the time: the store was emptied."""
    lost: dict[str, str] = {}
    for target, pods in snapshot.pods.items():
        live = snapshot.deployments.get(target)
        listed = live.notes.engines if live is not None else ()
        for pod in pods:
            container = pod.container(PULL_CONTAINER)
            ending = container.latest_ending if container is not None else None
            report = _report(ending.message) if ending is not None else None
            if ending is None or report is None or report.failure is None or report.failure.reason != ENGINE_MISSING:
                continue
            for one in listed:
                if report.engine_key in {None, one.key} and (len(listed) == 1 or one.engine.product == report.product):
                    lost[one.key] = max(lost.get(one.key, ""), ending.finished_at)
    return lost


def is_outdated(build: KnownBuild, lost: Mapping[str, str]) -> bool:
    """Whether a build's engine was missed after it had been built."""
    return build.key in lost and build.finished_at <= lost[build.key]


def _seconds_until_again(view: TargetView, build: KnownBuild, desired: Json) -> float | None:
    """Return the seconds until a build is created again; None: never, or it has not ended."""
    snapshot = view.snapshot
    if build.phase is BuildPhase.SUCCEEDED:
        # The store lacks what this one built.
        return 0.0
    if build.came_too_early:
        return 0.0
    is_another = build.phase is not BuildPhase.BUILDING and _is_for(view, build) and _is_another(build, desired)
    if is_another and _is_ours_alone(build):
        return 0.0
    if build.phase is not BuildPhase.FAILED or build.failure is None:
        return None
    # Engines that share a build may want different specs. They take turns, and no change is immediate.
    return _pause(snapshot, build) if build.failure.retry or is_another else None


def _pause(snapshot: EngineSnapshot, build: KnownBuild) -> float:
    """Return the rest of the pause after a failure. It is as long as builds have been failing so far, within bounds."""
    finished = datetime.fromisoformat(build.finished_at) if build.finished_at else snapshot.now
    before = find_condition(snapshot.status.conditions, BUILT)
    since = finished
    if before is not None and before.status is ConditionStatus.FALSE:
        since = min(datetime.fromisoformat(before.last_transition_time), finished)
    pause = min(max((finished - since).total_seconds(), _FIRST_RETRY_SECONDS), _LONGEST_RETRY_SECONDS)
    return pause - (snapshot.now - finished).total_seconds()


def _is_for(view: TargetView, build: KnownBuild) -> bool:
    """Whether this target determines the build's spec; other targets that want the engine use it unchanged."""
    others = {one.name for one in view.snapshot.engine.spec.targets} - {view.target.name}
    return build.target not in others


def _is_another(build: KnownBuild, desired: Json) -> bool:
    """Whether the spec would be different now; nodes that join or leave the pool do not count."""
    try:
        specs = [EngineBuildSpec.model_validate(one, by_name=False) for one in (build.spec, desired["spec"])]
    except ValidationError:
        return True
    is_early = any(one.awaits_preparation for one in specs)
    first, second = (_lasting(one, is_early=is_early).model_dump(mode="json") for one in specs)
    return first != second


def _lasting(spec: EngineBuildSpec, *, is_early: bool) -> EngineBuildSpec:
    """Return a spec without what changes with the pool, and with the preparation's end where it began before that."""
    placement = _without_nodes(spec.placement)
    if not is_early:
        return spec.model_copy(update={"placement": placement})
    # A workspace that the user sets is in the engine's key, and the default is that of the builder.
    options = spec.request.options.model_copy(update={"workspace_bytes": None})
    request = spec.request.model_copy(update={"options": options})
    return spec.model_copy(update={"placement": placement, "request": request, "awaits_preparation": None})


def _without_nodes(placement: BuildPlacement) -> BuildPlacement:
    return placement.model_copy(update={"avoid_nodes": (), "pins": ()})


def _shared(snapshot: EngineSnapshot, build: KnownBuild) -> Json:
    """Return a build of another engine with this engine as a further owner: it stays as long as either wants it.

    The list of owners is written as a whole. Where another engine has added itself meanwhile the version is an older
    one, and the API server refuses the write: the next pass sees both.
    """
    document = snapshot.document
    metadata = document["metadata"]
    own = owner_reference(snapshot.engine)
    return {
        "apiVersion": document["apiVersion"],
        "kind": ENGINE_BUILD.kind,
        "metadata": {
            "name": build.name,
            "namespace": metadata["namespace"],
            "uid": build.uid,
            "resourceVersion": build.version,
            "ownerReferences": sorted([*build.owner_documents, own], key=lambda one: str(one["uid"])),
        },
    }


def _report(message: str) -> ServingReport | None:
    try:
        return ServingReport.from_json(message) if message else None
    except ValidationError:
        return None
