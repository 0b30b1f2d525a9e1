"""Which engines a target's Deployment runs now: nothing that serves is touched before its successor is stored.

    judge troubles ── reject engines, exclude nodes        (rollout_trials.py: what was tried and refused)
    choose a set   ── what is wanted, else what served     (one toolchain: the pods of a target are of one template)
    make room      ── wait for a free GPU, or replace      (only where scheduling was tried and failed)
    say so         ── phase, reason, message               (rollout_words.py)

A set that refuses goes back to the set that served, or to no replicas, after its first exit. One that fails for a
reason that may pass goes back too and is tried again later; without a way back it stays, and kubelet tries. Free GPUs
are found by trying, since other teams' pods hold some too. A template changes for a reason only: products that come or
go, labels that get another spelling and nodes that join restart nothing until a pod needs the place.
"""

from datetime import datetime
from typing import Final

from enginesmith_operator.api.serving import WhenFull
from enginesmith_operator.planning.rollout_state import (
    EngineState,
    RolloutDecision,
    RolloutState,
    RunningPods,
    ServableEngine,
    Strategy,
)
from enginesmith_operator.planning.rollout_trials import Trials, judge_trials
from enginesmith_operator.planning.rollout_words import (
    CLEARS_AWAY,
    GOES_IDLE,
    MAKES_ROOM,
    REPLACES,
    SLEEPS,
    STANDS_BY,
    Words,
    fails,
    list_engines,
    nothing_runs,
    rolled_back,
    rolls,
    serves_fewer,
    serves_well,
    starts,
    waits_for_gpu,
)

__all__ = ["PATIENCE_SECONDS", "decide_rollout"]

PATIENCE_SECONDS: Final = 15.0
"""How long a pod may fit no node before that counts as "full": another one may just be ending."""

Engines = tuple[ServableEngine, ...]


def decide_rollout(state: RolloutState, now: datetime) -> RolloutDecision:
    """Decide what the target's Deployment is to be."""
    trials = judge_trials(state, now)
    served = _served(state, trials)
    run = _choose(state, trials, served, now)
    running = state.running
    if not run or _is_refused(running, run, trials):
        replicas = _replicas_without_engines(state, trials)
        words = nothing_runs(state, trials, full=_build_is_full(state, now))
        return _decision(state, trials, served, words, now, run=running.engines if running else (), replicas=replicas)
    if not state.serves:
        return _decision(state, trials, served, STANDS_BY, now, run=run, replicas=0)
    if state.replicas == 0:
        return _decision(state, trials, served, GOES_IDLE, now, run=run, replicas=0)
    if _makes_room(state, served, now):
        return _decision(state, trials, served, MAKES_ROOM, now, run=run, replicas=(state.replicas or 1) - 1)
    return _roll(state, trials, served, run, now)


def _roll(state: RolloutState, trials: Trials, served: Engines, run: Engines, now: datetime) -> RolloutDecision:
    """Bring pods to `run`, in the way that the free GPUs allow."""
    running, replicas = state.running, state.replicas
    if running is None or not _same(running.engines, run):
        back = bool(trials.next_out(run)) and bool(served) and _same(run, served)
        words = rolled_back(trials, run) if back else rolls("NewEngine", list_engines(run))
        return _decision(state, trials, served, words, now, run=run, replicas=replicas)
    total = running.replicas if replicas is None else replicas
    if total == 0:
        return _decision(state, trials, served, SLEEPS, now, run=run, replicas=replicas)
    if running.is_settled and running.updated_ready >= total:
        words = serves_well(state, trials, run, full=_build_is_full(state, now))
        return _decision(state, trials, run, words, now, run=run, replicas=replicas)
    is_full = _is_full(running.unschedulable_since, now)
    has_old = running.ready > running.updated_ready
    may_replace = state.when_full is WhenFull.REPLACE
    strategy = running.strategy if has_old and may_replace else Strategy.SURGE
    if is_full and running.idle_old:
        # It serves nobody and holds a GPU: to wait for it would be to wait for ever.
        strategy, words = Strategy.REPLACE, CLEARS_AWAY
    elif is_full and may_replace and not running.is_settled:
        strategy, words = Strategy.REPLACE if has_old else Strategy.SURGE, REPLACES
    elif served and _same(run, served) and running.ready and not (has_old or running.idle_old):
        words = serves_fewer(running, total, is_full=is_full)
    elif running.crash is not None and not running.ready:
        words = fails(running.crash)
    elif is_full and running.takes_gpus:
        words = waits_for_gpu(running)
    else:
        words = starts(running, total, run)
    return _decision(state, trials, served, words, now, run=run, replicas=replicas, strategy=strategy)


def _served(state: RolloutState, trials: Trials) -> Engines:
    """Return the set to go back to: the one that served last, or what is found serving where nobody remembers."""
    if state.served or state.running is None or not state.running.updated_ready:
        return state.served
    found = state.running.engines
    return () if any(one.key in trials.keys_out for one in found) else found


