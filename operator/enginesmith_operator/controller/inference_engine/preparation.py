"""The first step of a pass: what is known about the model, and whether to start its preparation. Pure.

status remembers this very request ──> known, nothing to do
its pod reported, or its Job ended ──> the report, or why it failed; tried again after a growing pause: models appear
no Job ──> make one
"""

from dataclasses import dataclass, replace
from datetime import datetime
from math import floor
from typing import Final

from pydantic import ValidationError

from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.failure import Failure
from enginesmith_contract.preparation_job import PreparationJobRequest, PreparationReport
from enginesmith_operator.api.conditions import PREPARED, ConditionStatus
from enginesmith_operator.api.engine_status import (
    ModelStatus,
    PreparationPhase,
    PreparationStatus,
    StoredEngine,
)
from enginesmith_operator.controller.inference_engine.snapshot import ChosenStore, EngineSnapshot
from enginesmith_operator.controller.shared.conditions import Observation, find_condition
from enginesmith_operator.controller.shared.pod_facts import JobFacts, PodFacts, seconds_kept_alive
from enginesmith_operator.controller.shared.waiting import waiting_reason
from enginesmith_operator.objects.names import preparation_hash, preparation_job_name
from enginesmith_operator.objects.preparation_job import PREPARATION_CONTAINER
from enginesmith_operator.planning.desired import preparation_key_of, preparation_request
from enginesmith_operator.planning.snapshot import Observed

__all__ = ["PreparationStep", "resolve_preparation"]

_FIRST_RETRY_SECONDS: Final = 30.0
_LONGEST_RETRY_SECONDS: Final = 1800.0
_KEPT_ALIVE: Final = "KeptAlive"
_WHAT: Final = "the preparation failed"


@dataclass(frozen=True, kw_only=True)
class PreparationStep:
    """What is known of the model after this step.

    Attributes:
        status: to be remembered; None: nothing was prepared yet.
        model: to be remembered; None: never resolved.
        condition: Prepared.
        observed: the snapshot's, with what is known of the model.
        occasion: of the Job.
        job_wanted: whether the Job is to be made, provided that the plan has a target.
        job_deleted: uid of a Job that is to go first; empty: none.
        job_name: of the Job of this very request, whether it is there or not; empty: nothing can be prepared.
        requeue_seconds: when to look again; None: never.
    """

    status: PreparationStatus | None
    model: ModelStatus | None
    condition: Observation
    observed: Observed
    occasion: str = ""
    job_wanted: bool = False
    job_deleted: str = ""
    job_name: str = ""
    requeue_seconds: float | None = None


def resolve_preparation(snapshot: EngineSnapshot, store: ChosenStore) -> PreparationStep:
    """Return what is known about the model, and the next step of its preparation."""
    occasion, next_look = _occasion(snapshot)
    wanted = preparation_request(snapshot.engine.spec, (), snapshot.observed)
    request = PreparationJobRequest(preparation=wanted, store=store.uri)
    occasion = _unheard_occasion(snapshot, request, occasion)
    digest = preparation_hash(request, occasion)
    name = preparation_job_name(snapshot.engine.metadata.name, request, occasion)
    return replace(_resolve(snapshot, digest, occasion, name, next_look), job_name=name)


def _resolve(
    snapshot: EngineSnapshot, digest: str, occasion: str, name: str, next_look: float | None
) -> PreparationStep:
    memory = snapshot.status.preparation
    if memory is not None and memory.request == digest and _is_whole(memory):
        return _known(snapshot, memory, occasion, next_look)
    job = snapshot.preparation_jobs.get(name)
    pods = snapshot.preparation_pods.get(name, ())
    # A Job is complete some two seconds after its pod has reported.
    if job is not None and (job.succeeded or job.failure or _is_success(_report(pods))):
        return _ended(snapshot, digest, occasion, job, next_look)
    left = seconds_kept_alive(pods, PREPARATION_CONTAINER, snapshot.now)
    if job is not None and left is not None and left <= 0:
        # The Job never ends by itself, because another container keeps its pod running.
        return _ended(snapshot, digest, occasion, _as_failed(job, pods), next_look)
    before = _still_valid(snapshot, memory)
    if before is not None:
        # A second look at the same URI: until it ends, what is known stays.
        return _known(snapshot, before, occasion, None, job_wanted=job is None)
    step = _running(snapshot, digest, occasion, job, pods)
    return step if left is None else replace(step, requeue_seconds=left)


