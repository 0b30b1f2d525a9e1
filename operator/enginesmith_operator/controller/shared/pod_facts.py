"""Facts about a pod and a Job, read from their objects; the parse boundary for both.

PodFacts ── containers (init first): waiting for what, ended how, with which termination message
JobFacts ── finished, and why it failed
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from enginesmith_contract.text import one_line
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.objects.labels import OCCASION, TEMPLATE

__all__ = ["ContainerFacts", "Ending", "JobFacts", "PodFacts", "read_job", "read_pod", "seconds_kept_alive"]

_STUCK: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)
KEPT_ALIVE_SECONDS: Final = 10.0
"""How long the other containers of a pod may take to end after the main container."""
_OUT_OF_MEMORY: Final = "OOMKilled"
_NOT_STARTED: Final = frozenset({"StartError", "ContainerCannotRun"})
"""Reasons of a container that never ran: it has no log, and kubelet writes why into its termination message."""
_KILLED_AT_START: Final = "OOM-killed"
"""Text of runc's error if the memory limit is too low even for the process that starts the container."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a container ended.

    Attributes:
        message: the termination message.
        started_at: RFC 3339; empty where it never ran.
    """

    exit_code: int
    reason: str = ""
    message: str = ""
    started_at: str = ""
    finished_at: str = ""

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel killed it because it ran out of memory."""
        return self.reason == _OUT_OF_MEMORY or _KILLED_AT_START in self.not_started

    @property
    def not_started(self) -> str:
        """Why it could not be started, in the container runtime's words, as one line; empty: it was started."""
        return (" ".join(self.message.split()) or self.reason) if self.reason in _NOT_STARTED else ""


@dataclass(frozen=True, kw_only=True)
class ContainerFacts:
    """One container of a pod.

    Attributes:
        image: that really runs, with its digest; empty until it was pulled.
        stuck: why it cannot start (`ImagePullBackOff: ...`); empty where nothing of that kind is known.
        running_since: RFC 3339; empty where it does not run.
        ending: of this container; None: it has not ended.
        last_ending: of the one before a restart.
        is_init: whether it is an init container, or a native sidecar, which kubelet ends after the pod's containers.
    """

    name: str
    image: str = ""
    stuck: str = ""
    running_since: str = ""
    ending: Ending | None = None
    last_ending: Ending | None = None
    restarts: int = 0
    is_init: bool = False

    @property
    def latest_ending(self) -> Ending | None:
        """How it ended last, before or after a restart."""
        return self.ending or self.last_ending


@dataclass(frozen=True, kw_only=True)
class PodFacts:
    """One pod.

    Attributes:
        node: empty: not scheduled.
        unschedulable: the scheduler's words; empty where it has a node or was not looked at yet.
        unschedulable_since: RFC 3339.
        reason: of its end as a whole (`Evicted`).
        containers: init containers first.
        mount_failure: why a volume cannot be mounted, in kubelet's words; empty: nothing of that kind is known.
    """

    name: str
    uid: str
    labels: Mapping[str, str]
    created_at: str
    node: str = ""
    phase: str = "Pending"
    is_ready: bool = False
    is_terminating: bool = False
    unschedulable: str = ""
    unschedulable_since: str = ""
    reason: str = ""
    message: str = ""
    containers: tuple[ContainerFacts, ...] = ()
    mount_failure: str = ""

    def container(self, name: str) -> ContainerFacts | None:
        """Return a container by its name."""
        return next((one for one in self.containers if one.name == name), None)

    @property
    def stuck(self) -> str:
        """Why its first container that cannot start cannot; empty: none is stuck."""
        return next((one.stuck for one in self.containers if one.stuck), self.mount_failure)

    @property
    def has_begun(self) -> bool:
        """Whether one of its containers runs or has run."""
        return any(one.running_since or one.latest_ending is not None for one in self.containers)

    def kept_alive_since(self, name: str) -> str:
        """Return since when (RFC 3339) only other containers keep it running; empty: they do not.

        Args:
            name: of the container that has the pod's work. A sidecar that does not end keeps a Job's pod running
                forever.
        """
        container = self.container(name)
        if container is None or container.ending is None or self.is_finished or self.is_terminating:
            return ""
        others = any(one.running_since and not one.is_init for one in self.containers if one.name != name)
        return container.ending.finished_at if others else ""

    @property
    def is_finished(self) -> bool:
        """Whether no container of it will run any more."""
        return self.phase in {"Succeeded", "Failed"}


