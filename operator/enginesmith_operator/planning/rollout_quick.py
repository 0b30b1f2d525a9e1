"""Quick engines of a rollout (`spec.build.quickStart`): which of them stand in for full engines now. Pure.

| a full engine that is not stored, and | then |
|---|---|
| nothing serves | its quick engine is built first and serves; the full one is built when the quick one's pods are up |
| an earlier engine serves | it stays until the full engine is stored; no quick engine is built |
| the same, no GPU is free, and `whenFull: replace` | a replica stops for the quick build, and never for the full one |
| its quick engine failed, in its build or in a pod | the full engine is built as without quick start |
"""

from collections.abc import Collection, Mapping
from datetime import datetime

from enginesmith_operator.api.serving import WhenFull
from enginesmith_operator.planning.rollout_state import EngineState, RolloutState, ServableEngine, WantedEngine

__all__ = ["Device", "find_stand_ins"]

Device = tuple[str, str, str]


def find_stand_ins(
    state: RolloutState, not_tried: Collection[str], last_good: tuple[ServableEngine, ...], now: datetime
) -> Mapping[Device, WantedEngine]:
    """Return the quick engines that serve, or are to serve, until the full ones are stored; by device."""
    if not state.serves or state.replicas == 0:
        return {}
    full = {wanted.servable.device: wanted for wanted in state.wanted if wanted.state is not EngineState.STORED}
    running = state.running.engines if state.running is not None else ()
    listed = {engine.key for engine in (*running, *last_good)}
    is_first = {engine.key for engine in last_good} <= {quick.servable.key for quick in state.quick}
    return {
        quick.servable.device: quick
        for quick in state.quick
        if (wanted := full.get(quick.servable.device)) is not None
        and quick.state not in {EngineState.PENDING, EngineState.FAILED}
        and quick.servable.key not in not_tried
        and (is_first or quick.servable.key in listed or _gets_room(state, wanted, quick, last_good, now))
    }


def _gets_room(
    state: RolloutState,
    wanted: WantedEngine,
    quick: WantedEngine,
    last_good: tuple[ServableEngine, ...],
    now: datetime,
) -> bool:
    """Whether a replica of an earlier engine stops, or has stopped, for the build of this quick engine."""
    running, replicas = state.running, state.replicas
    if state.when_full is not WhenFull.REPLACE or running is None or not replicas:
        return False
    if {engine.device for engine in last_good} != {quick.servable.device}:
        return False
    return wanted.is_full(now) or running.replicas == replicas - 1
