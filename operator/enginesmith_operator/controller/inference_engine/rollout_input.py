"""What `planning/rollout.py` decides from: a `RolloutState` of a target's plan, builds, Deployment and pods. Pure.

Nothing is decided here.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final

from pydantic import ValidationError

from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.products import canonical_mig_profile, canonical_product
from enginesmith_contract.pull_request import ServingReport
from enginesmith_operator.api.engine_build import BuildPhase
from enginesmith_operator.api.engine_status import TargetStatus
from enginesmith_operator.api.serving import WhenFull
from enginesmith_operator.api.targets import TargetSpec, needs_gpu
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.inference_engine.snapshot import (
    ChosenStore,
    EngineSnapshot,
    KnownBuild,
    KnownDeployment,
)
from enginesmith_operator.controller.shared.conditions import bounded_line
from enginesmith_operator.controller.shared.pod_facts import ContainerFacts, Ending, PodFacts
from enginesmith_operator.controller.shared.waiting import refused_pods, serving_obstacle
from enginesmith_operator.objects.deployment import PULL_CONTAINER, SERVER_CONTAINER
from enginesmith_operator.objects.labels import ENGINE_KEY, RETRY, TEMPLATE
from enginesmith_operator.objects.serving_pods import serving_pods
from enginesmith_operator.planning.fleet_memo import remembered
from enginesmith_operator.planning.hardware import NodeFacts
from enginesmith_operator.planning.plan_records import EnginePlan, TargetPlan, TargetState
from enginesmith_operator.planning.refusals import Refusal
from enginesmith_operator.planning.rollout_state import (
    EngineState,
    Obstacle,
    PodTrouble,
    RolloutState,
    RunningPods,
    ServableEngine,
    Strategy,
    Trouble,
    WantedEngine,
)

__all__ = ["ENGINE_MISSING", "TargetView", "build_obstacle", "refusal_text", "rollout_state"]

# Refusals because of the engine itself: it is wrong on every node. All other refusals are about the node.
_ENGINE_IS_WRONG: Final = frozenset(
    {
        "Tampered",
        "DigestDiffers",
        "KeyMismatch",
        "ManifestUnreadable",
        "VerificationFailed",
        "PluginNotAllowed",
    }
)
# Refusals with a temporary cause on the node: its driver restarts, another process has the GPU or its memory.
_MAY_PASS: Final = frozenset({"NoGpu", "NoDriver", "NoDevice", "DeviceBusy", "OutOfMemory", "DevicesDisagree"})
_CRASHES: Final = 3
_REFUSALS: Final = frozenset({ExitCode.ENGINE_REFUSED, ExitCode.VERIFICATION_FAILED})
"""Exit codes that a rollout reacts to after the first exit."""
_MEMORY_REMEDY: Final = "raise spec.podTemplate.resources.limits.memory"
_SERVER_TAKES_LESS: Final = ", or lower serving.maxMessageBytes, instances or frontEnds"
_HASH_DIGITS: Final = 20
_UNDER_WAY: Final = frozenset({"", "JobCreated", "Starting", "ResultLost"})
ENGINE_MISSING: Final = "EngineMissing"
"""Reason of a pod whose engine the store has lost: the engine is rebuilt, and no node or engine is rejected."""


@dataclass(frozen=True, kw_only=True)
class TargetView:
    """All that the decision for one target depends on.

    Attributes:
        store: engine store, or why there is none: then nothing new is built or started.
        digests: digests of the engines that the store has, by key.
        previous: the target's status of the previous pass.
        obstacle: what keeps the model from being prepared; None: nothing that a person could remove.
        held: why it has fewer replicas than it asks for; empty: it has them.
        may_make_room: whether a replica may stop before its successor is ready, where the spec allows that: one target
            at a time does so.
    """

    snapshot: EngineSnapshot
    target: TargetSpec
    planned: TargetPlan
    store: ChosenStore | Refusal
    digests: Mapping[str, str]
    previous: TargetStatus | None
    obstacle: Obstacle | None = None
    held: str = ""
    may_make_room: bool = True

    @property
    def live(self) -> KnownDeployment | None:
        """The target's Deployment; None: there is none."""
        return self.snapshot.deployments.get(self.target.name)

    @property
    def pods(self) -> tuple[PodFacts, ...]:
        """The target's pods, of every template."""
        return self.snapshot.pods.get(self.target.name, ())

    def build_of(self, one: EnginePlan) -> KnownBuild | None:
        """Return the build of an engine."""
        return self.snapshot.builds.get(one.engine_key) if one.engine_key is not None else None


