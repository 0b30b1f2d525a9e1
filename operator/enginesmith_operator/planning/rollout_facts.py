"""What follows from a target's state at one moment: the facts that the rules of a rollout ask for. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from enginesmith_operator.api.engine_status import ExcludedNode
from enginesmith_operator.api.serving import WhenFull
from enginesmith_operator.planning.rollout_quick import Device, find_stand_ins
from enginesmith_operator.planning.rollout_state import (
    PATIENCE_SECONDS,
    EngineState,
    RolloutState,
    RunningPods,
    ServableEngine,
    Strategy,
    WantedEngine,
    is_full,
    seconds_waited,
)
from enginesmith_operator.planning.rollout_trials import Trials, judge_trials
from enginesmith_operator.planning.rollout_words import PREVIOUS_SERVES, QUICK_ENGINE, no_free_gpu

__all__ = ["RolloutFacts", "find_facts"]

Engines = tuple[ServableEngine, ...]


@dataclass(frozen=True, kw_only=True)
class RolloutFacts:
    """One state at one moment, with what was tried before.

    Attributes:
        state: input of the rollout.
        now: time of the decision.
        trials: engines and nodes that are not tried now.
        last_good: engines that served last: where a failed rollout goes back to. Empty: none ever served.
        stand_ins: quick engines that serve, or are to serve, until the full ones are stored; by device.
        engines: engines that pods may load now, all of one toolchain. Empty: no engine may run.
    """

    state: RolloutState
    now: datetime
    trials: Trials
    last_good: Engines
    stand_ins: Mapping[Device, WantedEngine]
    engines: Engines

    @cached_property
    def pods(self) -> RunningPods:
        """The Deployment's pods; none without a Deployment."""
        return self.state.running or RunningPods(engines=())

    @property
    def total(self) -> int:
        """Wanted number of pods; with an autoscaler, the number that it has set."""
        return self.pods.replicas if self.state.replicas is None else self.state.replicas

    @cached_property
    def is_current(self) -> bool:
        """Whether the Deployment's template lists the engines that pods may load."""
        return _same(self.pods.engines, self.engines)

    @property
    def is_last_good(self) -> bool:
        """Whether the engines that pods may load are those that served last."""
        return bool(self.last_good) and _same(self.engines, self.last_good)

    @cached_property
    def goes_back(self) -> bool:
        """Whether the template changes back to the last good engines, since a newer one was rejected."""
        return not self.is_current and self.is_last_good and bool(self.trials.not_tried_instead_of(self.engines))

    @cached_property
    def all_ready(self) -> bool:
        """Whether every replica of the right template is ready, and no other pod is left."""
        pods = self.pods
        return self.is_current and self.total > 0 and pods.is_settled and pods.updated_ready >= self.total

    @property
    def keeps_serving(self) -> bool:
        """Whether the status says "Serving": the last good engines serve, and no build waits for a GPU."""
        return self.goes_back or self.lacks_replicas or (self.all_ready and not self.only_build_waits)

    @cached_property
    def lacks_replicas(self) -> bool:
        """Whether the last good engines serve with too few replicas, and no pod is stopped for a new one."""
        pods = self.pods
        is_steady = self.is_current and self.is_last_good and not (self.has_old_ready or pods.idle_old)
        return is_steady and pods.ready > 0 and self.total > 0 and not (self.all_ready or self.replaces)

    @property
    def has_old_ready(self) -> bool:
        """Whether pods of an earlier template serve."""
        return self.pods.ready > self.pods.updated_ready

    @property
    def is_full(self) -> bool:
        """Whether a pod of the template has fitted no node for a while."""
        return is_full(self.pods.unschedulable_since, self.now)

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes that may serve the engines, without those that are not tried now."""
        return tuple(node for node in self._planned_nodes if node not in self.trials.avoid)

    @property
    def refused_everywhere(self) -> ExcludedNode | None:
        """The first node that refused the engines, if each node that may serve them did; None: a node is left."""
        if self.nodes:
            return None
        return next((one for one in self.trials.excluded if one.name in self._planned_nodes), None)

    @property
    def _planned_nodes(self) -> tuple[str, ...]:
        keys = {engine.key for engine in self.engines}
        return tuple(node for wanted in self.state.wanted if wanted.servable.key in keys for node in wanted.nodes)

    @property
    def no_gpu_for_pod(self) -> str:
        """That no GPU is free for a pod, and on which nodes."""
        return no_free_gpu(self.engines, self.nodes)

    @property
    def no_gpu_for_build(self) -> str:
        """That no GPU is free for a build, and on which nodes."""
        nodes = (node for wanted in self.full_builds for node in wanted.nodes)
        return no_free_gpu((wanted.servable for wanted in self.full_builds), nodes)

    @property
    def may_replace(self) -> bool:
        """Whether the spec allows to stop a serving pod before its successor is ready."""
        return self.state.when_full is WhenFull.REPLACE

    @property
    def replaces(self) -> bool:
        """Whether serving pods of an earlier template stop one at a time, or one of them is still ending."""
        return self.is_full and self.may_replace and not self.pods.is_settled

    @property
    def strategy(self) -> Strategy:
        """How the template's first pods start: a replacement that has begun ends as one."""
        return self.pods.strategy if self.has_old_ready and self.may_replace else Strategy.SURGE

    @cached_property
    def next_builds(self) -> tuple[WantedEngine, ...]:
        """Wanted engines, each as it is built next: the quick one first, where it stands in and is not stored."""
        missing = {device: quick for device, quick in self.stand_ins.items() if quick.state is not EngineState.STORED}
        return tuple(missing.get(wanted.servable.device, wanted) for wanted in self.state.wanted)

    @property
    def builds(self) -> tuple[str, ...]:
        """Keys of engines that may be built now: a full one takes no GPU that the pods of its quick one need."""
        pods = self.pods
        is_up = self.all_ready or self.lacks_replicas or self.total == 0 or (pods.crash is not None and not pods.ready)
        held = set() if is_up else {device for device, one in self.stand_ins.items() if one.state is EngineState.STORED}
        keys = (one.servable.key for one in self.next_builds if one.servable.device not in held)
        return tuple(key for key in keys if key)

    @property
    def is_quick(self) -> bool:
        """Whether one of the engines that pods may load is a quick one."""
        quick = {one.servable.key for one in self.state.quick}
        return any(engine.key in quick for engine in self.engines)

    @property
    def who_serves(self) -> str:
        """Start of a message about the engine after the one that serves."""
        return f"serving {QUICK_ENGINE}" if self.is_quick else PREVIOUS_SERVES

    @property
    def failed_quick(self) -> str:
        """Why a quick engine is not used, though nothing serves and the full one is still to come; empty: it is."""
        comes = any(one.state in {EngineState.QUEUED, EngineState.BUILDING} for one in self.state.wanted)
        if self.engines or self.stand_ins or not comes:
            return ""
        said = {one.servable.key: one.message for one in self.state.quick if one.state is EngineState.FAILED}
        said |= {one.key: f"on node {one.node}: {one.message}" for one in self.trials.not_tried}
        return next((said[key] for one in self.state.quick if (key := one.servable.key) in said), "")

    @property
    def failed_builds(self) -> tuple[WantedEngine, ...]:
        """Engines whose build failed."""
        return tuple(one for one in self.next_builds if one.state is EngineState.FAILED)

    @property
    def full_builds(self) -> tuple[WantedEngine, ...]:
        """Engines whose build has found no free GPU for a while; one without a GPU waits for something else."""
        return tuple(one for one in self.next_builds if one.servable.resource is not None and one.is_full(self.now))

    @property
    def lacks_keys(self) -> bool:
        """Whether the model's digest, and so the key of an engine, is not known yet."""
        return any(wanted.state is EngineState.PENDING for wanted in self.state.wanted)

    @cached_property
    def next_engines(self) -> tuple[WantedEngine, ...]:
        """Wanted engines that the pods do not have yet."""
        keys = {engine.key for engine in self.engines}
        return tuple(wanted for wanted in self.state.wanted if wanted.servable.key not in keys)

    @property
    def next_failed(self) -> tuple[WantedEngine, ...]:
        """Engines among the next ones whose build failed."""
        return tuple(wanted for wanted in self.next_engines if wanted.state is EngineState.FAILED)

    @property
    def next_is_missing(self) -> bool:
        """Whether the store lacks one of the next engines."""
        return any(wanted.state is not EngineState.STORED for wanted in self.next_engines)

    @property
    def only_build_waits(self) -> bool:
        """Whether a build waits for a GPU, and no rule before that one applies."""
        is_worse = self.trials.not_tried_instead_of(self.engines) or self.state.refusal or self.next_failed
        return bool(self.full_builds) and not is_worse

    @property
    def makes_room(self) -> bool:
        """Whether a serving pod stops so that a build gets its GPU, or has stopped and the build runs."""
        running, replicas = self.state.running, self.state.replicas
        if not self.may_replace or running is None or not replicas:
            return False
        devices = {engine.device for engine in self.last_good}
        # With several products it is not known which pod would stop.
        if len(devices) != 1:
            return False
        has_made_room = running.replicas == replicas - 1
        # Where a quick engine is stored it is to serve, and no replica stops for the full one.
        builds = [
            (wanted, build)
            for wanted, build in zip(self.state.wanted, self.next_builds, strict=True)
            if wanted.servable.device in devices
            and (build is not wanted or build.servable.device not in self.stand_ins)
        ]
        return any(
            wanted.is_full(self.now)
            or build.is_full(self.now)
            or (has_made_room and build.state in {EngineState.QUEUED, EngineState.BUILDING})
            for wanted, build in builds
        )

    @property
    def look_again_seconds(self) -> float | None:
        """After how many seconds the patience for a pod ends, or a failed one is tried again; None: never."""
        starts = [*(wanted.waits_since for wanted in self.state.tried), self.pods.unschedulable_since]
        left = [
            PATIENCE_SECONDS - waited for start in starts if (waited := seconds_waited(start, self.now)) is not None
        ]
        left += [self.trials.waits_seconds] if self.trials.waits_seconds is not None else []
        return min((seconds for seconds in left if seconds > 0), default=None)


