"""What a rollout says: phase, reason and one line, the same for the same state."""

from typing import Final, NamedTuple

from enginesmith_contract.keys import NAME_KEY_LENGTH
from enginesmith_operator.api.engine_status import RejectedEngine, TargetPhase
from enginesmith_operator.planning.rollout_state import (
    EngineState,
    PodTrouble,
    RolloutState,
    RunningPods,
    ServableEngine,
    WantedEngine,
)
from enginesmith_operator.planning.rollout_trials import Trials

__all__ = [
    "BUILDING_NEXT",
    "CLEARS_AWAY",
    "GOES_IDLE",
    "GOES_ON",
    "MAKES_ROOM",
    "MAKING_ROOM",
    "NODE_CORDONED",
    "REPLACES",
    "SLEEPS",
    "STANDS_BY",
    "Words",
    "fails",
    "list_engines",
    "nothing_runs",
    "rolled_back",
    "rolls",
    "serves_fewer",
    "serves_well",
    "starts",
    "waits_for_gpu",
]

Engines = tuple[ServableEngine, ...]


class Words(NamedTuple):
    """What a target's status says.

    Attributes:
        reason: one CamelCase word.
        message: one line.
    """

    phase: TargetPhase
    reason: str
    message: str


STANDS_BY: Final = Words(TargetPhase.STANDBY, "TargetBeforeServes", "a target before this one serves")
GOES_IDLE: Final = Words(TargetPhase.IDLE, "NoReplicas", "0 replicas are asked for")
SLEEPS: Final = Words(TargetPhase.IDLE, "ScaledToZero", "the autoscaler keeps no replicas now")
MAKES_ROOM: Final = Words(
    TargetPhase.BUILDING,
    "MadeRoom",
    "no GPU is free: one serving replica makes room for the build (rollout.whenFull: replace)",
)
REPLACES: Final = Words(
    TargetPhase.ROLLING_OUT,
    "Replacing",
    "no GPU is free: one serving replica at a time makes room (rollout.whenFull: replace)",
)
CLEARS_AWAY: Final = Words(
    TargetPhase.ROLLING_OUT, "Replacing", "no GPU is free: a replica that serves nobody makes room for a new one"
)
MAKING_ROOM: Final = frozenset({MAKES_ROOM.reason, REPLACES.reason})
"""Reasons of a target of which a replica ends, or has ended, before its successor is there."""
GOES_ON: Final = "the engine that served goes on"
NODE_CORDONED: Final = "NodeCordoned"
"""Reason of a target whose pods fit no node because one that would do is cordoned."""
_SHOWN: Final = 3
BUILDING_NEXT: Final = "BuildingNext"
"""Reason of a target that serves while its next engine is not there yet."""


def list_engines(engines: Engines) -> str:
    """Return engines as a list for people: `NVIDIA-L4 0123456789abcdef0123`."""
    return ", ".join(f"{_device(one)} {one.key[:NAME_KEY_LENGTH]}" for one in engines)


def rolls(reason: str, message: str) -> Words:
    """Say that new pods are on their way."""
    return Words(TargetPhase.ROLLING_OUT, reason, message)


def starts(running: RunningPods, total: int, run: Engines) -> Words:
    """Say how many of the new pods are ready, or what keeps the others from starting."""
    if running.obstacle:
        return rolls(running.obstacle, running.obstacle_message)
    return rolls("Starting", f"{running.updated_ready} of {total} replicas are ready with {list_engines(run)}")


def fails(crash: PodTrouble) -> Words:
    """Say what ends every pod of a target that nothing else can serve; kubelet's pauses grow to five minutes."""
    message = f"on node {crash.node}: {crash.message}; it is started again, at the latest after 5 minutes"
    return Words(TargetPhase.FAILED, crash.reason, message)


def rolled_back(trials: Trials, run: Engines) -> Words:
    """Say what was rejected, and that `run` serves, as before it."""
    first = trials.next_out(run)[0]
    message = f"{GOES_ON}, since {first.key[:NAME_KEY_LENGTH]} was rejected on {first.node}: {_with_retry(first)}"
    return Words(TargetPhase.SERVING, "RolledBack", message)


def waits_for_gpu(running: RunningPods) -> Words:
    """Say that a pod fits no node."""
    reason, message = _no_place(running, "a new pod")
    if running.ready:
        message += "; the old ones go on (rollout.whenFull: replace would end one first)"
    return Words(TargetPhase.WAITING_FOR_GPU, reason, message)


def _no_place(running: RunningPods, what: str) -> tuple[str, str]:
    """Return reason and sentence of a pod that fits no node."""
    if not running.cordoned:
        return "NoFreeGPU", f"no GPU is free for {what}"
    named = ", ".join(running.cordoned[:_SHOWN]) + (", ..." if len(running.cordoned) > _SHOWN else "")
    nodes = f"node {named} is cordoned" if len(running.cordoned) == 1 else f"nodes {named} are cordoned"
    return NODE_CORDONED, f"{nodes} (kubectl uncordon), and no other node takes {what}"


