"""The first half of an engine's way: its model is looked at once, and again when there is a reason to."""

from tests.controller.engine_world import EngineWorld

from enginesmith_contract.failure import Failure
from enginesmith_operator.api.conditions import ConditionStatus
from enginesmith_operator.api.engine_status import TargetPhase

_MISSING = Failure(exit_code=12, what="there is no such model", where="s3://models/ocr.onnx", reason="NotFound")


def test_the_first_pass_prepares_and_builds_nothing() -> None:
    world = EngineWorld()
    decision = world.step()
    assert [one["kind"] for one in decision.creates] == ["Job"]
    assert [one["kind"] for one in decision.applies] == ["Service", "Service", "Service"]
    assert world.condition("Planned").status is ConditionStatus.TRUE
    assert world.condition("Prepared").status is ConditionStatus.FALSE
    assert world.target("l4").phase is TargetPhase.PREPARING


def test_a_preparation_is_over_with_its_pod_s_report_before_the_job_is_complete() -> None:
    world = EngineWorld()
    world.step()
    world.end_preparation(job_ends=False)
    decision = world.step()
    assert [one["kind"] for one in decision.creates] == ["EngineBuild"]
    assert decision.status.preparation is not None
    assert decision.status.preparation.finished_at is not None
    assert world.condition("Prepared").status is ConditionStatus.TRUE


def test_a_preparation_whose_pod_reports_a_failure_goes_on_while_its_job_does() -> None:
    world = EngineWorld()
    world.step()
    world.end_preparation(job_ends=False, failure=_MISSING)
    decision = world.step()
    assert decision.creates == ()
    assert decision.deletes == ()
    assert world.condition("Prepared").reason == "NotFound"


def test_a_preparation_that_is_remembered_without_its_key_is_found_out_again() -> None:
    world = EngineWorld()
    world.serve()
    before = world.look().status.preparation
    world.engine["status"]["preparation"] = {
        "request": world.engine["status"]["preparation"]["request"],
        "phase": "Succeeded",
    }
    after = world.settle().status.preparation
    assert before is not None
    assert after is not None
    assert (after.key, after.source_digest) == (before.key, before.source_digest)


def test_a_model_that_is_missing_is_told_and_asked_for_again_after_a_growing_pause() -> None:
    world = EngineWorld()
    world.step()
    world.end_preparation(failure=_MISSING)
    decision = world.step()
    assert world.condition("Prepared").reason == "NotFound"
    assert world.target("l4").reason == "NotFound"
    assert decision.deletes == ()
    assert decision.requeue_seconds == 30.0
    world.wait(31)
    retried = world.step()
    assert [one.address.kind for one in retried.deletes] == ["Job"]
    again = world.step()
    assert [one["kind"] for one in again.creates] == ["Job"]
    assert world.condition("Prepared").reason == "NotFound"
    world.wait(300)
    world.end_preparation(failure=_MISSING)
    waiting = world.step().requeue_seconds
    assert waiting is not None
    assert waiting > 300
    world.wait(waiting)
    world.step()
    world.step()
    world.end_preparation()
    world.step()
    assert world.condition("Prepared").status is ConditionStatus.TRUE


def test_what_a_preparation_failed_of_is_known_after_its_pod_is_gone() -> None:
    world = EngineWorld()
    world.step()
    world.end_preparation(failure=_MISSING)
    world.step()
    before = world.condition("Prepared")
    world.drop_preparation_pods()
    assert world.step().events == ()
    assert world.condition("Prepared") == before


def test_a_model_that_is_looked_at_again_stays_known_until_it_is_another() -> None:
    world = EngineWorld(model={"uri": "s3://models/ocr.onnx", "refresh": "1h"})
    world.serve()
    world.wait(3601)
    decision = world.step()
    assert [one["kind"] for one in decision.creates] == ["Job"]
    assert world.condition("Prepared").status is ConditionStatus.TRUE
    assert world.condition("Ready").status is ConditionStatus.TRUE


def test_looks_at_a_model_that_take_longer_than_its_refresh_do_not_pile_up() -> None:
    world = EngineWorld(model={"uri": "s3://models/ocr.onnx", "refresh": "60s"})
    world.wait(70)
    world.step()
    world.wait(70)
    world.step()
    (job,) = [one for one in world.of_kind("Job") if "-prep-" in one["metadata"]["name"]]
    world.end_preparation()
    world.step()
    assert world.condition("Prepared").status is ConditionStatus.TRUE
    assert [one["metadata"]["name"] for one in world.step().creates if one["kind"] == "Job"] != [
        job["metadata"]["name"]
    ]


def test_a_preparation_that_failed_is_made_again_at_once_when_the_spec_makes_another_pod_of_it() -> None:
    world = EngineWorld()
    world.step()
    (job,) = world.of_kind("Job")
    world.end_preparation(failure=_MISSING)
    assert world.step().deletes == ()
    world.change_spec(build={"resources": {"limits": {"memory": "4Gi"}}})
    decision = world.step()
    assert [one.uid for one in decision.deletes] == [job["metadata"]["uid"]]
    assert [one["metadata"]["name"] for one in decision.creates] == [job["metadata"]["name"]]