def find_facts(state: RolloutState, now: datetime) -> RolloutFacts:
    """Judge what was tried, and choose the engines that pods may load."""
    trials = judge_trials(state, now)
    last_good = _last_good(state, trials)
    stand_ins = find_stand_ins(state, trials.keys_not_tried, last_good, now)
    chosen = _choose(state, trials, last_good, stand_ins, now)
    engines = () if _are_refused(state.running, chosen, trials) else chosen
    return RolloutFacts(state=state, now=now, trials=trials, last_good=last_good, stand_ins=stand_ins, engines=engines)


def _last_good(state: RolloutState, trials: Trials) -> Engines:
    """Return the engines to go back to: those that served last, else those that are found serving."""
    if state.last_good or state.running is None or not state.running.updated_ready:
        return state.last_good
    found = state.running.engines
    return () if any(engine.key in trials.keys_not_tried for engine in found) else found


def _choose(
    state: RolloutState, trials: Trials, last_good: Engines, stand_ins: Mapping[Device, WantedEngine], now: datetime
) -> Engines:
    """Return the engines that pods may load: wanted ones that are stored, with or instead of the last good ones."""
    ready = tuple(
        one.servable
        for one in (stand_ins.get(wanted.servable.device, wanted) for wanted in state.wanted)
        if one.state is EngineState.STORED and one.servable.key not in trials.keys_not_tried
    )
    if not last_good:
        return _as_it_runs(state, ready, now)
    planned = {wanted.servable.device for wanted in state.wanted}
    made = {engine.device for engine in ready}
    lacking = tuple(engine for engine in last_good if engine.device in planned - made)
    # Without a plan no new engine can be chosen, and the last good ones stay.
    if state.refusal or not ready or (lacking and lacking[0].toolchain != ready[0].toolchain):
        return _as_it_runs(state, last_good, now)
    chosen = tuple(sorted((*ready, *lacking), key=lambda engine: engine.device))
    return _as_it_runs(state, _without_needless_change(state, chosen, last_good, now), now)


