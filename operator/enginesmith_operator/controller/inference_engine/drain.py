"""Drains that the budget would block forever: serving pods on cordoned nodes that no other node can replace. Pure.

`kubectl drain` cordons the node and evicts one pod after the other, as the budget allows: the next one when the
replacement of the first is Ready. If the replacement fits no node, the budget allows the eviction of the pods on
cordoned nodes, and of no others; before that, a standby has time to take over.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from enginesmith_operator.controller.inference_engine.rollout_input import TargetView
from enginesmith_operator.controller.shared.pod_facts import PodFacts
from enginesmith_operator.objects.labels import TEMPLATE
from enginesmith_operator.planning.rollout import PATIENCE_SECONDS

__all__ = ["Drain", "find_drain"]

_TAKE_OVER_SECONDS: Final = 300.0
"""How long a drain waits for a standby that starts."""
_SHOWN: Final = 3


@dataclass(frozen=True, kw_only=True)
class Drain:
    """What is to be done for a drain.

    Attributes:
        nodes: cordoned ones with pods that serve.
        unavailable: how many pods the budget lets be unavailable; None: a standby is waited for, the budget stays.
        look_again_seconds: after which time alone changes this; None: never.
        message: of the target while the budget makes way; empty otherwise.
    """

    nodes: tuple[str, ...]
    unavailable: int | None = None
    look_again_seconds: float | None = None
    message: str = ""


def find_drain(view: TargetView) -> Drain | None:
    """Return what a drain needs; None: no pod is on a cordoned node, or another one can still replace it."""
    live = view.live
    cordoned = {one.name for one in view.snapshot.observed.nodes if one.is_cordoned}
    ready = [pod for pod in view.pods if pod.is_ready and not pod.is_terminating]
    leaving = [pod for pod in ready if pod.node in cordoned]
    since = _stuck_since(view)
    if live is None or not leaving or since is None:
        return None
    nodes = tuple(sorted({pod.node for pod in leaving}))
    left = _TAKE_OVER_SECONDS - (view.snapshot.now - since).total_seconds()
    if left > 0 and _standby_starts(view):
        return Drain(nodes=nodes, look_again_seconds=left)
    named = ", ".join(nodes[:_SHOWN]) + (", ..." if len(nodes) > _SHOWN else "")
    what = f"node {named} is cordoned" if len(nodes) == 1 else f"nodes {named} are cordoned"
    return Drain(
        nodes=nodes,
        unavailable=max(live.replicas - (len(ready) - len(leaving)), 1),
        message=(
            f"{len(ready)} of {live.replicas} replicas are ready; {what} and no other node has room for one, so the "
            "replicas there may be evicted; uncordon it, or add a node"
        ),
    )


def _stuck_since(view: TargetView) -> datetime | None:
    """Return since when a replica that cannot start has been missing; None: none is missing, or one may still start."""
    live, now = view.live, view.snapshot.now
    if live is None:
        return None
    template = live.template_labels.get(TEMPLATE)
    waiting = [pod for pod in view.pods if pod.labels.get(TEMPLATE) == template and not pod.is_ready]
    waiting = [pod for pod in waiting if not (pod.is_terminating or pod.is_finished)]
    stuck = [since for pod in waiting if (since := _cannot_start_since(pod, now)) is not None]
    if stuck:
        return min(stuck)
    return now if live.refused and not waiting else None


def _cannot_start_since(pod: PodFacts, now: datetime) -> datetime | None:
    if pod.stuck:
        return datetime.fromisoformat(pod.created_at)
    if not pod.unschedulable_since:
        return None
    since = datetime.fromisoformat(pod.unschedulable_since)
    return since if (now - since).total_seconds() >= PATIENCE_SECONDS else None


def _standby_starts(view: TargetView) -> bool:
    """Whether a standby after this target is starting and does not serve yet."""
    snapshot = view.snapshot
    names = [one.name for one in snapshot.engine.spec.targets]
    for target in snapshot.engine.spec.targets[names.index(view.target.name) + 1 :]:
        found = snapshot.deployments.get(target.name)
        if not target.standby or found is None or found.replicas == 0 or found.ready_replicas > 0:
            continue
        pods = snapshot.pods.get(target.name, ())
        if not found.refused and not any(_cannot_start_since(pod, snapshot.now) for pod in pods):
            return True
    return False
