"""What was tried and failed: engines and nodes that are not tried now, and when they are tried again.

| a pod reports | then |
|---|---|
| the engine is wrong on every node | it is not tried again until the inputs of its pods change |
| the engine does not fit this node | the node is avoided until the node or the inputs of the pods change |
| the node has no driver, no GPU or no memory now; its GPU failed several times | the same, for a limited time |
| it failed several times for any other reason, and another engine served | back to that one, and a new try later |
| the same, and no other engine served | kubelet restarts it; nothing is remembered |

The pause before the next try doubles, up to a limit.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final, NamedTuple

from enginesmith_operator.api.conditions import MAX_MESSAGE
from enginesmith_operator.api.engine_status import ExcludedNode, RejectedEngine
from enginesmith_operator.planning.refusals import natural_order
from enginesmith_operator.planning.rollout_state import (
    PodTrouble,
    RolloutState,
    RunningPods,
    ServableEngine,
    Trouble,
    WantedEngine,
)

__all__ = ["Trials", "judge_trials"]

_ENGINE_PAUSE_SECONDS: Final = 60.0
_NODE_PAUSE_SECONDS: Final = 300.0
_LONGEST_PAUSE_SECONDS: Final = 1800.0
_DIGITS: Final = 20
_MOST_REFUSING_NODES: Final = 3
"""As many nodes refuse one engine before the engine counts as wrong."""

Entry = RejectedEngine | ExcludedNode


class Trials(NamedTuple):
    """The outcome of every trial so far.

    Attributes:
        rejected: engines that failed, kept until their inputs change or they serve.
        excluded: nodes that refused an engine, kept in the same way.
        avoid: names of the excluded nodes that are not tried now.
        not_tried: wanted engines, then last good ones, that are not tried now, with the first reason: rejected, or no
            node left.
        waits_seconds: seconds until the next of them is tried again; None: time alone leads to no new try.
    """

    rejected: tuple[RejectedEngine, ...]
    excluded: tuple[ExcludedNode, ...]
    avoid: tuple[str, ...]
    not_tried: tuple[RejectedEngine, ...]
    waits_seconds: float | None

    @property
    def keys_not_tried(self) -> frozenset[str]:
        """Return the keys that are not tried now."""
        return frozenset(entry.key for entry in self.not_tried)

    def not_tried_instead_of(self, engines: tuple[ServableEngine, ...]) -> tuple[RejectedEngine, ...]:
        """Return those among them that would replace `engines`."""
        keys = {engine.key for engine in engines}
        return tuple(entry for entry in self.not_tried if entry.key not in keys)


def judge_trials(state: RolloutState, now: datetime) -> Trials:
    """Sort the pods' troubles into wrong engines and unfit nodes; forget what no longer holds."""
    wanted = {engine.servable.key for engine in state.tried}
    last_good = {engine.key for engine in state.last_good}
    excluded = {(entry.name, entry.key or ""): entry for entry in state.excluded if _still_holds(entry, state, now)}
    rejected = {
        entry.key: entry
        for entry in state.rejected
        if entry.key in wanted | last_good and _still_holds(entry, state, now)
    }
    for pod in state.running.troubles if state.running is not None else ():
        avoided = frozenset(entry.name for entry in excluded.values() if not _is_due(entry, now))
        if _is_of_node(pod, state, avoided):
            place = (pod.node, pod.engine_key or "")
            excluded[place] = _exclusion(pod, state, excluded.get(place), now)
            continue
        keys = set(_keys_of(pod, state.running))
        if pod.trouble is not Trouble.REFUSED_ENGINE:
            # Without another engine to go back to, kubelet's own restarts are all that helps.
            keys = keys - last_good if last_good else set()
        for key in sorted(keys):
            rejected[key] = _rejection(pod, key, state, rejected.get(key), now)
    ordered = tuple(excluded[key] for key in sorted(excluded, key=lambda key: (natural_order(key[0]), key[1])))
    kept = tuple(rejected.values())
    held = tuple(entry for entry in kept if not _is_due(entry, now))
    closed = tuple(entry for entry in ordered if not _is_due(entry, now))
    lapsed = (entry for entry in held if entry.key in last_good - wanted)
    closed_now: tuple[Entry, ...] = (*held, *closed)
    return Trials(
        rejected=kept,
        excluded=ordered,
        avoid=tuple(sorted({entry.name for entry in closed})),
        not_tried=(*_not_tried(state.tried, held, closed), *lapsed),
        waits_seconds=min((_seconds_left(entry, now) for entry in closed_now if entry.retry_at), default=None),
    )


def _still_holds(entry: Entry, state: RolloutState, now: datetime) -> bool:
    """Whether nothing that an entry depends on has changed; a value that is not known now counts as unchanged."""
    node = entry.name if isinstance(entry, ExcludedNode) else entry.node
    if entry.fingerprint and state.nodes.get(node, entry.fingerprint) != entry.fingerprint:
        return False
    may_pass = entry.retry_at is not None
    if _made_of(entry.key, state, may_pass=may_pass) not in {"", entry.made_of}:
        return False
    running = state.running
    # An entry that was due for another try is over once its pods serve.
    serves = running is not None and running.is_settled and running.updated_ready >= max(running.replicas, 1)
    is_it = serves and running is not None and entry.key in {None, *(engine.key for engine in running.engines)}
    return not (is_it and _is_due(entry, now))


