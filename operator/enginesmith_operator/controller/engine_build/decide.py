"""What becomes of an EngineBuild: pure, from what its Job and pods say to a status and the next step.

no Job ──> create it                     Pending: waits for a GPU, an image, a queue
running ──> progress                     Building
its pod ended ──> termination message    Succeeded, or once more where the Job is complete and the message was lost
failed ──> why, last lines               Failed; final until the object is deleted
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from enginesmith_contract.exit_codes import ExitCode
from enginesmith_operator.api.conditions import READY, SCHEDULED
from enginesmith_operator.api.engine_build import (
    BuildFailure,
    BuildPhase,
    BuildResult,
    EngineBuild,
    EngineBuildStatus,
)
from enginesmith_operator.controller.engine_build.results import (
    DEADLINE,
    KEPT_ALIVE,
    LONGEST_REASON,
    last_failure,
    read_failure,
    read_progress,
    read_result,
    success_text,
)
from enginesmith_operator.controller.shared.conditions import Observation, find_condition, observed_conditions
from enginesmith_operator.controller.shared.decision import EventNote
from enginesmith_operator.controller.shared.pod_facts import ContainerFacts, JobFacts, PodFacts, seconds_kept_alive
from enginesmith_operator.controller.shared.waiting import unexplained_job, unexplained_pod, waiting_reason
from enginesmith_operator.objects.build_job import BUILD_CONTAINER

__all__ = [
    "BuildDecision",
    "BuildSnapshot",
    "LogWish",
    "decide_build",
    "log_wish",
    "refused_build",
    "unexplained",
]

PROGRESS_SECONDS: Final = 10.0
_FOREIGN_JOB_SECONDS: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class BuildSnapshot:
    """What a pass over one EngineBuild looks at.

    Attributes:
        build: with the status that it had; a fresh one where that could not be read.
        job: with the build's name, also if another owner has it.
        pods: of the Job, the oldest first.
        log: last lines of the container's log; empty where none was asked for.
    """

    build: EngineBuild
    job: JobFacts | None
    pods: tuple[PodFacts, ...] = ()
    log: tuple[str, ...] = ()
    now: datetime

    @property
    def is_job_ours(self) -> bool:
        """Return whether the Job belongs to this very build."""
        return self.job is not None and self.job.controller_uid == self.build.metadata.uid


@dataclass(frozen=True, kw_only=True)
class BuildDecision:
    """What is to be done.

    Attributes:
        create_job: whether the Job is to be made.
        delete_job: uid of a Job that is to go, so that the next pass makes another; empty: none.
        requeue_seconds: when to look again although nothing was heard; None: never.
    """

    status: EngineBuildStatus
    create_job: bool = False
    delete_job: str = ""
    events: tuple[EventNote, ...] = ()
    requeue_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class LogWish:
    """A log that would help to decide. `is_final`: the reason of a failure, and no progress."""

    pod: str
    lines: int
    is_final: bool


@dataclass(frozen=True, kw_only=True)
class _Findings:
    """What a pass found, before it becomes a status."""

    phase: BuildPhase
    ready: Observation
    scheduled: Observation | None = None
    result: BuildResult | None = None
    failure: BuildFailure | None = None
    progress: str = ""


def log_wish(snapshot: BuildSnapshot) -> LogWish | None:
    """Return which log helps to decide this snapshot: one line of progress, or the last ones of a failure."""
    if _has_ended(snapshot.build.status) or snapshot.job is None or not snapshot.is_job_ours:
        return None
    if not snapshot.pods:
        return None
    pod = snapshot.pods[-1]
    container = pod.container(BUILD_CONTAINER)
    if container is None:
        return None
    if container.running_since:
        return LogWish(pod=pod.name, lines=1, is_final=False)
    is_over = snapshot.job.failure or pod.kept_alive_since(BUILD_CONTAINER)
    if is_over and container.latest_ending is not None:
        return LogWish(pod=pod.name, lines=20, is_final=True)
    return None


def unexplained(snapshot: BuildSnapshot) -> tuple[str, ...]:
    """Return the uids of what waits without a word in its status: a Job without a pod, a pod that does not begin."""
    if _has_ended(snapshot.build.status) or snapshot.job is None or not snapshot.is_job_ours:
        return ()
    return unexplained_job(snapshot.job, snapshot.pods), unexplained_pod(snapshot.pods)


def decide_build(snapshot: BuildSnapshot) -> BuildDecision:
    """Return what becomes of an EngineBuild."""
    if _has_ended(snapshot.build.status):
        # The object is the memory: its Job goes after a while, and is not made again.
        return _let_go(snapshot)
    job = snapshot.job
    if job is None:
        waiting = _Findings(phase=BuildPhase.PENDING, ready=_not_ready("JobCreated", "the Job was created"))
        return _decision(snapshot, waiting, create_job=True)
    if not snapshot.is_job_ours:
        found = _Findings(phase=BuildPhase.PENDING, ready=_name_taken(snapshot.build, job))
        return _decision(replace(snapshot, job=None, pods=()), found, requeue_seconds=_FOREIGN_JOB_SECONDS)
    if job.succeeded or (not job.failure and read_result(snapshot.pods) is not None):
        # A Job is complete about two seconds after its pod has written its termination message.
        return _decide_complete(snapshot, job)
    return _decide_failed(snapshot, job) if job.failure else _decide_unfinished(snapshot, job)


def _decide_unfinished(snapshot: BuildSnapshot, job: JobFacts) -> BuildDecision:
    left = seconds_kept_alive(snapshot.pods, BUILD_CONTAINER, snapshot.now)
    if left is not None and left <= 0:
        return _decide_kept_alive(snapshot, job)
    decision = _decide_running(snapshot)
    return decision if left is None else replace(decision, requeue_seconds=left)


def _let_go(snapshot: BuildSnapshot) -> BuildDecision:
    """Delete the Job of a build that has ended, where another container keeps its pod, and with it the GPU."""
    job, status = snapshot.job, snapshot.build.status
    if job is None or not snapshot.is_job_ours or job.is_finished or job.is_terminating:
        return BuildDecision(status=status)
    left = seconds_kept_alive(snapshot.pods, BUILD_CONTAINER, snapshot.now)
    if left is None or left > 0:
        return BuildDecision(status=status, requeue_seconds=left)
    return BuildDecision(status=status, delete_job=job.uid)


def _decide_kept_alive(snapshot: BuildSnapshot, job: JobFacts) -> BuildDecision:
    """Decide for a pod whose builder ended and did not say that it succeeded: the Job itself would never notice."""
    container = _container(snapshot.pods)
    ending = container.ending if container is not None else None
    if ending is None or ending.exit_code == ExitCode.OK:
        return _decide_complete(snapshot, job)
    return _decide_failed(snapshot, replace(job, failure=KEPT_ALIVE))


def _name_taken(build: EngineBuild, job: JobFacts) -> Observation:
    name = build.metadata.name
    if job.controller_name == f"{build.kind} {name}":
        return _not_ready("Starting", "the Job of an earlier build of this name goes first")
    return _not_ready("NameTaken", f"a Job named {name} is there and is not ours: delete it or rename it")


def refused_build(snapshot: BuildSnapshot, sentence: str) -> BuildDecision:
    """Return what becomes of an EngineBuild whose Job the API server refuses: a quota, a policy, a missing right."""
    return _decision(snapshot, _Findings(phase=BuildPhase.PENDING, ready=_not_ready("Refused", sentence)))


def _has_ended(status: EngineBuildStatus) -> bool:
    """Whether a status tells how the build ended; one that says so without telling how was garbled."""
    match status.phase:
        case BuildPhase.SUCCEEDED:
            return status.result is not None
        case BuildPhase.FAILED:
            return status.failure is not None
        case BuildPhase.PENDING | BuildPhase.BUILDING:
            return False


def _decide_complete(snapshot: BuildSnapshot, job: JobFacts) -> BuildDecision:
    result = read_result(snapshot.pods)
    if result is None:
        # Another Job finds the engine in the store and says so again.
        lost = _not_ready("ResultLost", "the result is read once more")
        return _decision(snapshot, _Findings(phase=snapshot.build.status.phase, ready=lost), delete_job=job.uid)
    ready = Observation.of(READY, True, "Stored", success_text(result))
    done = _Findings(phase=BuildPhase.SUCCEEDED, ready=ready, scheduled=_scheduled(snapshot), result=result)
    return _decision(snapshot, done)


def _decide_failed(snapshot: BuildSnapshot, job: JobFacts) -> BuildDecision:
    scheduled = _scheduled(snapshot)
    if job.failure == DEADLINE and snapshot.build.status.started_at is None and _first_start(snapshot.pods) is None:
        # A Job's deadline also counts while its pod waits; a build that never began waits again.
        still = _Findings(phase=BuildPhase.PENDING, ready=_waiting(snapshot), scheduled=scheduled)
        return _decision(snapshot, still, delete_job=job.uid)
    failure = read_failure(snapshot.pods, job, snapshot.log)
    ready = Observation.of(READY, False, failure.reason, failure.message)
    failed = _Findings(phase=BuildPhase.FAILED, ready=ready, scheduled=scheduled, failure=failure)
    return _decision(snapshot, failed)


def _decide_running(snapshot: BuildSnapshot) -> BuildDecision:
    container = _container(snapshot.pods)
    if container is None or not container.running_since:
        pending = _Findings(phase=BuildPhase.PENDING, ready=_waiting(snapshot), scheduled=_scheduled(snapshot))
        return _decision(snapshot, pending)
    progress = read_progress(snapshot.log) or snapshot.build.status.progress
    node = snapshot.pods[-1].node
    ready = Observation.of(READY, False, "Building", f"builds on {node}" + (f": {progress}" if progress else ""))
    building = _Findings(phase=BuildPhase.BUILDING, ready=ready, scheduled=_scheduled(snapshot), progress=progress)
    return _decision(snapshot, building, requeue_seconds=PROGRESS_SECONDS)


def _decision(
    snapshot: BuildSnapshot,
    found: _Findings,
    *,
    create_job: bool = False,
    delete_job: str = "",
    requeue_seconds: float | None = None,
) -> BuildDecision:
    build, before = snapshot.build, snapshot.build.status
    pod = snapshot.pods[-1] if snapshot.pods else None
    container = _container(snapshot.pods)
    started_at = before.started_at or _first_start(snapshot.pods)
    ended = found.phase in {BuildPhase.SUCCEEDED, BuildPhase.FAILED}
    last = container.ending.finished_at if container and container.ending else ""
    finished_at = (last or snapshot.job.finished_at or None) if ended and snapshot.job else None
    observations = [found.ready, *([found.scheduled] if found.scheduled else [])]
    status = EngineBuildStatus(
        observed_generation=build.metadata.generation,
        phase=found.phase,
        progress=found.progress,
        node=(pod.node if pod else "") or before.node,
        image=(container.image if container else "") or before.image,
        attempts=max(before.attempts, snapshot.job.started if snapshot.job else 0),
        started_at=started_at,
        finished_at=finished_at,
        duration_seconds=_duration(started_at, finished_at),
        result=found.result,
        failure=found.failure,
        conditions=observed_conditions(
            observations, before.conditions, generation=build.metadata.generation, now=snapshot.now
        ),
    )
    return BuildDecision(
        status=status,
        create_job=create_job,
        delete_job=delete_job,
        events=_events(before, status, found.ready.message),
        requeue_seconds=requeue_seconds,
    )


def _events(before: EngineBuildStatus, after: EngineBuildStatus, message: str) -> tuple[EventNote, ...]:
    if after.phase is before.phase:
        return ()
    match after.phase:
        case BuildPhase.BUILDING:
            return (EventNote(is_warning=False, reason="BuildStarted", message=f"builds on {after.node}"),)
        case BuildPhase.SUCCEEDED:
            return (EventNote(is_warning=False, reason="BuildSucceeded", message=message),)
        case BuildPhase.FAILED:
            reason = after.failure.reason if after.failure else "BuildFailed"
            return (EventNote(is_warning=True, reason=reason, message=message),)
        case BuildPhase.PENDING:
            return ()


def _waiting(snapshot: BuildSnapshot) -> Observation:
    """Say what a build waits for that has no running container."""
    job, pods = snapshot.job, snapshot.pods
    if job is not None and job.suspended:
        queue = snapshot.build.spec.placement.queue_name or "the program that suspended it"
        return _not_ready("Queued", f"the Job is suspended and waits for {queue}")
    failed = last_failure(pods)
    if failed is not None:
        return _not_ready(failed[0][:LONGEST_REASON], f"an attempt failed: {failed[1]}")
    before = find_condition(snapshot.build.status.conditions, READY)
    resource = snapshot.build.spec.placement.gpu_resource
    refused = job.refused if job is not None else ""
    found = waiting_reason(pods, BUILD_CONTAINER, before, resource=resource, refused=refused)
    reason, message = found or ("Starting", "it starts")
    return _not_ready(reason, message)


def _not_ready(reason: str, message: str) -> Observation:
    return Observation.of(READY, False, reason, message)


def _scheduled(snapshot: BuildSnapshot) -> Observation | None:
    if not snapshot.pods:
        return None
    pod = snapshot.pods[-1]
    if pod.node:
        return Observation.of(SCHEDULED, True, "Scheduled", f"on {pod.node}")
    return Observation.of(SCHEDULED, False, "Unschedulable", pod.unschedulable) if pod.unschedulable else None


def _container(pods: tuple[PodFacts, ...]) -> ContainerFacts | None:
    return pods[-1].container(BUILD_CONTAINER) if pods else None


def _first_start(pods: tuple[PodFacts, ...]) -> str | None:
    starts = [
        start
        for pod in pods
        if (container := pod.container(BUILD_CONTAINER)) is not None
        for start in (container.running_since, container.latest_ending.started_at if container.latest_ending else "")
        if start
    ]
    return min(starts, default=None)


def _duration(started_at: str | None, finished_at: str | None) -> float | None:
    if started_at is None or finished_at is None:
        return None
    return max((datetime.fromisoformat(finished_at) - datetime.fromisoformat(started_at)).total_seconds(), 0.0)