def _as_failed(job: JobFacts, pods: tuple[PodFacts, ...]) -> JobFacts:
    """Return a Job whose pod has no more work as one that failed at that time."""
    since = min(at for pod in pods if (at := pod.kept_alive_since(PREPARATION_CONTAINER)))
    return replace(job, failure=_KEPT_ALIVE, failure_message="it ended without a report", finished_at=since)


def _ended(
    snapshot: EngineSnapshot, digest: str, occasion: str, job: JobFacts, next_look: float | None
) -> PreparationStep:
    pods = snapshot.preparation_pods.get(job.name, ())
    report = _report(pods)
    if report is not None and _is_success(report):
        return _known(snapshot, _from_report(report, digest, _finished_at(pods, job)), occasion, next_look)
    if report is None and job.succeeded:
        # Another Job finds the preparation in the store and reports it again.
        lost = Observation.of(PREPARED, False, "ResultLost", "the result is read again")
        return _unknown(snapshot, digest, occasion, lost, job_deleted=job.uid)
    return _failed(snapshot, digest, occasion, job, report)


def _running(
    snapshot: EngineSnapshot, digest: str, occasion: str, job: JobFacts | None, pods: tuple[PodFacts, ...]
) -> PreparationStep:
    memory = snapshot.status.preparation
    if memory is not None and memory.request == digest and memory.failure is not None:
        # Another attempt changes the status only when it ends.
        condition = _failure_condition(memory.failure)
        left = _retry_seconds(snapshot, memory.finished_at) if job is None else None
        return _unknown(
            snapshot,
            digest,
            occasion,
            condition,
            failure=memory,
            job_wanted=left is not None and left <= 0,
            requeue_seconds=left,
        )
    if job is None:
        condition = Observation.of(PREPARED, False, "Preparing", "the preparation begins")
        return _unknown(snapshot, digest, occasion, condition, job_wanted=True)
    last = _last_failure(pods)
    if last is not None:
        # The Job tries again by itself, after its own back-off; the status shows the failure at once.
        condition = _failure_condition(last)
        return _unknown(snapshot, digest, occasion, condition, phase=PreparationPhase.RUNNING)
    before = find_condition(snapshot.status.conditions, PREPARED)
    under_way = ("Preparing", "the model is being prepared")
    reason, message = waiting_reason(pods, PREPARATION_CONTAINER, before, refused=job.refused) or under_way
    phase = PreparationPhase.RUNNING if reason == "Preparing" else PreparationPhase.PENDING
    return _unknown(snapshot, digest, occasion, Observation.of(PREPARED, False, reason, message), phase=phase)


def _failed(
    snapshot: EngineSnapshot, digest: str, occasion: str, job: JobFacts, report: PreparationReport | None
) -> PreparationStep:
    failure = report.failure if report is not None else None
    pods = snapshot.preparation_pods.get(job.name, ())
    failure = failure or _remembered_failure(snapshot, digest, job) or _silent_failure(job, pods)
    memory = PreparationStatus(
        request=digest, phase=PreparationPhase.FAILED, failure=failure, finished_at=job.finished_at or None
    )
    wait = _retry_seconds(snapshot, job.finished_at)
    return _unknown(
        snapshot,
        digest,
        occasion,
        _failure_condition(failure),
        failure=memory,
        job_deleted=job.uid if wait <= 0 or job.failure == _KEPT_ALIVE else "",
        requeue_seconds=max(wait, 0.0),
    )


def _remembered_failure(snapshot: EngineSnapshot, digest: str, job: JobFacts) -> Failure | None:
    """Return the failure that was recorded for this Job while its pod existed."""
    memory = snapshot.status.preparation
    if memory is None or (memory.request, memory.finished_at) != (digest, job.finished_at or None):
        return None
    return memory.failure


