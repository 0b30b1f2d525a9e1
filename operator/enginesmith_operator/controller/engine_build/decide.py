"""Decides the status and the next step of an EngineBuild from the state of its Job and pods. Pure.

no Job ──> create it                     Pending: waits for a GPU, an image, a queue, other builds of the namespace
running ──> progress                     Building
its pod ended ──> termination message    Succeeded, or once more where the Job is complete and the message was lost
failed ──> why, last lines               Failed; final until the object is deleted
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from enginesmith_contract.exit_codes import ExitCode
from enginesmith_operator.api.conditions import READY
from enginesmith_operator.api.engine_build import BuildPhase, EngineBuild, EngineBuildStatus
from enginesmith_operator.controller.engine_build.results import (
    DEADLINE,
    KEPT_ALIVE,
    read_failure,
    read_progress,
    read_result,
    success_text,
)
from enginesmith_operator.controller.engine_build.snapshot import (
    EARLY_PROGRESS_SECONDS,
    PROGRESS_SECONDS,
    BuildSnapshot,
)
from enginesmith_operator.controller.engine_build.status import (
    Findings,
    build_status,
    not_ready,
    phase_events,
    scheduled_observation,
    waiting_observation,
)
from enginesmith_operator.controller.engine_build.steps import last_step, metric_failure
from enginesmith_operator.controller.shared.conditions import Observation
from enginesmith_operator.controller.shared.decision import EventNote
from enginesmith_operator.controller.shared.pod_facts import JobFacts, seconds_kept_alive
from enginesmith_operator.objects.metric_steps import METRIC_CONTAINER

__all__ = ["BuildDecision", "decide_build", "refused_build"]

_EARLY_SECONDS: Final = 60.0
"""How long a build counts as early. Its first stages take seconds, the later ones minutes."""
_FOREIGN_JOB_SECONDS: Final = 60.0
_QUEUE_SECONDS: Final = 5.0
"""How often a waiting build checks whether it may start: no event of another build wakes it."""


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


def decide_build(snapshot: BuildSnapshot) -> BuildDecision:
    """Return the status and the next step of an EngineBuild."""
    if snapshot.has_ended:
        # The EngineBuild keeps the result. Its Job is deleted after a while and is not created again.
        return _let_go(snapshot)
    job = snapshot.job
    if job is None and snapshot.held_back:
        held = snapshot.held_back
        queued = Findings(phase=BuildPhase.PENDING, ready=not_ready(held.reason, held.message))
        return _decision(snapshot, queued, requeue_seconds=_QUEUE_SECONDS)
    if job is None:
        waiting = Findings(phase=BuildPhase.PENDING, ready=not_ready("JobCreated", "the Job was created"))
        return _decision(snapshot, waiting, create_job=True)
    if not snapshot.is_job_ours:
        found = Findings(phase=BuildPhase.PENDING, ready=_name_taken(snapshot.build, job))
        return _decision(replace(snapshot, job=None, pods=()), found, requeue_seconds=_FOREIGN_JOB_SECONDS)
    if job.succeeded or (not job.failure and read_result(snapshot.pods) is not None):
        # A Job is complete about two seconds after its pod has written its termination message.
        return _decide_complete(snapshot, job)
    return _decide_failed(snapshot, job) if job.failure else _decide_unfinished(snapshot, job)


def _decide_unfinished(snapshot: BuildSnapshot, job: JobFacts) -> BuildDecision:
    left = seconds_kept_alive(snapshot.pods, last_step(snapshot.build), snapshot.now)
    if left is not None and left <= 0:
        return _decide_kept_alive(snapshot, job)
    decision = _decide_running(snapshot)
    return decision if left is None else replace(decision, requeue_seconds=left)


def _let_go(snapshot: BuildSnapshot) -> BuildDecision:
    """Delete the Job of a build that has ended, where another container keeps its pod, and with it the GPU."""
    job, status = snapshot.job, snapshot.build.status
    if job is None or not snapshot.is_job_ours or job.is_finished or job.is_terminating:
        return BuildDecision(status=status)
    left = seconds_kept_alive(snapshot.pods, last_step(snapshot.build), snapshot.now)
    if left is None or left > 0:
        return BuildDecision(status=status, requeue_seconds=left)
    return BuildDecision(status=status, delete_job=job.uid)


def _decide_kept_alive(snapshot: BuildSnapshot, job: JobFacts) -> BuildDecision:
    """Decide for a pod whose builder ended without reporting success: the Job itself would never notice."""
    container = snapshot.container
    ending = container.ending if container is not None else None
    if ending is None or ending.exit_code == ExitCode.OK:
        return _decide_complete(snapshot, job)
    return _decide_failed(snapshot, replace(job, failure=KEPT_ALIVE))


def _name_taken(build: EngineBuild, job: JobFacts) -> Observation:
    name = build.metadata.name
    if job.controller_name == f"{build.kind} {name}":
        return not_ready("Starting", "the Job of an earlier build with this name is deleted first")
    return not_ready("NameTaken", f"the Job {name} belongs to another owner: delete it, or rename the EngineBuild")


def refused_build(snapshot: BuildSnapshot, sentence: str) -> BuildDecision:
    """Return the decision for an EngineBuild whose Job the API server refuses (quota, policy, missing permission)."""
    return _decision(snapshot, Findings(phase=BuildPhase.PENDING, ready=not_ready("Refused", sentence)))


def _decide_complete(snapshot: BuildSnapshot, job: JobFacts) -> BuildDecision:
    result = read_result(snapshot.pods)
    if result is None:
        # Another Job finds the engine in the store and reports it again.
        lost = not_ready("ResultLost", "the result is read again")
        return _decision(snapshot, Findings(phase=snapshot.build.status.phase, ready=lost), delete_job=job.uid)
    ready = Observation.of(READY, True, "Stored", success_text(result))
    done = Findings(phase=BuildPhase.SUCCEEDED, ready=ready, scheduled=scheduled_observation(snapshot), result=result)
    return _decision(snapshot, done)


def _decide_failed(snapshot: BuildSnapshot, job: JobFacts) -> BuildDecision:
    scheduled = scheduled_observation(snapshot)
    if job.failure == DEADLINE and snapshot.build.status.started_at is None and snapshot.first_start is None:
        # A Job's deadline also runs while its pod waits. A build that never began waits again.
        still = Findings(phase=BuildPhase.PENDING, ready=waiting_observation(snapshot), scheduled=scheduled)
        return _decision(snapshot, still, delete_job=job.uid)
    failure = metric_failure(snapshot.container, snapshot.log) or read_failure(snapshot.pods, job, snapshot.log)
    ready = Observation.of(READY, False, failure.reason, failure.message)
    failed = Findings(phase=BuildPhase.FAILED, ready=ready, scheduled=scheduled, failure=failure)
    return _decision(snapshot, failed)


def _decide_running(snapshot: BuildSnapshot) -> BuildDecision:
    container = snapshot.container
    if container is None or not (container.running_since or snapshot.is_between_steps):
        pending = Findings(
            phase=BuildPhase.PENDING, ready=waiting_observation(snapshot), scheduled=scheduled_observation(snapshot)
        )
        return _decision(snapshot, pending)
    progress = read_progress(snapshot.log) or snapshot.build.status.progress
    if container.name == METRIC_CONTAINER:
        progress = "the user's metric"
    node = snapshot.pods[-1].node
    ready = Observation.of(READY, False, "Building", f"builds on {node}" + (f": {progress}" if progress else ""))
    building = Findings(
        phase=BuildPhase.BUILDING, ready=ready, scheduled=scheduled_observation(snapshot), progress=progress
    )
    since = datetime.fromisoformat(container.running_since) if container.running_since else snapshot.now
    age = (snapshot.now - since).total_seconds()
    pause = EARLY_PROGRESS_SECONDS if age < _EARLY_SECONDS else PROGRESS_SECONDS
    return _decision(snapshot, building, requeue_seconds=pause)


def _decision(
    snapshot: BuildSnapshot,
    found: Findings,
    *,
    create_job: bool = False,
    delete_job: str = "",
    requeue_seconds: float | None = None,
) -> BuildDecision:
    status = build_status(snapshot, found)
    return BuildDecision(
        status=status,
        create_job=create_job,
        delete_job=delete_job,
        events=phase_events(snapshot.build.status, status, found.ready.message),
        requeue_seconds=requeue_seconds,
    )
