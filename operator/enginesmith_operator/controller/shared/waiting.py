"""Why a pod does not run yet, as one reason and one line that stay the same while it waits."""

import re
from collections.abc import Iterable
from typing import Final

from enginesmith_operator.api.conditions import StatusCondition
from enginesmith_operator.controller.shared.pod_facts import JobFacts, PodFacts
from enginesmith_operator.controller.shared.scheduler_words import explain_scheduling, lacks

__all__ = [
    "PODS_REFUSED",
    "refused_pods",
    "serving_obstacle",
    "unexplained_job",
    "unexplained_pod",
    "waiting_reason",
]

_MISSING_CLAIM: Final = re.compile(r'persistentvolumeclaim "([^"]+)" not found')
_MISSING_IN_VOLUME: Final = re.compile(r'((?:secret|configmap) "[^"]+") not found')
_CORDONED: Final = "were unschedulable"
"""The scheduler's words for nodes that are cordoned."""
_PULL_ERROR: Final = "ErrImagePull: "
_NOT_FOUND: Final = " not found"
_IMAGE_REMEDY: Final = (
    "push it, name its registry's Secret in spec.podTemplate.imagePullSecrets, or ask the administrator to correct the "
    "toolchain catalog"
)
_REFUSED_ACCOUNT: Final = re.compile(r"\b401\b|unauthorized|authentication required|no basic auth", re.IGNORECASE)
"""Docker Hub's `insufficient_scope` is not among them: it also stands for a repository that does not exist."""
_ACCOUNT_REMEDY: Final = (
    "the registry refuses the credentials, or requires some: correct the Secret that spec.podTemplate.imagePullSecrets "
    "names (kubectl create secret docker-registry)"
)
PODS_REFUSED: Final = "PodsRefused"
_STUCK_REASONS: Final = frozenset({"ImageCannotBePulled", "ContainerCannotStart"})
# Text that varies between attempts, or is useless: the name of the pod that was not created.
_ATTEMPT: Final = re.compile(r'^(?:Error creating: )?(?:pods "[^"]*" is forbidden: )?(?:pod rejected: )?')
_INVALID: Final = re.compile(r'^Pod "[^"]*" is invalid: ')
_MISSING_IN_POD: Final = (
    (re.compile(r'RuntimeClass "[^"]*" not found'), "create it, or change spec.podTemplate.runtimeClassName"),
    (
        re.compile(r"no PriorityClass with name"),
        "create it, or change priorityClassName of spec.podTemplate or spec.build",
    ),
    (
        re.compile(r'serviceaccount "[^"]*" not found'),
        "create it, or change spec.podTemplate.serviceAccountName",
    ),
    (
        re.compile(r"must specify "),
        "set spec.podTemplate.resources and, for preparation and builds, spec.build.resources",
    ),
    (
        re.compile(r"exceeded quota"),
        "free some of it, ask the administrator to raise the quota, or ask for fewer replicas or less",
    ),
    (
        re.compile(r"(?:maximum|minimum) \S+ usage per|limit to request ratio"),
        "set spec.podTemplate.resources and, for preparation and builds, spec.build.resources to what it allows",
    ),
    (
        re.compile(r"must be less than or equal to \S+ limit"),
        (
            "a limit that the spec does not set is the default of a LimitRange (kubectl get limitrange): set limits in "
            "spec.podTemplate.resources and, for preparation and builds, in spec.build.resources"
        ),
    ),
)
_BACK_OFF: Final = "after that, Kubernetes retries automatically within 17 minutes, because its pauses grow"
_OTHER_REMEDY: Final = "change what it forbids, or ask the administrator to change the rule"


def waiting_reason(
    pods: tuple[PodFacts, ...],
    container: str,
    before: StatusCondition | None,
    *,
    resource: str | None = None,
    refused: str = "",
) -> tuple[str, str] | None:
    """Return reason and message; None: the container runs.

    Args:
        pods: the oldest first; the newest counts.
        container: whose start is waited for.
        before: the condition that was said last.
        resource: the GPU resource that the pod asks for; None: none.
        refused: why the next pod cannot be created, in the API server's words; empty: no refusal is known.
    """
    if refused:
        return refused_pods(refused)
    pod = pods[-1] if pods else None
    found = pod.container(container) if pod is not None else None
    if found is not None and (found.running_since or found.latest_ending is not None):
        return None
    if pod is not None and (pod.unschedulable or pod.stuck):
        return _unschedulable(pod.unschedulable, resource) if pod.unschedulable else _stuck(pod.stuck)
    if before is not None and before.reason in (_STUCK_REASONS if pod is not None else {PODS_REFUSED}):
        # Between two attempts kubelet reports nothing; that is no change.
        return before.reason, before.message
    if pod is not None and pod.node:
        return "Starting", f"the pod starts on {pod.node}"
    return "Starting", "the pod waits for a node"


