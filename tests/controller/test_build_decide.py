"""What becomes of an EngineBuild, from what its Job and pods say."""

import json
from dataclasses import replace

import pytest
from tests.controller.build_snapshots import (
    DIGEST,
    ENDED,
    LATER,
    NOW,
    STARTED,
    decide,
    ended_builder,
    failed_message,
    make_build,
    make_job,
    make_pod,
    ready_condition,
    running_builder,
)

from enginesmith_contract.timing_cache import TimingCacheUse
from enginesmith_operator.api.conditions import ConditionStatus
from enginesmith_operator.api.engine_build import (
    BuildFailure,
    BuildPhase,
    EngineBuildStatus,
)
from enginesmith_operator.controller.engine_build.decide import BuildDecision, decide_build
from enginesmith_operator.controller.engine_build.gather import wanted_log
from enginesmith_operator.controller.engine_build.snapshot import BuildSnapshot
from enginesmith_operator.controller.shared.conditions import find_condition
from enginesmith_operator.controller.shared.pod_facts import ContainerFacts, Ending, read_pod


def test_a_build_without_a_job_gets_one() -> None:
    decision = decide(None)
    assert decision.create_job
    assert decision.status.phase is BuildPhase.PENDING


@pytest.mark.parametrize(
    ("owner", "want_reason"),
    [("", "NameTaken"), ("CronJob mine", "NameTaken"), ("EngineBuild ocr-l4-0123", "Starting")],
)
def test_a_job_of_that_name_that_is_not_ours_is_left_alone_and_reported_unless_an_earlier_build_left_it(
    owner: str, want_reason: str
) -> None:
    job = make_job(controller_uid="another-owner", controller_name=owner, succeeded=True, finished_at=ENDED)
    decision = decide(job, make_pod(ended_builder(0, {"outcome": "succeeded", "exitCode": 0, "engineDigest": DIGEST})))
    assert (decision.create_job, decision.delete_job) == (False, "")
    status = decision.status
    assert (status.phase, status.result, status.started_at, status.node) == (BuildPhase.PENDING, None, None, "")
    assert ready_condition(decision).reason == want_reason
    assert decision.requeue_seconds is not None


def test_a_build_that_waits_for_a_gpu_says_so_in_the_scheduler_s_words() -> None:
    decision = decide(make_job(), make_pod(node="", unschedulable="0/3 nodes", unschedulable_since=STARTED))
    assert ready_condition(decision).reason == "WaitingForGPU"
    assert "0/3 nodes" in ready_condition(decision).message
    assert decision.requeue_seconds is None


def test_a_suspended_job_waits_for_its_queue() -> None:
    assert ready_condition(decide(make_job(suspended=True))).reason == "Queued"


@pytest.mark.parametrize(
    "words",
    [
        "ErrImagePull: failed to resolve reference r/i: not found",
        'ImagePullBackOff: Back-off pulling image "r/i": ErrImagePull: failed to resolve reference r/i: not found',
    ],
)
def test_an_image_that_cannot_be_pulled_reads_the_same_between_and_during_attempts(words: str) -> None:
    ready = ready_condition(decide(make_job(), make_pod(ContainerFacts(name="build", stuck=words))))
    assert ready.reason == "ImageCannotBePulled"
    assert ready.message.startswith("its image cannot be pulled: failed to resolve reference r/i: not found; push it, ")


def test_a_registry_that_refuses_the_account_is_told_with_the_place_of_the_secret() -> None:
    words = 'ErrImagePull: failed to resolve reference "r/i": unexpected status from HEAD request: 401 Unauthorized'
    ready = ready_condition(decide(make_job(), make_pod(ContainerFacts(name="build", stuck=words))))
    assert ready.reason == "ImageCannotBePulled"
    for expected in ("r/i", "the registry refuses the credentials", "spec.podTemplate.imagePullSecrets"):
        assert expected in ready.message
    assert "push it" not in ready.message