def _retry_seconds(snapshot: EngineSnapshot, finished_at: str | None) -> float:
    """Return the seconds until another attempt: as long as the preparation has been failing so far, within bounds."""
    finished = datetime.fromisoformat(finished_at) if finished_at else snapshot.now
    before = find_condition(snapshot.status.conditions, PREPARED)
    since = finished
    if before is not None and before.status is ConditionStatus.FALSE:
        since = min(datetime.fromisoformat(before.last_transition_time), finished)
    failing = (finished - since).total_seconds()
    pause = min(max(failing, _FIRST_RETRY_SECONDS), _LONGEST_RETRY_SECONDS)
    return pause - (snapshot.now - finished).total_seconds()


def _known(
    snapshot: EngineSnapshot,
    memory: PreparationStatus,
    occasion: str,
    requeue_seconds: float | None,
    *,
    job_wanted: bool = False,
) -> PreparationStep:
    known = {one.key for one in memory.stored_engines} | {
        key for key, build in snapshot.builds.items() if build.digest is not None
    }
    observed = snapshot.observed.model_copy(
        update={
            "source_digest": memory.source_digest,
            "calibration_digest": memory.calibration_digest,
            "model_facts": memory.facts,
            "preparation_key": memory.key,
            "engine_keys": frozenset(known),
        }
    )
    uri = snapshot.engine.spec.model.uri
    before = snapshot.status.model
    model = before
    if memory.source_digest is not None and (
        before is None or (before.uri, before.digest) != (uri, memory.source_digest)
    ):
        model = ModelStatus(uri=uri, digest=memory.source_digest, resolved_at=memory.finished_at)
    return PreparationStep(
        status=memory,
        model=model,
        condition=Observation.of(PREPARED, True, "Prepared", "the model is prepared"),
        observed=observed,
        occasion=occasion,
        job_wanted=job_wanted,
        requeue_seconds=requeue_seconds,
    )


def _unknown(  # noqa: PLR0913 - the parts of one value
    snapshot: EngineSnapshot,
    digest: str,
    occasion: str,
    condition: Observation,
    *,
    phase: PreparationPhase = PreparationPhase.PENDING,
    failure: PreparationStatus | None = None,
    job_wanted: bool = False,
    job_deleted: str = "",
    requeue_seconds: float | None = None,
) -> PreparationStep:
    return PreparationStep(
        status=failure or PreparationStatus(request=digest, phase=phase),
        model=snapshot.status.model,
        condition=condition,
        observed=snapshot.observed,
        occasion=occasion,
        job_wanted=job_wanted,
        job_deleted=job_deleted,
        requeue_seconds=requeue_seconds,
    )


def _occasion(snapshot: EngineSnapshot) -> tuple[str, float | None]:
    """Return the number of this check of the model's URI, and the seconds until the next."""
    refresh = snapshot.engine.spec.model.refresh_seconds
    made = snapshot.engine.metadata.creation_timestamp
    if refresh is None or made is None:
        return "", None
    age = (snapshot.now - datetime.fromisoformat(made)).total_seconds()
    number = floor(age / float(refresh))
    return (str(number) if number else ""), (number + 1) * float(refresh) - age


def _is_whole(memory: PreparationStatus) -> bool:
    """Whether the status has all fields of a success; the operator finds out again what a user removed."""
    return memory.phase is PreparationPhase.SUCCEEDED and None not in {memory.key, memory.source_digest}


def _unheard_occasion(snapshot: EngineSnapshot, request: PreparationJobRequest, occasion: str) -> str:
    """Return the last check whose result is not known yet, or `occasion`, so that slow checks do not accumulate."""
    name = snapshot.engine.metadata.name
    looks = [
        job
        for job in snapshot.preparation_jobs.values()
        if job.name == preparation_job_name(name, request, job.occasion)
    ]
    last = max(looks, key=lambda job: (len(job.occasion), job.occasion), default=None)
    memory = snapshot.status.preparation
    if last is None:
        return occasion
    if memory is None or memory.phase is not PreparationPhase.SUCCEEDED:
        return last.occasion
    # What ended before the preparation that is known was heard, perhaps in another precision.
    was_heard = bool(last.finished_at) and last.finished_at < (memory.finished_at or "")
    return occasion if was_heard or preparation_hash(request, last.occasion) == memory.request else last.occasion


