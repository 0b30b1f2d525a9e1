"""Preparation Jobs to delete: for another request, with another pod, or kept alive by a sidecar.

| a Job that has not ended and | then |
|---|---|
| is of a request that nothing asks for any more | it goes at once, and its pod with it |
| has reported, and a sidecar keeps its pod | it goes after a moment |
| waits, or has failed, and its pod would be another one now (resources, account, image) | it goes, and is made again |
"""

from collections.abc import Iterator

from enginesmith_operator.controller.inference_engine.snapshot import EngineSnapshot
from enginesmith_operator.controller.shared.pod_facts import JobFacts, seconds_kept_alive
from enginesmith_operator.objects.preparation_job import PREPARATION_CONTAINER

__all__ = ["job_to_replace", "jobs_to_end", "seconds_to_end"]


def job_to_replace(snapshot: EngineSnapshot, current: str, template: str) -> JobFacts | None:
    """Return the Job of what is wanted now where its pod would be another one and does no work; None: it is right.

    Args:
        snapshot: of the engine.
        current: name of the Job.
        template: hash of the pod that would be made now.
    """
    job = snapshot.preparation_jobs.get(current)
    if job is None or job.is_terminating or job.succeeded or job.template in {"", template}:
        return None
    pods = snapshot.preparation_pods.get(job.name, ())
    is_idle = bool(job.failure) or not any(pod.has_begun and not pod.is_finished for pod in pods)
    return job if is_idle else None


def jobs_to_end(snapshot: EngineSnapshot, current: str, *, is_known: bool) -> Iterator[JobFacts]:
    """Give the Jobs to delete.

    Args:
        snapshot: of the engine.
        current: name of the Job of what is wanted now.
        is_known: whether the result of the current one is known.
    """
    for job in snapshot.preparation_jobs.values():
        if job.is_terminating or job.is_finished:
            continue
        if job.name != current or (is_known and _is_over(snapshot, job)):
            yield job


def seconds_to_end(snapshot: EngineSnapshot) -> float | None:
    """Return the seconds until a Job goes whose pod only a sidecar keeps; None: there is none."""
    waits = [
        left
        for name, job in snapshot.preparation_jobs.items()
        if not (job.is_finished or job.is_terminating)
        and (left := seconds_kept_alive(snapshot.preparation_pods.get(name, ()), PREPARATION_CONTAINER, snapshot.now))
    ]
    return min((left for left in waits if left > 0), default=None)


def _is_over(snapshot: EngineSnapshot, job: JobFacts) -> bool:
    left = seconds_kept_alive(snapshot.preparation_pods.get(job.name, ()), PREPARATION_CONTAINER, snapshot.now)
    return left is not None and left <= 0