def test_a_secret_that_is_not_there_is_named_with_what_to_do() -> None:
    words = 'CreateContainerConfigError: secret "s3-read" not found'
    ready = ready_condition(decide(make_job(), make_pod(ContainerFacts(name="build", stuck=words))))
    assert ready.reason == "ContainerCannotStart"
    assert ready.message == 'the pod cannot start: secret "s3-read" not found; create it, and the pod continues'


def test_a_claim_that_is_not_there_is_named_with_what_to_do() -> None:
    words = '0/3 nodes are available: persistentvolumeclaim "models" not found. not found'
    ready = ready_condition(decide(make_job(), make_pod(node="", unschedulable=words, unschedulable_since=STARTED)))
    assert ready.reason == "ClaimMissing"
    assert "PersistentVolumeClaim models does not exist; create it" in ready.message


def test_a_moment_between_two_pulls_is_no_news() -> None:
    stuck = decide(make_job(), make_pod(ContainerFacts(name="build", stuck="ErrImagePull: no"))).status
    between = decide(make_job(), make_pod(ContainerFacts(name="build")), status=stuck)
    assert between.status == stuck


def test_a_running_build_shows_the_stage_of_its_last_log_line() -> None:
    line = json.dumps({"time": "x", "stage": "build", "event": "begin", "detail": "tactics"})
    decision = decide(make_job(), make_pod(running_builder()), log=(line,))
    assert decision.status.phase is BuildPhase.BUILDING
    assert decision.status.progress == "build (tactics)"
    assert decision.status.node == "gpu-1"
    assert decision.status.image == "r/i@sha256:feed"
    assert [event.reason for event in decision.events] == ["BuildStarted"]
    again = decide(make_job(), make_pod(running_builder()), status=decision.status)
    assert again.status == decision.status
    assert again.events == ()


def test_a_log_is_asked_for_while_a_build_runs_and_when_it_failed_and_never_else() -> None:
    running = BuildSnapshot(build=make_build(), job=make_job(), pods=(make_pod(running_builder()),), now=NOW)
    wish = wanted_log(running)
    assert wish is not None
    assert (wish.pod, wish.lines, wish.is_final) == ("p1", 10, False)
    failed = replace(running, job=make_job(failure="PodFailurePolicy"), pods=(make_pod(ended_builder(14)),))
    wish = wanted_log(failed)
    assert wish is not None
    assert wish.is_final
    assert wanted_log(replace(running, pods=())) is None
    ended = EngineBuildStatus(phase=BuildPhase.FAILED, failure=BuildFailure(reason="BuildFailed", message="no"))
    assert wanted_log(replace(running, build=make_build(ended))) is None


def test_a_finished_build_keeps_what_its_last_word_says() -> None:
    word = {
        "outcome": "succeeded",
        "exitCode": 0,
        "engineDigest": DIGEST,
        "buildSeconds": 12.5,
        "verification": "passed",
        "difference": 0.001,
        "latencySeconds": {"default": 0.002},
        "timingCache": {"found": 312, "added": 28, "timed": 7},
    }
    decision = decide(make_job(succeeded=True, finished_at=ENDED), make_pod(ended_builder(0, word, "Completed")))
    status = decision.status
    assert status.phase is BuildPhase.SUCCEEDED
    assert status.result is not None
    assert status.result.engine_digest == DIGEST
    assert status.result.latency_seconds == {"default": 0.002}
    assert status.result.timing_cache == TimingCacheUse(found=312, added=28, timed=7)
    assert status.duration_seconds == 20.0
    assert ready_condition(decision).status is ConditionStatus.TRUE
    assert [event.reason for event in decision.events] == ["BuildSucceeded"]
    assert "28 entries added to a timing cache of 312, 7 layer implementations timed" in decision.events[0].message


