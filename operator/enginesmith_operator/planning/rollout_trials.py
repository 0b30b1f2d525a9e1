"""What was tried and refused: engines that are not tried again, nodes that are kept clear of."""

from collections.abc import Iterator
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

_MOST_REFUSING_NODES: Final = 3
"""So many nodes refuse one engine, and it is the engine that is wrong."""


class Trials(NamedTuple):
    """The outcome of every trial so far.

    Attributes:
        rejected: engines that are wrong by themselves; remembered while their key is wanted.
        excluded: nodes that refused; remembered until what is known of them changes.
        out: wanted engines, then served ones, that are not tried now, with the first reason: rejected, or no node left.
    """

    rejected: tuple[RejectedEngine, ...]
    excluded: tuple[ExcludedNode, ...]
    out: tuple[RejectedEngine, ...]

    @property
    def keys_out(self) -> frozenset[str]:
        """Return the keys that are not tried now."""
        return frozenset(one.key for one in self.out)

    def next_out(self, run: tuple[ServableEngine, ...]) -> tuple[RejectedEngine, ...]:
        """Return those among them that would take the place of `run`."""
        keys = {one.key for one in run}
        return tuple(one for one in self.out if one.key not in keys)


def judge_trials(state: RolloutState) -> Trials:
    """Sort the pods' troubles into engines that are wrong and nodes that are; forget what no longer holds."""
    wanted = {one.servable.key for one in state.wanted}
    served = {one.key for one in state.served}
    excluded = {(one.name, one.key or ""): one for one in state.excluded if _still_holds(one, state)}
    rejected = {one.key: one for one in state.rejected if one.key in wanted | served}
    running = state.running
    for pod in running.troubles if running is not None else ():
        if pod.trouble is Trouble.REFUSED_NODE:
            excluded[pod.node, pod.engine_key or ""] = _exclusion(pod, state)
            continue
        keys = _keys_of(pod, running)
        # Engines that served before and crash now: the node's affair or the kubelet's, and there is no way back.
        if pod.trouble is Trouble.REFUSED_ENGINE or not served.issuperset(keys):
            for key in keys:
                found = RejectedEngine(key=key, reason=pod.reason, message=pod.message[:MAX_MESSAGE], node=pod.node)
                rejected.setdefault(key, found)
    ordered = tuple(excluded[key] for key in sorted(excluded, key=lambda key: (natural_order(key[0]), key[1])))
    kept = tuple(rejected.values())
    lapsed = (one for one in kept if one.key in served - wanted)
    return Trials(kept, ordered, (*_out(state.wanted, kept, ordered), *lapsed))


def _still_holds(one: ExcludedNode, state: RolloutState) -> bool:
    """Whether the node is as it was when it refused; one that is gone for a moment is not forgiven for it."""
    return state.nodes.get(one.name, one.fingerprint) == one.fingerprint


def _exclusion(pod: PodTrouble, state: RolloutState) -> ExcludedNode:
    return ExcludedNode(
        name=pod.node,
        reason=pod.reason,
        message=pod.message[:MAX_MESSAGE],
        fingerprint=state.nodes.get(pod.node, ""),
        key=pod.engine_key,
    )


def _keys_of(pod: PodTrouble, running: RunningPods | None) -> tuple[str, ...]:
    if pod.engine_key is not None:
        return (pod.engine_key,)
    return tuple(one.key for one in running.engines) if running is not None else ()


def _out(
    wanted: tuple[WantedEngine, ...], rejected: tuple[RejectedEngine, ...], excluded: tuple[ExcludedNode, ...]
) -> Iterator[RejectedEngine]:
    for one in wanted:
        key = one.servable.key
        named = next((rejection for rejection in rejected if rejection.key == key), None)
        if named is not None:
            yield named
            continue
        refusing = {node.name: node for node in excluded if node.key in {None, key} and node.name in one.nodes}
        if refusing and (len(refusing) == len(set(one.nodes)) or len(refusing) >= _MOST_REFUSING_NODES):
            first = next(iter(refusing.values()))
            count = f"{len(refusing)} of its {len(set(one.nodes))} nodes refused it; " if len(refusing) > 1 else ""
            yield RejectedEngine(
                key=key, reason=first.reason, message=f"{count}{first.message}"[:MAX_MESSAGE], node=first.name
            )