def _made_of(key: str | None, state: RolloutState, *, may_pass: bool) -> str:
    """Return the hash of the inputs of an engine's pods; empty: not known now."""
    found = state.made_of.get(key or "", "")
    # A change of the spec may have removed a cause that is not among the inputs.
    return sha256(f"{found} {state.occasion}".encode()).hexdigest()[:_DIGITS] if found and may_pass else found


def _is_due(entry: Entry, now: datetime) -> bool:
    return entry.retry_at is not None and _seconds_left(entry, now) <= 0


def _seconds_left(entry: Entry, now: datetime) -> float:
    return (datetime.fromisoformat(entry.retry_at) - now).total_seconds() if entry.retry_at is not None else 0.0


def _is_of_node(pod: PodTrouble, state: RolloutState, avoided: frozenset[str]) -> bool:
    """Whether the node is to be avoided; after a GPU failure only if another node is left."""
    if pod.trouble is not Trouble.FAILED_DEVICE:
        return pod.trouble is Trouble.REFUSED_NODE
    return _has_another_node(pod, state, avoided)


def _has_another_node(pod: PodTrouble, state: RolloutState, avoided: frozenset[str] = frozenset()) -> bool:
    """Whether an engine of the pod may run on a node that is neither the pod's nor avoided."""
    return any(
        pod.engine_key in {None, engine.servable.key} and set(engine.nodes) - avoided - {pod.node}
        for engine in state.tried
    )


def _exclusion(pod: PodTrouble, state: RolloutState, before: ExcludedNode | None, now: datetime) -> ExcludedNode:
    if before is not None and not _is_due(before, now):
        return before
    may_pass = pod.may_pass or pod.trouble is Trouble.FAILED_DEVICE
    tries = (before.tries if before is not None else 0) + 1
    # An engine that served on its only node is short of a replica until this node is tried again.
    lacks_replica = pod.engine_key in {engine.key for engine in state.last_good} and not _has_another_node(pod, state)
    pause = _ENGINE_PAUSE_SECONDS if lacks_replica else _NODE_PAUSE_SECONDS
    return ExcludedNode(
        name=pod.node,
        reason=pod.reason,
        message=pod.message[:MAX_MESSAGE],
        fingerprint=state.nodes.get(pod.node, ""),
        key=pod.engine_key,
        made_of=_made_of(pod.engine_key, state, may_pass=may_pass),
        retry_at=_after_pause(tries, now, pause) if may_pass else None,
        tries=tries if may_pass else 0,
    )


def _rejection(
    pod: PodTrouble, key: str, state: RolloutState, before: RejectedEngine | None, now: datetime
) -> RejectedEngine:
    if before is not None and not _is_due(before, now):
        return before
    may_pass = pod.trouble is not Trouble.REFUSED_ENGINE
    tries = (before.tries if before is not None else 0) + 1
    return RejectedEngine(
        key=key,
        reason=pod.reason,
        message=pod.message[:MAX_MESSAGE],
        node=pod.node,
        fingerprint=state.nodes.get(pod.node, "") if may_pass else "",
        made_of=_made_of(key, state, may_pass=may_pass),
        retry_at=_after_pause(tries, now, _ENGINE_PAUSE_SECONDS) if may_pass else None,
        tries=tries if may_pass else 0,
    )


def _after_pause(tries: int, now: datetime, first_seconds: float) -> str:
    """Return when to try again after so many failures."""
    doublings = min(tries - 1, 16)
    pause = min(first_seconds * 2**doublings, _LONGEST_PAUSE_SECONDS)
    moment = now.astimezone(UTC) + timedelta(seconds=pause)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _keys_of(pod: PodTrouble, running: RunningPods | None) -> tuple[str, ...]:
    if pod.engine_key is not None:
        return (pod.engine_key,)
    return tuple(engine.key for engine in running.engines) if running is not None else ()


def _not_tried(
    wanted: tuple[WantedEngine, ...], rejected: tuple[RejectedEngine, ...], excluded: tuple[ExcludedNode, ...]
) -> Iterator[RejectedEngine]:
    for engine in wanted:
        key = engine.servable.key
        if not key:
            # Its model is not known yet, so no node can have refused it.
            continue
        named = next((rejection for rejection in rejected if rejection.key == key), None)
        if named is not None:
            yield named
            continue
        refusing = {node.name: node for node in excluded if node.key in {None, key} and node.name in engine.nodes}
        if refusing and (len(refusing) == len(set(engine.nodes)) or len(refusing) >= _MOST_REFUSING_NODES):
            first = next(iter(refusing.values()))
            count = f"{len(refusing)} of its {len(set(engine.nodes))} nodes refused it; " if len(refusing) > 1 else ""
            yield RejectedEngine(
                key=key,
                reason=first.reason,
                message=f"{count}{first.message}"[:MAX_MESSAGE],
                node=first.name,
                retry_at=min((node.retry_at for node in refusing.values() if node.retry_at), default=None),
            )
