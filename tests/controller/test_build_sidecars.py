"""What becomes of an EngineBuild whose pod a sidecar keeps alive."""

from dataclasses import replace
from datetime import UTC, datetime

from tests.controller.build_snapshots import (
    DIGEST,
    LATER,
    NOW,
    STARTED,
    decide,
    ended_builder,
    failed_message,
    make_build,
    make_job,
    make_pod,
)

from enginesmith_operator.api.engine_build import (
    BuildPhase,
)
from enginesmith_operator.controller.engine_build.decide import decide_build
from enginesmith_operator.controller.engine_build.snapshot import BuildSnapshot
from enginesmith_operator.controller.shared.pod_facts import ContainerFacts, PodFacts

_PROXY = ContainerFacts(name="proxy", running_since=STARTED)
_SUCCESS = {"outcome": "succeeded", "exitCode": 0, "engineDigest": DIGEST}


def _beside(container: ContainerFacts, *others: ContainerFacts) -> PodFacts:
    return replace(make_pod(container, phase="Running"), containers=(*others, container))


def test_a_build_that_has_reported_is_finished_and_a_sidecar_does_not_keep_its_gpu() -> None:
    pod = _beside(ended_builder(0, _SUCCESS, "Completed"), _PROXY)
    reported = decide(make_job(), pod)
    assert (reported.status.phase, reported.delete_job) == (BuildPhase.SUCCEEDED, "")
    again = decide_build(BuildSnapshot(build=make_build(reported.status), job=make_job(), pods=(pod,), now=NOW))
    assert (again.status, again.delete_job) == (reported.status, "j1")


def test_a_sidecar_has_a_moment_to_end_by_itself() -> None:
    pod = _beside(ended_builder(0, _SUCCESS, "Completed"), _PROXY)
    done = decide(make_job(), pod).status
    soon = datetime(2026, 11, 23, 12, 0, 21, tzinfo=UTC)
    again = decide_build(BuildSnapshot(build=make_build(done), job=make_job(), pods=(pod,), now=soon))
    assert (again.delete_job, again.requeue_seconds) == ("", 9.0)


def test_a_build_that_failed_beside_a_sidecar_has_failed() -> None:
    pod = _beside(ended_builder(14, failed_message("BuildFailed", "no kernel fits")), _PROXY)
    decision = decide(make_job(), pod)
    assert decision.status.phase is BuildPhase.FAILED
    assert decision.status.failure is not None
    assert (decision.status.failure.reason, decision.status.failure.retry) == ("BuildFailed", False)
    again = decide_build(BuildSnapshot(build=make_build(decision.status), job=make_job(), pods=(pod,), now=NOW))
    assert again.delete_job == "j1"


def test_what_a_job_would_try_again_is_tried_again_beside_a_sidecar_too() -> None:
    failure = decide(make_job(), _beside(ended_builder(1), _PROXY)).status.failure
    assert failure is not None
    assert failure.retry


def test_a_native_sidecar_and_a_finished_job_are_left_to_kubernetes() -> None:
    pod = _beside(ended_builder(0, _SUCCESS, "Completed"), replace(_PROXY, is_init=True))
    done = decide(make_job(), pod).status
    for job in (make_job(), make_job(succeeded=True)):
        again = decide_build(BuildSnapshot(build=make_build(done), job=job, pods=(pod,), now=LATER))
        assert (again.delete_job, again.requeue_seconds) == ("", None)