def test_an_alarm_of_the_verification_is_a_warning() -> None:
    alarm = "alarm: the agreement on 6 held-out samples says little"
    word = {"outcome": "succeeded", "exitCode": 0, "engineDigest": DIGEST, "warning": alarm}
    decision = decide(make_job(succeeded=True, finished_at=ENDED), make_pod(ended_builder(0, word, "Completed")))
    assert decision.status.result is not None
    assert decision.status.result.warning == alarm
    told = [(event.is_warning, event.reason) for event in decision.events]
    assert told == [(False, "BuildSucceeded"), (True, "BuildWarning")]
    assert decision.events[1].message == alarm


def test_a_build_is_over_with_its_pod_s_last_word_before_the_job_is_complete() -> None:
    word = {"outcome": "succeeded", "exitCode": 0, "engineDigest": DIGEST}
    decision = decide(make_job(), make_pod(ended_builder(0, word, "Completed")))
    assert decision.status.phase is BuildPhase.SUCCEEDED
    assert decision.status.finished_at == ENDED
    assert decision.status.duration_seconds == 20.0


def test_a_finished_build_whose_last_word_is_gone_is_asked_once_more() -> None:
    decision = decide(make_job(succeeded=True, finished_at=ENDED))
    assert decision.delete_job == "j1"
    assert decision.status.phase is BuildPhase.PENDING


def test_a_build_that_ended_is_never_looked_at_again_whatever_became_of_its_job() -> None:
    done = decide(make_job(failure="PodFailurePolicy", finished_at=ENDED), make_pod(ended_builder(14))).status
    later = decide_build(BuildSnapshot(build=make_build(done), job=None, now=LATER))
    assert later == BuildDecision(status=done)


@pytest.mark.parametrize(
    ("container", "failure", "want_reason", "want_in_message"),
    [
        (
            ended_builder(17, failed_message("VerificationFailed", "y differs", code=17)),
            "PodFailurePolicy",
            "VerificationFailed",
            "y differs",
        ),
        (ended_builder(137, reason="OOMKilled"), "BackoffLimitExceeded", "OutOfMemory", "limits.memory"),
        (ended_builder(14), "PodFailurePolicy", "BuildFailed", "BUILD_FAILED): the parser gave up"),
        (ended_builder(139), "BackoffLimitExceeded", "BuildFailed", "killed"),
    ],
    ids=["last word", "out of memory", "no last word", "signal"],
)
def test_a_failed_build_says_why_in_one_sentence_and_keeps_its_last_lines(
    container: ContainerFacts, failure: str, want_reason: str, want_in_message: str
) -> None:
    job = make_job(failure=failure, finished_at=ENDED)
    decision = decide(job, make_pod(container), log=("one", "the parser gave up"))
    found = decision.status.failure
    assert found is not None
    assert found.reason == want_reason
    assert want_in_message in found.message
    assert found.log_tail == "one\nthe parser gave up"
    assert ready_condition(decision).message == found.message
    assert [(event.is_warning, event.reason) for event in decision.events] == [(True, want_reason)]


def test_a_build_that_ran_too_long_says_which_field_to_raise() -> None:
    before = EngineBuildStatus(phase=BuildPhase.BUILDING, started_at=STARTED)
    decision = decide(make_job(failure="DeadlineExceeded", finished_at=ENDED), status=before)
    assert decision.status.failure is not None
    assert decision.status.failure.reason == "TimedOut"
    assert "spec.build.timeout" in decision.status.failure.message


def test_a_build_that_only_waited_until_the_job_s_deadline_waits_on_in_another_job() -> None:
    decision = decide(make_job(failure="DeadlineExceeded", finished_at=ENDED))
    assert decision.delete_job == "j1"
    assert decision.status.phase is BuildPhase.PENDING
    assert decision.status.failure is None