def rollout_state(view: TargetView, *, drain: str = "") -> RolloutState:
    """Return the state of one target.

    Args:
        view: all that the decision depends on.
        drain: sentence about a drain that no other node has room for; empty: there is none.
    """
    deployment, target, live = view.planned.deployment, view.target, view.live
    running = _running(view, live) if live is not None else None
    rejected = view.previous.rejected if view.previous is not None else ()
    excluded = view.previous.excluded if view.previous is not None else ()
    # Hashing every pod is only worth it where there is an entry to compare.
    is_compared = bool(rejected or excluded or (running is not None and running.troubles))
    return RolloutState(
        refusal=refusal_text(view.planned) if view.planned.state is TargetState.REFUSED else "",
        model_obstacle=view.obstacle,
        wanted=tuple(_wanted(view, one) for one in view.planned.engines),
        quick=tuple(_wanted(view, one.quick) for one in view.planned.engines if one.quick and _may_be_quick(view, one)),
        last_good=live.notes.served if live is not None else (),
        ruled_out=_ruled_out(view),
        running=running,
        drain=drain,
        rejected=rejected,
        excluded=excluded,
        nodes=_fingerprints(view),
        made_of=_made_of(view) if is_compared else {},
        occasion=_occasion(view.snapshot.document["metadata"]),
        replicas=None if target.autoscaling is not None else target.replicas,
        serves=deployment.serves if deployment is not None else True,
        when_full=view.snapshot.engine.spec.rollout.when_full if view.may_make_room else WhenFull.WAIT,
    )


def _ruled_out(view: TargetView) -> frozenset[str]:
    """Return the keys of the engines that served last and do not match the GPU in the target's spec.

    The nodes do not matter: a label that is missing for a moment moves no pod.
    """
    gpu, served = view.target.gpu, view.live.notes.served if view.live is not None else ()
    asks = needs_gpu(view.target)
    found: set[str] = set()
    for one in served:
        product, profile = one.engine.product, canonical_mig_profile(one.engine.mig_profile)
        fits = (product is not None) == asks
        if gpu is not None and product is not None:
            named = gpu.product is None or canonical_product(gpu.product) == canonical_product(product)
            fits = fits and named and canonical_mig_profile(gpu.mig_profile) == profile
        found |= set() if fits else {one.key}
    return frozenset(found)


def refusal_text(planned: TargetPlan) -> str:
    """Return why a target has no plan: the refusals of its nodes, then hints."""
    lines = [count.sentence() for count in planned.refusals] + list(planned.hints)
    return bounded_line("; ".join(lines)) if lines else "no node was seen"


def _wanted(view: TargetView, planned: EnginePlan) -> WantedEngine:
    build = view.build_of(planned)
    state, waits_since = _state(planned, build, view.digests)
    return WantedEngine.from_plan(
        planned,
        state,
        digest=view.digests.get(planned.engine_key or ""),
        waits_since=waits_since,
        message=build.message if build is not None else "",
        obstacle=build_obstacle(build) if build is not None else "",
    )


def _may_be_quick(view: TargetView, planned: EnginePlan) -> bool:
    """Whether a quick engine makes sense: it is there or being built, or the full one's build has not begun."""
    build, quick = view.build_of(planned), planned.quick
    is_known = quick is not None and (quick.engine_key in view.digests or view.build_of(quick) is not None)
    return is_known or build is None or build.phase is not BuildPhase.BUILDING


def build_obstacle(build: KnownBuild) -> str:
    """Return a CamelCase reason why a build does not run; empty: it runs, has ended, or is about to run."""
    return "" if build.phase is not BuildPhase.PENDING or build.reason in _UNDER_WAY else build.reason