def _without_needless_change(state: RolloutState, chosen: Engines, last_good: Engines, now: datetime) -> Engines:
    """Keep the engines that serve where the chosen ones only add or drop products, until a pod fits no node."""
    devices = {engine.device: engine.key for engine in last_good}
    replaces = any(devices.get(engine.device, engine.key) != engine.key for engine in chosen)
    moves = chosen[0].toolchain != last_good[0].toolchain
    running = state.running
    is_asked_for = state.ruled_out.isdisjoint(engine.key for engine in last_good)
    if replaces or moves or not is_asked_for or running is None or not _same(running.engines, last_good):
        return chosen
    helps = any(engine.device not in devices for engine in chosen) or _same(chosen, last_good)
    return chosen if helps and is_full(running.unschedulable_since, now) else last_good


def _as_it_runs(state: RolloutState, chosen: Engines, now: datetime) -> Engines:
    """Return the very values that run where they are the same engines: another spelling of a label restarts nothing."""
    running = state.running
    if running is None or not _same(running.engines, chosen) or is_full(running.unschedulable_since, now):
        return chosen
    return running.engines


def _are_refused(running: RunningPods | None, engines: Engines, trials: Trials) -> bool:
    """Whether the last good engines are refused now, where no pod serves and nothing is left to go back to."""
    return running is not None and not running.ready and all(engine.key in trials.keys_not_tried for engine in engines)


def _same(some: Engines, others: Engines) -> bool:
    """Whether both are the same engines in the same image."""
    return _identity(some) == _identity(others)


def _identity(engines: Engines) -> frozenset[tuple[str, str | None]]:
    return frozenset((engine.key, engine.toolchain.image) for engine in engines)