def _choose(state: RolloutState, trials: Trials, served: Engines, now: datetime) -> Engines:
    """Return the engines that pods may take: wanted ones that are stored, and served ones beside or instead."""
    ready = tuple(
        one.servable
        for one in state.wanted
        if one.state is EngineState.STORED and one.servable.key not in trials.keys_out
    )
    if not served:
        return _as_it_runs(state, ready, now)
    planned = {one.servable.device for one in state.wanted}
    made = {one.device for one in ready}
    lacking = tuple(one for one in served if one.device in planned - made)
    # Without a plan nothing new can be chosen, and what serves goes on.
    if state.refusal or not ready or (lacking and lacking[0].toolchain != ready[0].toolchain):
        return _as_it_runs(state, served, now)
    chosen = tuple(sorted((*ready, *lacking), key=lambda one: one.device))
    return _as_it_runs(state, _without_needless_change(state, chosen, served, now), now)


def _without_needless_change(state: RolloutState, chosen: Engines, served: Engines, now: datetime) -> Engines:
    """Keep the set that serves where the new one only adds or drops products, until a pod needs the place."""
    devices = {one.device: one.key for one in served}
    replaces = any(devices.get(one.device, one.key) != one.key for one in chosen)
    moves = chosen[0].toolchain != served[0].toolchain
    running = state.running
    is_asked_for = state.ruled_out.isdisjoint(one.key for one in served)
    if replaces or moves or not is_asked_for or running is None or not _same(running.engines, served):
        return chosen
    helps = any(one.device not in devices for one in chosen) or _same(chosen, served)
    return chosen if helps and _is_full(running.unschedulable_since, now) else served


def _as_it_runs(state: RolloutState, chosen: Engines, now: datetime) -> Engines:
    """Return the very values that run where they are the same engines: another spelling of a label restarts nothing."""
    running = state.running
    if running is None or not _same(running.engines, chosen) or _is_full(running.unschedulable_since, now):
        return chosen
    return running.engines


def _is_refused(running: RunningPods | None, run: Engines, trials: Trials) -> bool:
    """Whether the engines that served are refused now, where nothing is left to go back to and nobody serves."""
    return running is not None and not running.ready and all(one.key in trials.keys_out for one in run)


def _makes_room(state: RolloutState, served: Engines, now: datetime) -> bool:
    """Whether a serving replica ends so that a build gets its GPU, or has ended and the build goes on."""
    running = state.running
    if state.when_full is not WhenFull.REPLACE or running is None or not state.replicas:
        return False
    devices = {one.device for one in served}
    # With several products nobody knows which pod would end.
    if len(devices) != 1:
        return False
    made_room = running.replicas == state.replicas - 1
    return any(
        one.servable.device in devices
        and (
            (one.state is EngineState.QUEUED and _is_full(one.waits_since, now))
            or (made_room and one.state in {EngineState.QUEUED, EngineState.BUILDING})
        )
        for one in state.wanted
    )


def _replicas_without_engines(state: RolloutState, trials: Trials) -> int | None:
    """Return 0 for a set that was refused; a set that is merely not known goes on as it is."""
    running = state.running
    if running is None or trials.out or not state.serves:
        return 0
    return None if state.replicas is None else running.replicas


def _build_is_full(state: RolloutState, now: datetime) -> bool:
    """Whether a build has found no free GPU for a while; one that needs none is short of something else."""
    queued = [one for one in state.wanted if one.state is EngineState.QUEUED and one.servable.resource is not None]
    return any(_is_full(one.waits_since, now) for one in queued)


def _decision(
    state: RolloutState,
    trials: Trials,
    served: Engines,
    words: Words,
    now: datetime,
    *,
    run: Engines,
    replicas: int | None,
    strategy: Strategy = Strategy.SURGE,
) -> RolloutDecision:
    return RolloutDecision(
        run=run,
        replicas=replicas,
        strategy=strategy,
        served=served,
        rejected=trials.rejected,
        excluded=trials.excluded,
        must_avoid=trials.avoid,
        phase=words.phase,
        reason=words.reason,
        message=words.message,
        look_again_seconds=_look_again(state, trials, now),
    )


def _look_again(state: RolloutState, trials: Trials, now: datetime) -> float | None:
    """Return when patience ends for whatever waits, or what failed is tried again."""
    starts = [one.waits_since for one in state.wanted] + [state.running.unschedulable_since if state.running else None]
    left = [PATIENCE_SECONDS - waited for start in starts if (waited := _waited(start, now)) is not None]
    left += [trials.waits_seconds] if trials.waits_seconds is not None else []
    return min((seconds for seconds in left if seconds > 0), default=None)


def _same(one: Engines, other: Engines) -> bool:
    """Whether two sets are the same engines in the same image."""
    return _identity(one) == _identity(other)


def _identity(engines: Engines) -> frozenset[tuple[str, str | None]]:
    return frozenset((one.key, one.toolchain.image) for one in engines)


def _is_full(since: datetime | None, now: datetime) -> bool:
    return (_waited(since, now) or 0.0) >= PATIENCE_SECONDS


def _waited(since: datetime | None, now: datetime) -> float | None:
    return None if since is None else max((now - since).total_seconds(), 0.0)