def _state(
    planned: EnginePlan, build: KnownBuild | None, digests: Mapping[str, str]
) -> tuple[EngineState, datetime | None]:
    if planned.engine_key is None:
        return EngineState.PENDING, None
    if planned.engine_key in digests:
        return EngineState.STORED, None
    if build is None or build.phase is BuildPhase.SUCCEEDED or build.came_too_early:
        return EngineState.BUILDING, None
    if build.phase is BuildPhase.FAILED:
        return EngineState.FAILED, None
    if build.waits_since:
        return EngineState.QUEUED, datetime.fromisoformat(build.waits_since)
    return EngineState.BUILDING, None


def _running(view: TargetView, live: KnownDeployment) -> RunningPods:
    pods, previous = view.pods, view.previous
    newest = [pod for pod in pods if _template(pod.labels) == _template(live.template_labels)]
    older = [pod for pod in pods if pod not in newest and not pod.is_finished]
    waiting = [pod.unschedulable_since for pod in newest if pod.unschedulable and pod.unschedulable_since]
    rolling = live.document["spec"].get("strategy", {}).get("rollingUpdate") or {}
    obstacle, message = serving_obstacle(
        newest,
        previous.reason if previous else "",
        previous.message if previous else "",
        resource=next((one.resource for one in live.notes.engines if one.resource), None),
    )
    if not obstacle:
        obstacle, message = _ended(newest)
    if live.refused and len([pod for pod in newest if not pod.is_terminating]) < live.replicas:
        obstacle, message = refused_pods(live.refused)
    return RunningPods(
        engines=live.notes.engines,
        replicas=live.replicas,
        strategy=Strategy.REPLACE if rolling.get("maxSurge") == 0 else Strategy.SURGE,
        updated_ready=sum(pod.is_ready and not pod.is_terminating for pod in newest),
        ready=sum(pod.is_ready and not pod.is_terminating for pod in pods),
        idle_old=sum(not pod.is_ready and not pod.is_terminating for pod in older),
        is_settled=live.is_observed and not older,
        unschedulable_since=datetime.fromisoformat(min(waiting)) if waiting else None,
        troubles=tuple(trouble for pod in newest if (trouble := _trouble(pod)) is not None),
        obstacle=obstacle,
        obstacle_message=message,
        cordoned=tuple(
            one.name
            for one in view.snapshot.observed.nodes
            if one.is_cordoned and any(pin.fits(one.labels) for engine in live.notes.engines for pin in engine.pins)
        ),
    )


