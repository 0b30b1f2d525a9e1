"""A container that keeps a Job's pod alive, as a service mesh adds one: the work ends with its own container."""

from typing import Any

import pytest
from tests.controller.engine_world import DIGEST, EngineWorld

from enginesmith_contract.failure import Failure
from enginesmith_contract.preparation_job import PreparationReport
from enginesmith_operator.api.conditions import ConditionStatus

_PROXY: dict[str, Any] = {"name": "proxy", "state": {"running": {"startedAt": "2026-11-23T12:00:00Z"}}}
_MISSING = Failure(exit_code=12, what="there is no such model", where="s3://models/ocr.onnx", reason="NotFound")


def _ended(world: EngineWorld, word: str, code: int) -> dict[str, Any]:
    at = world.now.isoformat().replace("+00:00", "Z")
    return {"terminated": {"exitCode": code, "message": word, "startedAt": at, "finishedAt": at}}


def _report(world: EngineWorld, *, native: bool = False, **report: Any) -> None:
    (job,) = [one for one in world.of_kind("Job") if "-prep-" in one["metadata"]["name"]]
    word = PreparationReport(**report).to_json().decode()
    mine = {"name": "prepare", "state": _ended(world, word, 12 if "failure" in report else 0)}
    if native:
        world.job_pod(job, [mine], initContainerStatuses=[_PROXY])
    else:
        world.job_pod(job, [mine, _PROXY])


def test_a_preparation_that_has_reported_is_finished_and_its_job_goes() -> None:
    world = EngineWorld()
    world.step()
    (job,) = world.of_kind("Job")
    _report(world, preparation_key="ab" * 32, source_digest=DIGEST)
    decision = world.step()
    assert world.condition("Prepared").status is ConditionStatus.TRUE
    assert decision.deletes == ()
    assert decision.requeue_seconds is not None
    world.wait(11)
    assert [one.uid for one in world.step().deletes] == [job["metadata"]["uid"]]
    assert [one for one in world.settle().creates if one["kind"] == "Job"] == []


def test_a_preparation_that_failed_beside_a_sidecar_is_told_ended_and_tried_again_after_a_pause() -> None:
    world = EngineWorld()
    world.step()
    (job,) = world.of_kind("Job")
    _report(world, failure=_MISSING)
    world.step()
    world.wait(11)
    decision = world.step()
    assert world.condition("Prepared").reason == "NotFound"
    assert [one.uid for one in decision.deletes] == [job["metadata"]["uid"]]
    waits = world.step()
    assert [one["kind"] for one in waits.creates] == []
    assert waits.requeue_seconds is not None
    world.wait(31)
    assert [one["kind"] for one in world.step().creates] == ["Job"]


def test_a_native_sidecar_is_kubelet_s_to_end() -> None:
    world = EngineWorld()
    world.step()
    _report(world, native=True, preparation_key="ab" * 32, source_digest=DIGEST)
    world.step()
    world.wait(3600)
    assert world.step().deletes == ()


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_preparation_that_nothing_asks_for_any_more_is_ended(has_begun: bool) -> None:  # noqa: FBT001 - a case
    world = EngineWorld()
    world.step()
    (job,) = world.of_kind("Job")
    if has_begun:
        world.job_pod(job, [{"name": "prepare", "state": {"running": {"startedAt": "2026-11-23T12:00:00Z"}}}])
    world.change_spec(model={"uri": "s3://models/another.onnx"})
    decision = world.step()
    assert [one.uid for one in decision.deletes] == [job["metadata"]["uid"]]
    assert [one["kind"] for one in decision.creates] == ["Job"]


def test_a_preparation_that_ended_stays_for_its_log() -> None:
    world = EngineWorld()
    world.step()
    world.end_preparation()
    world.change_spec(model={"uri": "s3://models/another.onnx"})
    assert world.step().deletes == ()
