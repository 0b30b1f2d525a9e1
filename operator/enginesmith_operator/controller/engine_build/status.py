"""Turns the findings of a pass over an EngineBuild into its status and events. Pure."""

from dataclasses import dataclass
from datetime import datetime

from enginesmith_contract.waiting_builds import PREPARATION_LATE
from enginesmith_operator.api.conditions import READY, SCHEDULED
from enginesmith_operator.api.engine_build import BuildFailure, BuildPhase, BuildResult, EngineBuildStatus
from enginesmith_operator.controller.engine_build.results import LONGEST_REASON, last_failure
from enginesmith_operator.controller.engine_build.snapshot import BuildSnapshot
from enginesmith_operator.controller.shared.conditions import Observation, find_condition, observed_conditions
from enginesmith_operator.controller.shared.decision import EventNote
from enginesmith_operator.controller.shared.waiting import waiting_reason
from enginesmith_operator.objects.build_job import BUILD_CONTAINER

__all__ = [
    "Findings",
    "build_status",
    "not_ready",
    "phase_events",
    "scheduled_observation",
    "waiting_observation",
]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a pass found, before it becomes a status."""

    phase: BuildPhase
    ready: Observation
    scheduled: Observation | None = None
    result: BuildResult | None = None
    failure: BuildFailure | None = None
    progress: str = ""


def build_status(snapshot: BuildSnapshot, found: Findings) -> EngineBuildStatus:
    """Return the status; what is no longer seen of an earlier pod stays."""
    build, before, container = snapshot.build, snapshot.build.status, snapshot.container
    started_at = before.started_at or snapshot.first_start
    ended = found.phase in {BuildPhase.SUCCEEDED, BuildPhase.FAILED}
    last = container.ending.finished_at if container and container.ending else ""
    finished_at = (last or snapshot.job.finished_at or None) if ended and snapshot.job else None
    observations = [found.ready, *([found.scheduled] if found.scheduled else [])]
    return EngineBuildStatus(
        observed_generation=build.metadata.generation,
        phase=found.phase,
        progress=found.progress,
        node=(snapshot.pods[-1].node if snapshot.pods else "") or before.node,
        image=(snapshot.builder.image if snapshot.builder else "") or before.image,
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


def phase_events(before: EngineBuildStatus, after: EngineBuildStatus, message: str) -> tuple[EventNote, ...]:
    """Return the events of a change of phase."""
    if after.phase is before.phase:
        return ()
    match after.phase:
        case BuildPhase.BUILDING:
            return (EventNote(is_warning=False, reason="BuildStarted", message=f"builds on {after.node}"),)
        case BuildPhase.SUCCEEDED:
            succeeded = EventNote(is_warning=False, reason="BuildSucceeded", message=message)
            warning = after.result.warning if after.result else None
            if warning is None:
                return (succeeded,)
            return (succeeded, EventNote(is_warning=True, reason="BuildWarning", message=warning))
        case BuildPhase.FAILED:
            reason = after.failure.reason if after.failure else "BuildFailed"
            return (EventNote(is_warning=reason != PREPARATION_LATE, reason=reason, message=message),)
        case BuildPhase.PENDING:
            return ()


def waiting_observation(snapshot: BuildSnapshot) -> Observation:
    """Return what a build without a running container waits for."""
    job, pods = snapshot.job, snapshot.pods
    if job is not None and job.suspended:
        queue = snapshot.build.spec.placement.queue_name or "the program that suspended it"
        return not_ready("Queued", f"the Job is suspended and waits for {queue}")
    failed = last_failure(pods)
    if failed is not None:
        return not_ready(failed[0][:LONGEST_REASON], f"an attempt failed: {failed[1]}")
    before = find_condition(snapshot.build.status.conditions, READY)
    resource = snapshot.build.spec.placement.gpu_resource
    refused = job.refused if job is not None else ""
    step = snapshot.container
    found = waiting_reason(
        pods, BUILD_CONTAINER if step is None else step.name, before, resource=resource, refused=refused
    )
    reason, message = found or ("Starting", "it starts")
    return not_ready(reason, message)


def not_ready(reason: str, message: str) -> Observation:
    """Return a Ready condition that is false."""
    return Observation.of(READY, False, reason, message)


def scheduled_observation(snapshot: BuildSnapshot) -> Observation | None:
    """Return whether the newest pod has a node, None where neither is known."""
    if not snapshot.pods:
        return None
    pod = snapshot.pods[-1]
    if pod.node:
        return Observation.of(SCHEDULED, True, "Scheduled", f"on {pod.node}")
    return Observation.of(SCHEDULED, False, "Unschedulable", pod.unschedulable) if pod.unschedulable else None


def _duration(started_at: str | None, finished_at: str | None) -> float | None:
    if started_at is None or finished_at is None:
        return None
    return max((datetime.fromisoformat(finished_at) - datetime.fromisoformat(started_at)).total_seconds(), 0.0)