def _template(labels: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return what identifies a pod's template; the key alone where another release created the pod."""
    return labels.get(ENGINE_KEY), labels.get(TEMPLATE)


def _ended(pods: Iterable[PodFacts]) -> tuple[str, str]:
    """Return reason and message of a container that ended and is restarted; empty: there is none."""
    for pod in pods:
        for container, ending, report in _endings(pod):
            if ending.exit_code not in _REFUSALS:
                said = _sentence(report, ending, pod.name, container.name)
                return _reason(report, ending), f"on node {pod.node}: {said}"
    return "", ""


def _endings(pod: PodFacts) -> Iterator[tuple[ContainerFacts, Ending, ServingReport | None]]:
    """Give the containers of a pod that failed and are restarted, each with its last ending.

    A pod that is terminating or was evicted is skipped: another one replaces it.
    """
    if pod.is_ready or pod.is_terminating or pod.is_finished or not pod.node:
        return
    for name in (PULL_CONTAINER, SERVER_CONTAINER):
        container = pod.container(name)
        ending = container.latest_ending if container is not None else None
        if container is None or ending is None or ending.exit_code == ExitCode.OK:
            continue
        report = _report(ending)
        if report is None or report.failure is None or report.failure.reason != ENGINE_MISSING:
            yield container, ending, report


def _trouble(pod: PodFacts) -> PodTrouble | None:
    """Return what is wrong with a pod that does not serve; None: nothing that a rollout reacts to."""
    for container, ending, report in _endings(pod):
        if ending.exit_code not in _REFUSALS and container.restarts < _CRASHES:
            continue
        reason = _reason(report, ending)
        return PodTrouble(
            trouble=_kind(ending, reason),
            node=pod.node,
            engine_key=report.engine_key if report is not None else None,
            reason=reason,
            message=_sentence(report, ending, pod.name, container.name),
            may_pass=reason in _MAY_PASS or _says_retry(report),
        )
    return None


def _kind(ending: Ending, reason: str) -> Trouble:
    if ending.exit_code == ExitCode.VERIFICATION_FAILED:
        return Trouble.REFUSED_ENGINE
    if ending.exit_code == ExitCode.ENGINE_REFUSED:
        return Trouble.REFUSED_ENGINE if reason in _ENGINE_IS_WRONG else Trouble.REFUSED_NODE
    return Trouble.FAILED_DEVICE if ending.exit_code == ExitCode.DEVICE_FAILED else Trouble.CRASHING


def _says_retry(report: ServingReport | None) -> bool:
    return report is not None and report.failure is not None and report.failure.retry


def _report(ending: Ending) -> ServingReport | None:
    try:
        return ServingReport.from_json(ending.message) if ending.message else None
    except ValidationError:
        return None


def _reason(report: ServingReport | None, ending: Ending) -> str:
    if report is not None and report.failure is not None:
        return report.failure.reason
    if ending.exit_code in _REFUSALS:
        return "EngineRefused"
    if ending.exit_code == ExitCode.DEVICE_FAILED:
        return "DeviceFailed"
    if ending.out_of_memory:
        return "OutOfMemory"
    return "ContainerCannotStart" if ending.not_started else "Crashing"


def _sentence(report: ServingReport | None, ending: Ending, pod: str, container: str) -> str:
    if report is not None and report.failure is not None:
        return bounded_line(report.failure.sentence())
    who = "the server" if container == SERVER_CONTAINER else "the init step"
    if ending.out_of_memory:
        less = _SERVER_TAKES_LESS if container == SERVER_CONTAINER else ""
        return f"{who} was killed because it ran out of memory; {_MEMORY_REMEDY}{less}"
    if ending.not_started:
        return f"{who} cannot be started: {bounded_line(ending.not_started)}"
    return f"{who} ended with exit code {ending.exit_code}; see kubectl logs {pod} -c {container} --previous"


def _occasion(metadata: Json) -> str:
    """Return what a user changes to request another try: the spec's generation and the retry annotation."""
    asked = (metadata.get("annotations") or {}).get(RETRY, "")
    return f"{metadata.get('generation', 0)} {asked}".strip()


def _made_of(view: TargetView) -> dict[str, str]:
    """Return the hash of the inputs of each engine's pods, by key; of all of them under the empty key."""
    if not isinstance(view.store, ChosenStore):
        return {}
    served = view.live.notes.served if view.live is not None else ()
    variants = (one for planned in view.planned.engines for one in planned.variants)
    planned = (WantedEngine.from_plan(one, EngineState.STORED).servable for one in variants)
    servable = {one.key: one for one in (*served, *planned) if one.key and one.toolchain.image is not None}
    found = {key: f"{_inputs(view, view.store, one)}.{view.digests.get(key, '')}" for key, one in servable.items()}
    found = {key: sha256(text.encode()).hexdigest()[:_HASH_DIGITS] for key, text in found.items()}
    return found | {"": sha256(" ".join(found[key] for key in sorted(found)).encode()).hexdigest()[:_HASH_DIGITS]}


def _inputs(view: TargetView, store: ChosenStore, servable: ServableEngine) -> str:
    snapshot = view.snapshot
    made = serving_pods(
        snapshot.engine, view.target, [servable], store=store.spec, store_uri=store.uri, tracing=snapshot.tracing
    )
    return made.inputs_hash()


def _fingerprints(view: TargetView) -> dict[str, str]:
    observed = view.snapshot.observed
    known = remembered(observed, "fingerprints", lambda: {one.name: _fingerprint(one) for one in observed.nodes})
    names = {name for one in view.planned.engines for name in one.nodes}
    return {name: known[name] for name in names if name in known}


def _fingerprint(facts: NodeFacts) -> str:
    """Return a hash of what may make a refused node fit: its GPU, its partitions and its driver."""
    told = {
        "product": facts.product,
        "driver": facts.driver,
        "offers": [[offer.resource, offer.mig_profile, offer.allocatable] for offer in facts.offers],
    }
    return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