def test_an_attempt_that_failed_is_told_while_the_job_pauses_before_the_next() -> None:
    word = failed_message("StoreUnreachable", "no answer", code=18, retry=True)
    decision = decide(make_job(), make_pod(ended_builder(18, word), phase="Failed"))
    assert decision.status.phase is BuildPhase.PENDING
    assert ready_condition(decision).reason == "StoreUnreachable"
    assert ready_condition(decision).message == "an attempt failed: no answer"


@pytest.mark.parametrize(
    ("container", "want_reason", "want_in_message"),
    [
        (ended_builder(137, reason="OOMKilled"), "OutOfMemory", "raise spec.build.resources.limits.memory"),
        (ended_builder(139), "BuildFailed", "exit code 139 (killed)"),
    ],
)
def test_an_attempt_that_left_no_word_is_told_before_the_last_one_ends(
    container: ContainerFacts, want_reason: str, want_in_message: str
) -> None:
    pods = (make_pod(container, phase="Failed"), make_pod(name="p2", node="gpu-1"))
    ready = ready_condition(decide(make_job(), *pods))
    assert ready.reason == want_reason
    assert want_in_message in ready.message


def test_a_builder_that_never_ran_is_told_in_the_container_runtimes_words_and_may_be_tried_again() -> None:
    words = "nvidia-container-cli: initialization error:\n driver not loaded"
    ending = Ending(exit_code=128, reason="StartError", message=words, finished_at=ENDED)
    pod = make_pod(ContainerFacts(name="build", ending=ending), phase="Failed")
    want = "the builder cannot be started: nvidia-container-cli: initialization error: driver not loaded"
    ready = ready_condition(decide(make_job(), pod))
    assert (ready.reason, ready.message) == ("ContainerCannotStart", f"an attempt failed: {want}")
    found = decide(make_job(failure="BackoffLimitExceeded", finished_at=ENDED), pod).status.failure
    assert found is not None
    assert (found.reason, found.message, found.exit_code, found.retry) == ("ContainerCannotStart", want, 128, True)


@pytest.mark.parametrize("phase", [BuildPhase.SUCCEEDED, BuildPhase.FAILED])
def test_a_status_that_claims_an_end_without_telling_how_is_garbled_and_found_out_again(phase: BuildPhase) -> None:
    garbled = EngineBuildStatus(phase=phase)
    word = {"outcome": "succeeded", "exitCode": 0, "engineDigest": DIGEST}
    decision = decide(make_job(succeeded=True, finished_at=ENDED), make_pod(ended_builder(0, word)), status=garbled)
    assert decision.status.phase is BuildPhase.SUCCEEDED
    assert decision.status.result is not None
    assert decision.status.result.engine_digest == DIGEST


def test_a_condition_s_time_changes_only_with_its_status() -> None:
    waiting = decide(make_job(), make_pod(node="", unschedulable="full", unschedulable_since=STARTED)).status
    snapshot = BuildSnapshot(build=make_build(waiting), job=make_job(), pods=(make_pod(running_builder()),), now=LATER)
    running = decide_build(snapshot)
    assert ready_condition(running).last_transition_time == "2026-11-23T12:00:30Z"
    scheduled = find_condition(running.status.conditions, "Scheduled")
    assert scheduled is not None
    assert scheduled.last_transition_time == "2026-11-23T13:00:00Z"


def test_a_pod_s_own_document_is_read_as_the_decision_expects_it() -> None:
    pod = read_pod(
        {
            "metadata": {"name": "p", "uid": "u", "creationTimestamp": STARTED},
            "status": {
                "phase": "Pending",
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "message": "0/1\n nodes",
                        "lastTransitionTime": STARTED,
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


def test_a_build_whose_pods_are_refused_says_why() -> None:
    words = 'Error creating: pods "ocr-l4-0123-abcde" is forbidden: exceeded quota: gpus, requested: 1, limited: 0'
    ready = ready_condition(decide(make_job(refused=words)))
    assert ready.reason == "PodsRefused"
    assert ready.message.startswith("no pod can be created: exceeded quota: gpus, requested: 1, limited: 0; ")
