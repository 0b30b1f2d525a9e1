"""What becomes of an EngineBuild whose engine a user's metric judges."""

from collections.abc import Iterable

import pytest
from tests.controller.build_snapshots import (
    DIGEST,
    ENDED,
    NOW,
    STARTED,
    ended_builder,
    failed_message,
    make_build,
    make_job,
    make_pod,
    ready_condition,
)

from enginesmith_contract.metric_container import MetricContainer
from enginesmith_contract.verification import VerificationPolicy
from enginesmith_operator.api.engine_build import BuildPhase, EngineBuild
from enginesmith_operator.controller.engine_build.decide import BuildDecision, decide_build
from enginesmith_operator.controller.engine_build.gather import wanted_log
from enginesmith_operator.controller.engine_build.snapshot import BuildSnapshot
from enginesmith_operator.controller.shared.pod_facts import ContainerFacts, Ending, JobFacts, PodFacts

BUILT = ended_builder(0, {"outcome": "succeeded", "exitCode": 0, "engineDigest": DIGEST, "verification": "passed"})


def step(
    name: str,
    code: int | None = None,
    said: str = "",
    reason: str = "Error",
    *,
    running_since: str = "",
    stuck: str = "",
) -> ContainerFacts:
    """A step of the pod that has ended with an exit code, that runs, or that waits."""
    ending = None
    if code is not None:
        ending = Ending(exit_code=code, reason=reason, message=said, started_at=STARTED, finished_at=ENDED)
    return ContainerFacts(name=name, ending=ending, running_since=running_since, stuck=stuck)


def judged_build() -> EngineBuild:
    """An EngineBuild with a metric."""
    build = make_build()
    metric = MetricContainer(image="r/metric@sha256:" + "0" * 64, at_least=0.9)
    request = build.spec.request.model_copy(update={"verification": VerificationPolicy(metric_container=metric)})
    return build.model_copy(update={"spec": build.spec.model_copy(update={"request": request})})


def snapshot(steps: Iterable[ContainerFacts], job: JobFacts | None = None, log: tuple[str, ...] = ()) -> BuildSnapshot:
    """What a pass sees of one pod."""
    pod = make_pod()
    pod = PodFacts(**{**vars(pod), "containers": tuple(steps), "phase": "Pending"})
    return BuildSnapshot(build=judged_build(), job=job or make_job(), pods=(pod,), log=log, now=NOW)


def decide(*steps: ContainerFacts, job: JobFacts | None = None, log: tuple[str, ...] = ()) -> BuildDecision:
    """What becomes of the build."""
    return decide_build(snapshot(steps, job, log))


def test_the_end_of_the_build_step_is_not_the_end_of_the_build() -> None:
    for metric in (step("metric"), step("metric", running_since=ENDED)):
        decision = decide(BUILT, metric, step("verdict"))
        assert decision.status.phase is BuildPhase.BUILDING
        assert (decision.status.result, decision.delete_job) == (None, "")
        assert "the user's metric" in ready_condition(decision).message


def test_a_metric_image_that_cannot_be_pulled_is_named() -> None:
    stuck = step("metric", stuck="ImagePullBackOff: Back-off pulling image: no such image")
    ready = ready_condition(decide(BUILT, stuck, step("verdict")))
    assert ready.reason == "ImageCannotBePulled"
    assert "no such image" in ready.message


def test_the_value_of_the_metric_is_in_the_status_and_in_the_event() -> None:
    said = (
        f'{{"outcome": "succeeded", "exitCode": 0, "engineDigest": "{DIGEST}", "metric": 0.93,'
        ' "judgedOn": "24 held-out samples"}'
    )
    done = (BUILT, step("metric", 0), step("verdict", 0, said, "Completed"))
    decision = decide(*done, job=make_job(succeeded=True, finished_at=ENDED))
    assert decision.status.phase is BuildPhase.SUCCEEDED
    assert decision.status.result is not None
    assert decision.status.result.metric == 0.93
    assert "metric 0.93" in decision.events[0].message
    assert "judged on 24 held-out samples" in decision.events[0].message


def test_a_refusal_is_a_failed_gate_with_the_metric_s_words() -> None:
    said = failed_message("VerificationFailed", "the metric refuses the engine (0.4, at least 0.9 passes)", code=17)
    text = str(said).replace("'", '"').replace("False", "false")
    ended = (BUILT, step("metric", 0), step("verdict", 17, text))
    decision = decide(*ended, job=make_job(failure="PodFailurePolicy", finished_at=ENDED))
    assert decision.status.failure is not None
    assert (decision.status.failure.reason, decision.status.failure.retry) == ("VerificationFailed", False)
    assert "0.4, at least 0.9 passes" in decision.status.failure.message


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (step("metric", 3, "Traceback\nKeyError: 'boxes'\n"), "ended with exit code 3, so the engine is refused: KeyE"),
        (step("metric", 1), "exit code 1, so the engine is refused: it said nothing"),
        (step("metric", 137, reason="OOMKilled"), "ran out of memory"),
        (step("metric", 128, 'exec: "/metric": no such file', "StartError"), "cannot be started"),
    ],
)
def test_a_metric_that_fails_refuses_the_engine(metric: ContainerFacts, words: str) -> None:
    steps = (BUILT, metric, step("verdict"))
    decision = decide(*steps, job=make_job(failure="PodFailurePolicy", finished_at=ENDED))
    failure = decision.status.failure
    assert failure is not None
    assert (failure.reason, failure.retry) == ("VerificationFailed", False)
    assert words in failure.message
    assert decision.events[0].is_warning
    # The Job has a moment until it knows: the condition says it already.
    ready = ready_condition(decide(*steps))
    assert (ready.reason, words in ready.message) == ("VerificationFailed", True)


def test_the_log_of_the_step_that_counts_is_read() -> None:
    running = snapshot((step("build", running_since=STARTED), step("metric"), step("verdict")))
    judging = snapshot((BUILT, step("metric", running_since=STARTED), step("verdict")))
    failed = snapshot((BUILT, step("metric", 3), step("verdict")), make_job(failure="PodFailurePolicy"), ("one", "two"))
    asked = [wanted_log(one) for one in (running, judging, failed)]
    assert [one and one.container for one in asked] == ["build", None, "metric"]
    failure = decide_build(failed).status.failure
    assert failure is not None
    assert (failure.log_tail, "is refused: two" in failure.message) == ("one\ntwo", True)
