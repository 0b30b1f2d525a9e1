"""What becomes of an EngineBuild, from what its Job and pods say."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from enginesmith_contract.backends import Backend, Hardware, Toolchain
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.keys import EngineKeyInputs, engine_key
from enginesmith_operator.api.conditions import READY, ConditionStatus, StatusCondition
from enginesmith_operator.api.engine_build import (
    BuildFailure,
    BuildPhase,
    BuildPlacement,
    EngineBuild,
    EngineBuildSpec,
    EngineBuildStatus,
)
from enginesmith_operator.api.metadata import ObjectMetadata
from enginesmith_operator.api.store import S3Store, StoreSpec
from enginesmith_operator.controller.engine_build.decide import BuildDecision, BuildSnapshot, decide_build, log_wish
from enginesmith_operator.controller.shared.conditions import find_condition
from enginesmith_operator.controller.shared.pod_facts import ContainerFacts, Ending, JobFacts, PodFacts, read_pod

_NOW = datetime(2026, 11, 23, 12, 0, 30, tzinfo=UTC)
_LATER = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)
_STARTED, _ENDED = "2026-11-23T12:00:00Z", "2026-11-23T12:00:20Z"
_DIGEST = "ab" * 32
_GPU = "nvidia.com/gpu"


def _build(status: EngineBuildStatus | None = None) -> EngineBuild:
    inputs = EngineKeyInputs(preparation_key="cd" * 32, backend=Backend.TENSORRT, backend_version="10.13.3.9")
    request = BuildRequest(
        engine_key=engine_key(inputs),
        key_inputs=inputs,
        store="s3://engines/vision",
        toolchain=Toolchain(name="trt", backend=Backend.TENSORRT, version="10.13.3.9"),
        hardware=Hardware(product="NVIDIA-L4"),
    )
    return EngineBuild(
        metadata=ObjectMetadata(name="ocr-l4-0123", namespace="vision", uid="b1", generation=1),
        spec=EngineBuildSpec(
            target="l4",
            request=request,
            image="r/i@sha256:" + "0" * 64,
            store=StoreSpec(s3=S3Store(bucket="engines")),
            placement=BuildPlacement(gpu_resource=_GPU),
        ),
        status=status or EngineBuildStatus(),
    )


def _pod(container: ContainerFacts | None = None, **fields: Any) -> PodFacts:
    head: dict[str, Any] = {"name": "p1", "uid": "u1", "labels": {}, "created_at": _STARTED, "node": "gpu-1"}
    return PodFacts(**(head | fields), containers=(container,) if container else ())


def _running() -> ContainerFacts:
    return ContainerFacts(name="build", image="r/i@sha256:feed", running_since=_STARTED)


def _ended(code: int, message: dict[str, Any] | None = None, reason: str = "Error") -> ContainerFacts:
    text = json.dumps(message) if message is not None else ""
    ending = Ending(exit_code=code, reason=reason, message=text, started_at=_STARTED, finished_at=_ENDED)
    return ContainerFacts(name="build", image="r/i@sha256:feed", ending=ending)


def _failed_word(reason: str, message: str, *, code: int = 14, retry: bool = False) -> dict[str, Any]:
    return {"outcome": "failed", "exitCode": code, "reason": reason, "message": message, "retry": retry}


def _job(**fields: Any) -> JobFacts:
    head: dict[str, Any] = {"name": "ocr-l4-0123", "uid": "j1", "controller_uid": "b1", "started": 1}
    return JobFacts(**(head | fields))


def _decide(
    job: JobFacts | None,
    *pods: PodFacts,
    status: EngineBuildStatus | None = None,
    **fields: Any,
) -> BuildDecision:
    return decide_build(BuildSnapshot(build=_build(status), job=job, pods=pods, now=_NOW, **fields))


def _ready(decision: BuildDecision) -> StatusCondition:
    found = find_condition(decision.status.conditions, READY)
    assert found is not None
    return found


def test_a_build_without_a_job_gets_one() -> None:
    decision = _decide(None)
    assert decision.create_job
    assert decision.status.phase is BuildPhase.PENDING


@pytest.mark.parametrize(
    ("owner", "want_reason"),
    [("", "NameTaken"), ("CronJob mine", "NameTaken"), ("EngineBuild ocr-l4-0123", "Starting")],
)
def test_a_job_of_that_name_that_is_not_ours_is_left_alone_and_reported_unless_an_earlier_build_left_it(
    owner: str, want_reason: str
) -> None:
    job = _job(controller_uid="somebody", controller_name=owner, succeeded=True, finished_at=_ENDED)
    decision = _decide(job, _pod(_ended(0, {"outcome": "succeeded", "exitCode": 0, "engineDigest": _DIGEST})))
    assert (decision.create_job, decision.delete_job) == (False, "")
    status = decision.status
    assert (status.phase, status.result, status.started_at, status.node) == (BuildPhase.PENDING, None, None, "")
    assert _ready(decision).reason == want_reason
    assert decision.requeue_seconds is not None


def test_a_build_that_waits_for_a_gpu_says_so_in_the_scheduler_s_words() -> None:
    decision = _decide(_job(), _pod(node="", unschedulable="0/3 nodes are available", unschedulable_since=_STARTED))
    assert _ready(decision).reason == "WaitingForGPU"
    assert "0/3 nodes are available" in _ready(decision).message
    assert decision.requeue_seconds is None


def test_a_suspended_job_waits_for_its_queue() -> None:
    assert _ready(_decide(_job(suspended=True))).reason == "Queued"


@pytest.mark.parametrize(
    "words",
    [
        "ErrImagePull: failed to resolve reference r/i: not found",
        'ImagePullBackOff: Back-off pulling image "r/i": ErrImagePull: failed to resolve reference r/i: not found',
    ],
)
def test_an_image_that_cannot_be_pulled_reads_the_same_between_and_during_attempts(words: str) -> None:
    ready = _ready(_decide(_job(), _pod(ContainerFacts(name="build", stuck=words))))
    assert ready.reason == "ImageCannotBePulled"
    assert ready.message.startswith("its image cannot be pulled: failed to resolve reference r/i: not found; push it, ")


def test_a_secret_that_is_not_there_is_named_with_what_to_do() -> None:
    words = 'CreateContainerConfigError: secret "s3-read" not found'
    ready = _ready(_decide(_job(), _pod(ContainerFacts(name="build", stuck=words))))
    assert ready.reason == "ContainerCannotStart"
    assert ready.message == 'the pod cannot start: secret "s3-read" not found; create it, and the pod continues'


def test_a_claim_that_is_not_there_is_named_with_what_to_do() -> None:
    words = '0/3 nodes are available: persistentvolumeclaim "models" not found. not found'
    ready = _ready(_decide(_job(), _pod(node="", unschedulable=words, unschedulable_since=_STARTED)))
    assert ready.reason == "ClaimMissing"
    assert "PersistentVolumeClaim models is not there; create it" in ready.message


def test_a_moment_between_two_pulls_is_no_news() -> None:
    stuck = _decide(_job(), _pod(ContainerFacts(name="build", stuck="ErrImagePull: no"))).status
    between = _decide(_job(), _pod(ContainerFacts(name="build")), status=stuck)
    assert between.status == stuck


def test_a_running_build_shows_the_stage_of_its_last_log_line() -> None:
    line = json.dumps({"time": "x", "stage": "build", "event": "begin", "detail": "tactics"})
    decision = _decide(_job(), _pod(_running()), log=(line,))
    assert decision.status.phase is BuildPhase.BUILDING
    assert decision.status.progress == "build (tactics)"
    assert decision.status.node == "gpu-1"
    assert decision.status.image == "r/i@sha256:feed"
    assert [event.reason for event in decision.events] == ["BuildStarted"]
    again = _decide(_job(), _pod(_running()), status=decision.status)
    assert again.status == decision.status
    assert again.events == ()


def test_a_log_is_asked_for_while_a_build_runs_and_when_it_failed_and_never_else() -> None:
    running = BuildSnapshot(build=_build(), job=_job(), pods=(_pod(_running()),), now=_NOW)
    wish = log_wish(running)
    assert wish is not None
    assert (wish.pod, wish.lines, wish.is_final) == ("p1", 1, False)
    failed = replace(running, job=_job(failure="PodFailurePolicy"), pods=(_pod(_ended(14)),))
    wish = log_wish(failed)
    assert wish is not None
    assert wish.is_final
    assert log_wish(replace(running, pods=())) is None
    ended = EngineBuildStatus(phase=BuildPhase.FAILED, failure=BuildFailure(reason="BuildFailed", message="no"))
    assert log_wish(replace(running, build=_build(ended))) is None


def test_a_finished_build_keeps_what_its_last_word_says() -> None:
    word = {
        "outcome": "succeeded",
        "exitCode": 0,
        "engineDigest": _DIGEST,
        "buildSeconds": 12.5,
        "verification": "passed",
        "difference": 0.001,
        "latencySeconds": {"default": 0.002},
    }
    decision = _decide(_job(succeeded=True, finished_at=_ENDED), _pod(_ended(0, word, "Completed")))
    status = decision.status
    assert status.phase is BuildPhase.SUCCEEDED
    assert status.result is not None
    assert status.result.engine_digest == _DIGEST
    assert status.result.latency_seconds == {"default": 0.002}
    assert status.duration_seconds == 20.0
    assert _ready(decision).status is ConditionStatus.TRUE
    assert [event.reason for event in decision.events] == ["BuildSucceeded"]


def test_a_build_is_over_with_its_pod_s_last_word_before_the_job_is_complete() -> None:
    word = {"outcome": "succeeded", "exitCode": 0, "engineDigest": _DIGEST}
    decision = _decide(_job(), _pod(_ended(0, word, "Completed")))
    assert decision.status.phase is BuildPhase.SUCCEEDED
    assert decision.status.finished_at == _ENDED
    assert decision.status.duration_seconds == 20.0


def test_a_finished_build_whose_last_word_is_gone_is_asked_once_more() -> None:
    decision = _decide(_job(succeeded=True, finished_at=_ENDED))
    assert decision.delete_job == "j1"
    assert decision.status.phase is BuildPhase.PENDING


def test_a_build_that_ended_is_never_looked_at_again_whatever_became_of_its_job() -> None:
    done = _decide(_job(failure="PodFailurePolicy", finished_at=_ENDED), _pod(_ended(14))).status
    later = decide_build(BuildSnapshot(build=_build(done), job=None, now=_LATER))
    assert later == BuildDecision(status=done)


@pytest.mark.parametrize(
    ("container", "failure", "want_reason", "want_in_message"),
    [
        (
            _ended(17, _failed_word("VerificationFailed", "y differs", code=17)),
            "PodFailurePolicy",
            "VerificationFailed",
            "y differs",
        ),
        (_ended(137, reason="OOMKilled"), "BackoffLimitExceeded", "OutOfMemory", "limits.memory"),
        (_ended(14), "PodFailurePolicy", "BuildFailed", "BUILD_FAILED): the parser gave up"),
        (_ended(139), "BackoffLimitExceeded", "BuildFailed", "killed"),
    ],
    ids=["last word", "out of memory", "no last word", "signal"],
)
def test_a_failed_build_says_why_in_one_sentence_and_keeps_its_last_lines(
    container: ContainerFacts, failure: str, want_reason: str, want_in_message: str
) -> None:
    job = _job(failure=failure, finished_at=_ENDED)
    decision = _decide(job, _pod(container), log=("one", "the parser gave up"))
    found = decision.status.failure
    assert found is not None
    assert found.reason == want_reason
    assert want_in_message in found.message
    assert found.log_tail == "one\nthe parser gave up"
    assert _ready(decision).message == found.message
    assert [(event.is_warning, event.reason) for event in decision.events] == [(True, want_reason)]


def test_a_build_that_ran_too_long_says_which_field_to_raise() -> None:
    before = EngineBuildStatus(phase=BuildPhase.BUILDING, started_at=_STARTED)
    decision = _decide(_job(failure="DeadlineExceeded", finished_at=_ENDED), status=before)
    assert decision.status.failure is not None
    assert decision.status.failure.reason == "TimedOut"
    assert "spec.build.timeout" in decision.status.failure.message


def test_a_build_that_only_waited_until_the_job_s_deadline_waits_on_in_another_job() -> None:
    decision = _decide(_job(failure="DeadlineExceeded", finished_at=_ENDED))
    assert decision.delete_job == "j1"
    assert decision.status.phase is BuildPhase.PENDING
    assert decision.status.failure is None


def test_an_attempt_that_failed_is_told_while_the_job_pauses_before_the_next() -> None:
    word = _failed_word("StoreUnreachable", "no answer", code=18, retry=True)
    decision = _decide(_job(), _pod(_ended(18, word), phase="Failed"))
    assert decision.status.phase is BuildPhase.PENDING
    assert _ready(decision).reason == "StoreUnreachable"
    assert _ready(decision).message == "an attempt failed: no answer"


@pytest.mark.parametrize(
    ("container", "want_reason", "want_in_message"),
    [
        (_ended(137, reason="OOMKilled"), "OutOfMemory", "raise spec.build.resources.limits.memory"),
        (_ended(139), "BuildFailed", "exit code 139 (killed)"),
    ],
)
def test_an_attempt_that_left_no_word_is_told_before_the_last_one_ends(
    container: ContainerFacts, want_reason: str, want_in_message: str
) -> None:
    pods = (_pod(container, phase="Failed"), _pod(name="p2", node="gpu-1"))
    ready = _ready(_decide(_job(), *pods))
    assert ready.reason == want_reason
    assert want_in_message in ready.message


def test_a_builder_that_never_ran_is_told_in_the_container_runtimes_words_and_may_be_tried_again() -> None:
    words = "nvidia-container-cli: initialization error:\n driver not loaded"
    ending = Ending(exit_code=128, reason="StartError", message=words, finished_at=_ENDED)
    pod = _pod(ContainerFacts(name="build", ending=ending), phase="Failed")
    want = "the builder cannot be started: nvidia-container-cli: initialization error: driver not loaded"
    ready = _ready(_decide(_job(), pod))
    assert (ready.reason, ready.message) == ("ContainerCannotStart", f"an attempt failed: {want}")
    found = _decide(_job(failure="BackoffLimitExceeded", finished_at=_ENDED), pod).status.failure
    assert found is not None
    assert (found.reason, found.message, found.exit_code, found.retry) == ("ContainerCannotStart", want, 128, True)


@pytest.mark.parametrize("phase", [BuildPhase.SUCCEEDED, BuildPhase.FAILED])
def test_a_status_that_claims_an_end_without_telling_how_is_garbled_and_found_out_again(phase: BuildPhase) -> None:
    garbled = EngineBuildStatus(phase=phase)
    word = {"outcome": "succeeded", "exitCode": 0, "engineDigest": _DIGEST}
    decision = _decide(_job(succeeded=True, finished_at=_ENDED), _pod(_ended(0, word)), status=garbled)
    assert decision.status.phase is BuildPhase.SUCCEEDED
    assert decision.status.result is not None
    assert decision.status.result.engine_digest == _DIGEST


def test_a_condition_s_time_changes_only_with_its_status() -> None:
    waiting = _decide(_job(), _pod(node="", unschedulable="full", unschedulable_since=_STARTED)).status
    snapshot = BuildSnapshot(build=_build(waiting), job=_job(), pods=(_pod(_running()),), now=_LATER)
    running = decide_build(snapshot)
    assert _ready(running).last_transition_time == "2026-11-23T12:00:30Z"
    scheduled = find_condition(running.status.conditions, "Scheduled")
    assert scheduled is not None
    assert scheduled.last_transition_time == "2026-11-23T13:00:00Z"


def test_a_pod_s_own_document_is_read_as_the_decision_expects_it() -> None:
    pod = read_pod(
        {
            "metadata": {"name": "p", "uid": "u", "creationTimestamp": _STARTED},
            "status": {
                "phase": "Pending",
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "message": "0/1\n nodes",
                        "lastTransitionTime": _STARTED,
                    }
                ],
                "containerStatuses": [
                    {
                        "name": "build",
                        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                        "lastState": {"terminated": {"exitCode": 30, "message": "{}"}},
                        "restartCount": 2,
                    }
                ],
            },
        }
    )
    assert pod.unschedulable == "0/1 nodes"
    container = pod.container("build")
    assert container is not None
    assert container.stuck == ""
    assert container.latest_ending is not None
    assert container.latest_ending.exit_code == 30


_PROXY = ContainerFacts(name="proxy", running_since=_STARTED)
_SUCCESS = {"outcome": "succeeded", "exitCode": 0, "engineDigest": _DIGEST}


def _beside(container: ContainerFacts, *others: ContainerFacts) -> PodFacts:
    return replace(_pod(container, phase="Running"), containers=(*others, container))


def test_a_build_that_has_reported_is_finished_and_a_sidecar_does_not_keep_its_gpu() -> None:
    pod = _beside(_ended(0, _SUCCESS, "Completed"), _PROXY)
    reported = _decide(_job(), pod)
    assert (reported.status.phase, reported.delete_job) == (BuildPhase.SUCCEEDED, "")
    again = decide_build(BuildSnapshot(build=_build(reported.status), job=_job(), pods=(pod,), now=_NOW))
    assert (again.status, again.delete_job) == (reported.status, "j1")


def test_a_sidecar_has_a_moment_to_end_by_itself() -> None:
    pod = _beside(_ended(0, _SUCCESS, "Completed"), _PROXY)
    done = _decide(_job(), pod).status
    soon = datetime(2026, 11, 23, 12, 0, 21, tzinfo=UTC)
    again = decide_build(BuildSnapshot(build=_build(done), job=_job(), pods=(pod,), now=soon))
    assert (again.delete_job, again.requeue_seconds) == ("", 9.0)


def test_a_build_that_failed_beside_a_sidecar_has_failed() -> None:
    pod = _beside(_ended(14, _failed_word("BuildFailed", "no kernel fits")), _PROXY)
    decision = _decide(_job(), pod)
    assert decision.status.phase is BuildPhase.FAILED
    assert decision.status.failure is not None
    assert (decision.status.failure.reason, decision.status.failure.retry) == ("BuildFailed", False)
    again = decide_build(BuildSnapshot(build=_build(decision.status), job=_job(), pods=(pod,), now=_NOW))
    assert again.delete_job == "j1"


def test_what_a_job_would_try_again_is_tried_again_beside_a_sidecar_too() -> None:
    failure = _decide(_job(), _beside(_ended(1), _PROXY)).status.failure
    assert failure is not None
    assert failure.retry


def test_a_native_sidecar_and_a_finished_job_are_left_to_kubernetes() -> None:
    pod = _beside(_ended(0, _SUCCESS, "Completed"), replace(_PROXY, is_init=True))
    done = _decide(_job(), pod).status
    for job in (_job(), _job(succeeded=True)):
        again = decide_build(BuildSnapshot(build=_build(done), job=job, pods=(pod,), now=_LATER))
        assert (again.delete_job, again.requeue_seconds) == ("", None)


def test_a_build_whose_pods_are_refused_says_why() -> None:
    words = 'Error creating: pods "ocr-l4-0123-abcde" is forbidden: exceeded quota: gpus, requested: 1, limited: 0'
    ready = _ready(_decide(_job(refused=words)))
    assert ready.reason == "PodsRefused"
    assert ready.message.startswith("no pod can be created: exceeded quota: gpus, requested: 1, limited: 0; ")
