"""What a pod waits for that does not run yet, in one reason and one line that stay the same while it waits."""

import re
from collections.abc import Iterable
from typing import Final

from enginesmith_operator.api.conditions import StatusCondition
from enginesmith_operator.controller.pod_facts import PodFacts

__all__ = ["serving_obstacle", "waiting_reason"]

_MISSING_CLAIM: Final = re.compile(r'persistentvolumeclaim "([^"]+)" not found')
_PULL_ERROR: Final = "ErrImagePull: "
_NOT_FOUND: Final = " not found"
_IMAGE_REMEDY: Final = (
    "push it, name its registry's Secret in spec.podTemplate.imagePullSecrets, or have the toolchain catalog corrected"
)
_STUCK_REASONS: Final = frozenset({"ImageCannotBePulled", "ContainerCannotStart"})


def waiting_reason(
    pods: tuple[PodFacts, ...], container: str, before: StatusCondition | None, *, resource: str | None = None
) -> tuple[str, str] | None:
    """Return reason and message; None: the container runs.

    Args:
        pods: the oldest first; the newest counts.
        container: whose start is waited for.
        before: the condition that was said last.
        resource: the GPU resource that the pod asks for; None: none.
    """
    pod = pods[-1] if pods else None
    found = pod.container(container) if pod is not None else None
    if found is not None and (found.running_since or found.latest_ending is not None):
        return None
    if pod is not None and pod.unschedulable:
        return _unschedulable(pod.unschedulable, resource)
    if pod is not None and pod.stuck:
        return _stuck(pod.stuck)
    if before is not None and before.reason in _STUCK_REASONS:
        # Between two attempts kubelet says nothing; that is no news.
        return before.reason, before.message
    if pod is not None and pod.node:
        return "Starting", f"the pod starts on {pod.node}"
    # One line for both, or each build would have one more to write: a quota shows in the Job's events alone.
    return "Starting", "the pod waits for a node; if no pod comes, the events of its Job say why"


def serving_obstacle(pods: Iterable[PodFacts], reason: str, message: str) -> tuple[str, str]:
    """Return reason and message of what keeps a serving pod from starting; empty: nothing does, or a GPU is waited for.

    Args:
        pods: of the newest template.
        reason: that was said last.
        message: that was said last.
    """
    waiting = [pod for pod in pods if not pod.is_ready and not pod.is_terminating]
    for pod in waiting:
        if pod.stuck:
            return _stuck(pod.stuck)
        if pod.unschedulable:
            return _unschedulable(pod.unschedulable, None)
    # Between two attempts kubelet says nothing; that is no news.
    silent = reason in _STUCK_REASONS and any(pod.node and not _has_begun(pod) for pod in waiting)
    return (reason, message) if silent else ("", "")


def _has_begun(pod: PodFacts) -> bool:
    return any(one.running_since or one.latest_ending is not None for one in pod.containers)


def _unschedulable(words: str, resource: str | None) -> tuple[str, str]:
    claim = _MISSING_CLAIM.search(words)
    if claim is not None:
        return "ClaimMissing", f"the PersistentVolumeClaim {claim[1]} is not there; create it, and the pod goes on"
    if resource is None:
        return "Unschedulable", words
    return "WaitingForGPU", f"no node has a free {resource}: {words}"


def _stuck(words: str) -> tuple[str, str]:
    """Say why a container cannot start, and what helps; kubelet's two ways to say that of an image become one."""
    reason, _, text = words.partition(": ")
    if "Image" in reason:
        cause = text.partition(_PULL_ERROR)[2] or text
        return "ImageCannotBePulled", f"its image cannot be pulled: {cause}; {_IMAGE_REMEDY}"
    if text.endswith(_NOT_FOUND):
        return "ContainerCannotStart", f"the pod cannot start: {text}; create it, and the pod goes on"
    return "ContainerCannotStart", words
