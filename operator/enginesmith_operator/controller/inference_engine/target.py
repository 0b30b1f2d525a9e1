"""One target of an InferenceEngine: its builds, its rollout and its objects. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from enginesmith_operator.api.engine_status import TargetEngine, TargetStatus
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.inference_engine.builds import BuildSteps, decide_builds
from enginesmith_operator.controller.inference_engine.drain import Drain, find_drain
from enginesmith_operator.controller.inference_engine.rollout_input import TargetView, rollout_state
from enginesmith_operator.controller.inference_engine.snapshot import ChosenStore, KnownDeployment
from enginesmith_operator.controller.shared.conditions import bounded_line, timestamp
from enginesmith_operator.controller.shared.decision import Deletion
from enginesmith_operator.controller.shared.foreign_writers import replicas_owner
from enginesmith_operator.objects.autoscaler import autoscaler, needs_autoscaler
from enginesmith_operator.objects.deployment import deployment, keep_template
from enginesmith_operator.objects.disruption_budget import disruption_budget, needs_budget
from enginesmith_operator.objects.labels import INPUTS, NOTES, TEMPLATE
from enginesmith_operator.objects.services import target_service
from enginesmith_operator.objects.serving_notes import ServingNotes
from enginesmith_operator.objects.serving_pods import serving_pods
from enginesmith_operator.planning.gpu_limit import say_held
from enginesmith_operator.planning.plan_records import EnginePlan, TargetState
from enginesmith_operator.planning.rollout import PATIENCE_SECONDS, decide_rollout
from enginesmith_operator.planning.rollout_state import RolloutDecision

__all__ = ["TargetDecision", "decide_target", "deployment_as_it_is"]

_HELD_SECONDS: Final = 10.0
"""How often a target checks whether GPUs of the namespace are free: no event of another engine wakes it."""
_MAX_ENGINES: Final = 16
_MAX_NODES: Final = 32


@dataclass(frozen=True, kw_only=True)
class TargetDecision:
    """Actions and status of one target.

    Attributes:
        wants: keys of engines whose builds stay or are created.
        objects: objects to apply, without the hash of the applied content.
        creates: EngineBuilds to create.
        deletes: EngineBuilds that ended and are recreated.
        shares: EngineBuilds of other engines that this engine also owns now: their whole owner references.
        is_planned: whether the target has a plan.
        has_served: whether the target has ever served.
    """

    status: TargetStatus
    wants: frozenset[str]
    objects: tuple[Json, ...] = ()
    creates: tuple[Json, ...] = ()
    deletes: tuple[Deletion, ...] = ()
    shares: tuple[Json, ...] = ()
    is_planned: bool
    has_served: bool
    requeue_seconds: float | None = None


def decide_target(view: TargetView) -> TargetDecision:
    """Decide the builds, the objects and the status of one target."""
    snapshot, planned, store = view.snapshot, view.planned, view.store
    drain = find_drain(view)
    decided = decide_rollout(rollout_state(view, drain=drain.message if drain is not None else ""), snapshot.now)
    decided = say_held(decided, view.held)
    wants = _wants(view, decided)
    lacking = [one for one in wants if one.engine_key not in view.digests]
    builds = BuildSteps()
    objects: list[Json] = []
    if isinstance(store, ChosenStore):
        builds = decide_builds(view, lacking, store, may_run=decided.builds)
        objects = _objects(view, decided, store, drain)
    return TargetDecision(
        status=_status(view, decided),
        wants=frozenset(one.engine_key for one in wants if one.engine_key is not None),
        objects=tuple(objects),
        creates=builds.creates,
        deletes=builds.deletes,
        shares=builds.shares,
        is_planned=planned.state is not TargetState.REFUSED,
        has_served=bool(decided.last_good),
        requeue_seconds=min(
            (
                wait
                for wait in (
                    decided.look_again_seconds,
                    builds.requeue_seconds,
                    _HELD_SECONDS if view.held else None,
                    drain.look_again_seconds if drain is not None else None,
                )
                if wait is not None
            ),
            default=None,
        ),
    )


def _wants(view: TargetView, decided: RolloutDecision) -> list[EnginePlan]:
    """Return the engines that are wanted and have a key: a quick one until the full one serves."""
    in_use = {one.key for one in (*decided.template_engines, *decided.last_good)}
    planned = view.planned.engines
    full = [one for one in planned if one.engine_key is not None]
    quick = [
        one.quick
        for one in full
        if one.quick is not None and (one.engine_key not in view.digests or one.quick.engine_key in in_use)
    ]
    return [*full, *quick]


def _objects(view: TargetView, decided: RolloutDecision, store: ChosenStore, drain: Drain | None) -> list[Json]:
    engine, target = view.snapshot.engine, view.target
    found: list[Json] = []
    if view.planned.state is TargetState.PLANNED or view.live is not None:
        found.append(target_service(engine, target.name))
    serving = _deployment(view, decided, store)
    if serving is None:
        return found
    found.append(serving)
    if needs_budget(target) and decided.replicas != 0:
        unavailable = drain.unavailable if drain is not None else None
        found.append(disruption_budget(engine, target.name, unavailable=unavailable or 1))
    if needs_autoscaler(target) and decided.replicas is None:
        found.append(autoscaler(engine, target))
    return found


def _deployment(view: TargetView, decided: RolloutDecision, store: ChosenStore) -> Json | None:
    """Return the wanted Deployment; None: there is none, and none is wanted."""
    live, planned = view.live, view.planned.deployment
    if not decided.template_engines:
        return deployment_as_it_is(live, decided.replicas) if live is not None else None
    # Without a plan the matching nodes are not known: the template avoids the same nodes as before.
    avoided = planned.avoid_nodes if planned is not None else live.notes.avoid_nodes if live is not None else ()
    pods = serving_pods(
        view.snapshot.engine,
        view.target,
        decided.template_engines,
        store=store.spec,
        store_uri=store.uri,
        avoid_nodes=(*avoided, *decided.must_avoid),
        tracing=view.snapshot.tracing,
    )
    notes = ServingNotes(engines=decided.template_engines, served=decided.last_good, avoid_nodes=pods.avoid_nodes)
    made = deployment(
        view.snapshot.engine,
        pods,
        notes=notes,
        replicas=_number(view, decided),
        strategy=decided.strategy,
        rules=view.snapshot.rules,
    )
    if live is None or _needs_forgiven_nodes(view, live, pods.avoid_nodes):
        return made
    return keep_template(made, live.document, decided.must_avoid)


def _number(view: TargetView, decided: RolloutDecision) -> int | None:
    """Return the Deployment's replicas; None: an autoscaler has set them and owns the field.

    Until one has, the operator owns the field: one that its only owner leaves out falls back to 1.
    """
    bounds, live = view.target.autoscaling, view.live
    if decided.replicas is not None or bounds is None:
        return decided.replicas
    least = max(bounds.min_replicas, 1)
    if live is None:
        return least
    owner = replicas_owner(live.document)
    if not owner:
        return min(max(live.replicas, least), bounds.max_replicas)
    # The engine's own autoscaler never sets fewer, and `kubectl scale` is not an autoscaler. Any other owner decides.
    by_hand = owner.startswith("kubectl") and bounds.min_replicas > 0
    is_short = live.replicas < least and (needs_autoscaler(view.target) or by_hand)
    return least if is_short else None


def _needs_forgiven_nodes(view: TargetView, live: KnownDeployment, avoid_nodes: tuple[str, ...]) -> bool:
    """Whether a pod fits no node, or none runs, while the template avoids nodes that are no longer excluded."""
    if frozenset(live.notes.avoid_nodes) <= frozenset(avoid_nodes):
        return False
    waiting = (datetime.fromisoformat(pod.unschedulable_since) for pod in view.pods if pod.unschedulable_since)
    waited = (view.snapshot.now - min(waiting, default=view.snapshot.now)).total_seconds()
    return live.replicas == 0 or waited >= PATIENCE_SECONDS


def deployment_as_it_is(live: KnownDeployment, replicas: int | None) -> Json:
    """Return a Deployment with its template as it is, and other replicas: the template's inputs are not known."""
    metadata, spec = live.document["metadata"], live.document["spec"]
    annotations = metadata.get("annotations") or {}
    kept = {key: metadata[key] for key in ("name", "namespace", "labels", "ownerReferences")}
    # The hash of the applied content and annotations of other owners are left out.
    kept["annotations"] = {key: annotations[key] for key in (INPUTS, TEMPLATE, NOTES) if key in annotations}
    return {
        "apiVersion": live.document["apiVersion"],
        "kind": live.document["kind"],
        "metadata": kept,
        "spec": {**spec, "replicas": spec.get("replicas", 1) if replicas is None else replicas},
    }