def serves_fewer(running: RunningPods, total: int, *, is_full: bool) -> Words:
    """Say that fewer replicas serve than should."""
    message = f"{running.ready} of {total} replicas are ready"
    if is_full and running.takes_gpus:
        reason, why = _no_place(running, "another")
        return Words(TargetPhase.SERVING, reason, f"{message}; {why}")
    if running.obstacle:
        return Words(TargetPhase.SERVING, running.obstacle, running.obstacle_message)
    if running.ready >= total:
        return Words(TargetPhase.SERVING, "Settling", f"{message}; pods of an earlier template are still ending")
    return Words(TargetPhase.SERVING, "FewerReplicas", message)


def serves_well(state: RolloutState, trials: Trials, run: Engines, *, full: bool) -> Words:
    """Say that it serves, and what of the wanted it does not serve; `full`: a build finds no free GPU."""
    keys = {one.key for one in run}
    outdated = [one for one in state.wanted if one.servable.key not in keys]
    failed = [one for one in outdated if one.state is EngineState.FAILED]
    if trials.next_out(run):
        return rolled_back(trials, run)
    if state.refusal:
        return Words(TargetPhase.SERVING, "NoPlan", f"{GOES_ON}; {state.refusal}")
    if failed:
        return Words(TargetPhase.SERVING, "BuildFailed", f"{GOES_ON}; {failed[0].message}")
    if full:
        return _build_waits(outdated)
    if any(one.state is not EngineState.STORED for one in outdated):
        return _builds_next(outdated, run)
    message = list_engines(run)
    if outdated:
        more = ", ".join(_device(one.servable) for one in outdated)
        message += f"; the engine for {more} is ready for when a pod needs the place"
    return Words(TargetPhase.SERVING, "Serving", message)


def _build_waits(outdated: list[WantedEngine]) -> Words:
    held = next((one for one in outdated if one.obstacle == NODE_CORDONED), None)
    if held is not None:
        return Words(TargetPhase.WAITING_FOR_GPU, NODE_CORDONED, f"{GOES_ON}; {held.message}")
    message = f"{GOES_ON}; no GPU is free for the next one's build (rollout.whenFull: replace would end a replica)"
    return Words(TargetPhase.WAITING_FOR_GPU, "NoFreeGPU", message)


def _builds_next(outdated: list[WantedEngine], run: Engines) -> Words:
    held = next((one for one in outdated if one.is_held_up), None)
    if held is not None:
        return Words(TargetPhase.SERVING, held.obstacle, f"{GOES_ON}; {held.message}")
    return Words(TargetPhase.SERVING, BUILDING_NEXT, f"{list_engines(run)}; the next one is on its way")


def nothing_runs(state: RolloutState, trials: Trials, *, full: bool) -> Words:
    """Say why the target does not serve, first the cause that a person can do something about."""
    if state.refusal:
        return Words(TargetPhase.REFUSED, "NoPlan", state.refusal)
    if trials.out:
        first = trials.out[0]
        return Words(TargetPhase.FAILED, first.reason, f"on node {first.node}: {_with_retry(first)}")
    failed = [one for one in state.wanted if one.state is EngineState.FAILED]
    if failed:
        return Words(TargetPhase.FAILED, "BuildFailed", failed[0].message)
    if not state.wanted or any(one.state is EngineState.PENDING for one in state.wanted):
        return Words(TargetPhase.PREPARING, "Preparing", "the model is being prepared")
    if full:
        said = next((one.message for one in state.wanted if one.waits_since is not None and one.message), "")
        return Words(TargetPhase.WAITING_FOR_GPU, "NoFreeGPU", said or "no GPU is free for the build")
    return _builds_first(state)


def _with_retry(rejected: RejectedEngine) -> str:
    """Return why an engine is not tried now, and when it is again where time alone brings that about."""
    if rejected.retry_at is None:
        return rejected.message
    return f"{rejected.message}; it is tried again at {rejected.retry_at}, or as soon as the spec or the node changes"


def _builds_first(state: RolloutState) -> Words:
    held = next((one for one in state.wanted if one.is_held_up), None)
    if held is not None:
        return Words(TargetPhase.BUILDING, held.obstacle, held.message)
    stored = sum(one.state is EngineState.STORED for one in state.wanted)
    return Words(TargetPhase.BUILDING, "Building", f"{stored} of {len(state.wanted)} engines are stored")


def _device(one: ServableEngine) -> str:
    product, profile, arch = one.device
    return " ".join(part for part in (product or f"CPU {arch}", profile) if part)