def _still_valid(snapshot: EngineSnapshot, memory: PreparationStatus | None) -> PreparationStatus | None:
    """Return what is remembered where only the time for another look has come, and nothing else has changed."""
    model = snapshot.status.model
    spec = snapshot.engine.spec
    if memory is None or memory.key is None or model is None or spec.model.refresh_seconds is None:
        return None
    if model.uri != spec.model.uri or memory.source_digest is None:
        return None
    digests = {"source_digest": memory.source_digest, "calibration_digest": memory.calibration_digest}
    same = preparation_key_of(spec, snapshot.observed.model_copy(update=digests)) == memory.key
    return memory if same else None


def _report(pods: tuple[PodFacts, ...]) -> PreparationReport | None:
    for pod in reversed(pods):
        container = pod.container(PREPARATION_CONTAINER)
        ending = container.latest_ending if container else None
        if ending is None or not ending.message:
            continue
        try:
            return PreparationReport.from_json(ending.message)
        except ValidationError:
            continue
    return None


def _is_success(report: PreparationReport | None) -> bool:
    return report is not None and report.failure is None and report.preparation_key is not None


def _finished_at(pods: tuple[PodFacts, ...], job: JobFacts) -> str | None:
    container = pods[-1].container(PREPARATION_CONTAINER) if pods else None
    ending = container.latest_ending if container else None
    return (ending.finished_at if ending is not None else "") or job.finished_at or None


def _from_report(report: PreparationReport, digest: str, finished_at: str | None) -> PreparationStatus:
    return PreparationStatus(
        request=digest,
        phase=PreparationPhase.SUCCEEDED,
        key=report.preparation_key,
        source_digest=report.source_digest,
        calibration_digest=report.calibration_digest,
        size_bytes=report.size_bytes,
        max_batch_size=report.max_batch_size,
        facts=report.facts,
        stored_engines=tuple(StoredEngine(key=key, digest=at) for key, at in sorted(report.stored_engines.items())),
        warnings=tuple(line[:1024] for line in report.warnings[:64]),
        finished_at=finished_at,
    )


def _last_failure(pods: tuple[PodFacts, ...]) -> Failure | None:
    """Return why the newest attempt that ended failed; None: none did, or the reason is not known."""
    report = _report(pods)
    if report is not None:
        return report.failure
    endings = [container.latest_ending for pod in pods if (container := pod.container(PREPARATION_CONTAINER))]
    killed = [ending for ending in endings if ending is not None and ending.out_of_memory]
    return _out_of_memory(killed[-1].exit_code) if killed else None


def _out_of_memory(exit_code: int) -> Failure:
    remedy = "set or raise spec.build.resources.limits.memory"
    return Failure(
        exit_code=exit_code,
        what=_WHAT,
        why="it was killed because it ran out of memory",
        remedy=remedy,
        reason="OutOfMemory",
    )


def _silent_failure(job: JobFacts, pods: tuple[PodFacts, ...]) -> Failure:
    """Return the failure of a Job whose pod left no termination message."""
    container = pods[-1].container(PREPARATION_CONTAINER) if pods else None
    ending = container.latest_ending if container else None
    code = ending.exit_code if ending is not None else int(ExitCode.INTERNAL)
    if ending is not None and ending.out_of_memory:
        return _out_of_memory(code)
    if job.failure == "DeadlineExceeded":
        remedy = "ask the administrator to raise preparation.timeout"
        return Failure(exit_code=code, what=_WHAT, why="it took too long", remedy=remedy, reason="TimedOut")
    if ending is not None and ending.not_started:
        why = f"its container cannot be started: {ending.not_started}"
        return Failure(exit_code=code, what=_WHAT, why=why, reason="ContainerCannotStart", retry=True)
    why = job.failure_message or job.failure
    return Failure(exit_code=code, what=_WHAT, why=why, reason="PreparationFailed", retry=True)


def _failure_condition(failure: Failure) -> Observation:
    return Observation.of(PREPARED, False, failure.reason, failure.sentence())