@dataclass(frozen=True, kw_only=True)
class JobFacts:
    """One Job.

    Attributes:
        controller_uid: of the owner that controls it; empty: none does.
        controller_name: kind and name of that owner.
        failure: reason of its failure ("BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy"); empty: none.
        finished_at: RFC 3339; empty while it runs.
        started: pods that were started so far.
        occasion: which look at the model's URI it is, of a preparation; empty: the first.
        template: hash of its pod, of a preparation; empty: another release made it.
        is_terminating: whether it is being deleted.
        refused: why no pod of it can be created, in the API server's words; empty: nothing of that kind is known.
    """

    name: str
    uid: str
    controller_uid: str = ""
    controller_name: str = ""
    succeeded: bool = False
    failure: str = ""
    failure_message: str = ""
    suspended: bool = False
    finished_at: str = ""
    started: int = 0
    occasion: str = ""
    template: str = ""
    is_terminating: bool = False
    refused: str = ""

    @property
    def is_finished(self) -> bool:
        """Whether it makes no pod any more."""
        return self.succeeded or bool(self.failure)


def seconds_kept_alive(pods: Iterable[PodFacts], container: str, now: datetime) -> float | None:
    """Return the seconds until a pod that only a sidecar keeps running is deleted; 0 or less: now; None: there is none.

    Args:
        pods: of a Job.
        container: that has their work.
        now: the time.
    """
    since = [at for pod in pods if (at := pod.kept_alive_since(container))]
    if not since:
        return None
    return KEPT_ALIVE_SECONDS - (now - datetime.fromisoformat(min(since))).total_seconds()


def read_pod(document: Json) -> PodFacts:
    """Return the facts about a pod."""
    metadata, status = document["metadata"], document.get("status") or {}
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled", {})
    waits = scheduled.get("status") == "False"
    init = [_container(one, is_init=True) for one in status.get("initContainerStatuses") or ()]
    return PodFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        labels=metadata.get("labels") or {},
        created_at=metadata.get("creationTimestamp") or "",
        node=(document.get("spec") or {}).get("nodeName") or "",
        phase=status.get("phase") or "Pending",
        is_ready=conditions.get("Ready", {}).get("status") == "True",
        is_terminating="deletionTimestamp" in metadata,
        unschedulable=one_line(str(scheduled.get("message") or "")) if waits else "",
        unschedulable_since=str(scheduled.get("lastTransitionTime") or "") if waits else "",
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        containers=(*init, *(_container(one) for one in status.get("containerStatuses") or ())),
    )


def read_job(document: Json) -> JobFacts:
    """Return the facts about a Job."""
    metadata, spec, status = document["metadata"], document.get("spec") or {}, document.get("status") or {}
    conditions = {one["type"]: one for one in status.get("conditions") or () if one.get("status") == "True"}
    failed, complete = conditions.get("Failed"), conditions.get("Complete")
    ended = complete or failed or {}
    controller: Mapping[str, Any] = next(
        (one for one in metadata.get("ownerReferences") or () if one.get("controller")), {}
    )
    return JobFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        controller_uid=str(controller.get("uid") or ""),
        controller_name=f"{controller['kind']} {controller['name']}" if controller else "",
        succeeded=complete is not None,
        failure=str((failed or {}).get("reason") or ("Failed" if failed else "")),
        failure_message=str((failed or {}).get("message") or ""),
        suspended=bool(spec.get("suspend")),
        finished_at=str(ended.get("lastTransitionTime") or ""),
        started=sum(int(status.get(key) or 0) for key in ("active", "succeeded", "failed")),
        occasion=str((metadata.get("annotations") or {}).get(OCCASION) or ""),
        template=str((metadata.get("annotations") or {}).get(TEMPLATE) or ""),
        is_terminating="deletionTimestamp" in metadata,
    )


def _container(status: Mapping[str, Any], *, is_init: bool = False) -> ContainerFacts:
    state, last = status.get("state") or {}, status.get("lastState") or {}
    waiting = state.get("waiting") or {}
    reason = str(waiting.get("reason") or "")
    text = one_line(str(waiting.get("message") or ""))
    return ContainerFacts(
        name=status["name"],
        image=str(status.get("imageID") or ""),
        stuck=(f"{reason}: {text}" if text else reason) if reason in _STUCK else "",
        running_since=str((state.get("running") or {}).get("startedAt") or ""),
        ending=_ending(state.get("terminated")),
        last_ending=_ending(last.get("terminated")),
        restarts=int(status.get("restartCount") or 0),
        is_init=is_init,
    )


def _ending(terminated: Mapping[str, Any] | None) -> Ending | None:
    if terminated is None:
        return None
    return Ending(
        exit_code=int(terminated.get("exitCode") or 0),
        reason=str(terminated.get("reason") or ""),
        message=str(terminated.get("message") or ""),
        started_at=str(terminated.get("startedAt") or ""),
        finished_at=str(terminated.get("finishedAt") or ""),
    )