def refused_pods(words: str) -> tuple[str, str]:
    """Return reason and message of pods that may not be created.

    Args:
        words: of a ReplicaFailure condition or of a FailedCreate event.
    """
    cause = _INVALID.sub("it is invalid: ", _ATTEMPT.sub("", words, count=1), count=1)
    remedy = next((remedy for pattern, remedy in _MISSING_IN_POD if pattern.search(cause)), _OTHER_REMEDY)
    return PODS_REFUSED, f"no pod can be created: {cause}; {remedy}; {_BACK_OFF}"


def unexplained_job(job: JobFacts, pods: tuple[PodFacts, ...]) -> str:
    """Return the uid of a Job that has no pod where it should have one: only its events say why; empty: it has."""
    waits = not (job.is_finished or job.suspended or job.is_terminating)
    return job.uid if waits and all(pod.is_finished for pod in pods) else ""


def unexplained_pod(pods: Iterable[PodFacts]) -> str:
    """Return the uid of the first pod that has a node and does not begin: a volume that cannot be mounted is an event.

    Empty: there is none.
    """
    waiting = (one for one in pods if one.node and not (one.has_begun or one.is_finished or one.is_terminating))
    return next((one.uid for one in waiting if not any(each.stuck for each in one.containers)), "")


def serving_obstacle(
    pods: Iterable[PodFacts], reason: str, message: str, *, resource: str | None = None
) -> tuple[str, str]:
    """Return reason and message of what keeps a serving pod from starting; empty: nothing does, or a GPU is waited for.

    Args:
        pods: of the newest template.
        reason: that was said last.
        message: that was said last.
        resource: the GPU resource that the pods ask for; None: none.
    """
    waiting = [pod for pod in pods if not pod.is_ready and not pod.is_terminating]
    for pod in waiting:
        if pod.stuck:
            return _stuck(pod.stuck)
        if pod.unschedulable and not lacks(pod.unschedulable, resource):
            return _unschedulable(pod.unschedulable, None)
    # Between two attempts kubelet reports nothing; that is no change.
    silent = reason in _STUCK_REASONS and any(pod.node and not pod.has_begun for pod in waiting)
    return (reason, message) if silent else ("", "")


def _unschedulable(said: str, resource: str | None) -> tuple[str, str]:
    claim = _MISSING_CLAIM.search(said)
    if claim is not None:
        return "ClaimMissing", f"the PersistentVolumeClaim {claim[1]} does not exist; create it, and the pod continues"
    why = explain_scheduling(said, resource)
    if _CORDONED in said and not lacks(said, resource):
        return "NodeCordoned", why
    if resource is None:
        return "Unschedulable", why
    remedy = "free one or add a node, and the pod starts" if lacks(said, resource) else "add a node that fits"
    return "WaitingForGPU", f"{why}; {remedy}"


def _stuck(words: str) -> tuple[str, str]:
    """Return why a container cannot start, and what helps; kubelet's two messages for an image become one."""
    reason, _, text = words.partition(": ")
    if "Image" in reason:
        cause = text.partition(_PULL_ERROR)[2] or text
        remedy = _ACCOUNT_REMEDY if _REFUSED_ACCOUNT.search(cause) else _IMAGE_REMEDY
        return "ImageCannotBePulled", f"its image cannot be pulled: {cause}; {remedy}"
    missing = _MISSING_IN_VOLUME.search(text)
    if missing is not None:
        return "ContainerCannotStart", f"the pod cannot start: {missing[1]} not found; create it, and the pod continues"
    if text.endswith(_NOT_FOUND):
        return "ContainerCannotStart", f"the pod cannot start: {text}; create it, and the pod continues"
    return "ContainerCannotStart", words