def _status(view: TargetView, decided: RolloutDecision) -> TargetStatus:
    planned, previous = view.planned.engines, view.previous
    ready = [pod for pod in view.pods if pod.is_ready and not pod.is_terminating]
    serving = tuple(one.key for one in decided.last_good) if ready else ()
    same = previous is not None and previous.phase is decided.phase
    return TargetStatus(
        name=view.target.name,
        phase=decided.phase,
        reason=decided.reason,
        message=bounded_line(decided.message),
        toolchain=planned[0].toolchain if planned else (previous.toolchain if previous else None),
        engines=tuple(_engine(view, one, serving) for one in planned[:_MAX_ENGINES]),
        desired=tuple(one.engine_key for one in planned if one.engine_key)[:_MAX_ENGINES],
        serving=serving[:_MAX_ENGINES],
        rejected=decided.rejected[:_MAX_ENGINES],
        excluded=decided.excluded[:_MAX_NODES],
        nodes=tuple(sorted({pod.node for pod in ready}))[:_MAX_NODES],
        replicas=decided.replicas if view.live is not None or decided.template_engines else None,
        ready_replicas=len(ready),
        since=previous.since if same and previous is not None else timestamp(view.snapshot.now),
    )


def _engine(view: TargetView, planned: EnginePlan, serving: tuple[str, ...]) -> TargetEngine:
    build = view.build_of(planned)
    return TargetEngine(
        key=planned.engine_key,
        digest=view.digests.get(planned.engine_key or ""),
        product=planned.hardware.product,
        mig_profile=planned.hardware.mig_profile,
        arch=planned.hardware.arch,
        stored=planned.engine_key in view.digests,
        serving=planned.engine_key in serving,
        serving_quick=planned.quick is not None and planned.quick.engine_key in serving,
        build=build.name if build is not None else None,
    )
