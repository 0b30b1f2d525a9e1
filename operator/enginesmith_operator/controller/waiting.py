"""What a pod waits for that does not run yet, in one reason and one line that stay the same while it waits."""

from typing import Final

from enginesmith_operator.api.conditions import StatusCondition
from enginesmith_operator.controller.pod_facts import PodFacts

__all__ = ["waiting_reason"]

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
        if resource is None:
            return "Unschedulable", pod.unschedulable
        return "WaitingForGPU", f"no node has a free {resource}: {pod.unschedulable}"
    if pod is not None and pod.stuck:
        return _stuck(pod.stuck)
    if before is not None and before.reason in _STUCK_REASONS:
        # Between two attempts kubelet says nothing; that is no news.
        return before.reason, before.message
    where = f"the pod starts on {pod.node}" if pod is not None and pod.node else "the pod waits for a node"
    return "Starting", where


def _stuck(words: str) -> tuple[str, str]:
    """Say why a container cannot start, and what helps; kubelet's two ways to say that of an image become one."""
    reason, _, text = words.partition(": ")
    if "Image" in reason:
        cause = text.partition(_PULL_ERROR)[2] or text
        return "ImageCannotBePulled", f"its image cannot be pulled: {cause}; {_IMAGE_REMEDY}"
    if text.endswith(_NOT_FOUND):
        return "ContainerCannotStart", f"the pod cannot start: {text}; create it, and the pod goes on"
    return "ContainerCannotStart", words
