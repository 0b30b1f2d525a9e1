"""Which builds an engine has, when one is made anew, and which are kept."""

from typing import Any

import pytest
from tests.controller.engine_world import EngineWorld
from tests.controller.gpu_nodes import gpu_node

from enginesmith_operator.api.engine_status import TargetPhase


def test_a_prepared_model_is_built_once_for_each_engine() -> None:
    world = EngineWorld()
    world.step()
    world.end_preparation()
    decision = world.step()
    assert [one["kind"] for one in decision.creates] == ["EngineBuild"]
    assert world.look().creates == ()
    assert world.target("l4").phase is TargetPhase.BUILDING


def test_an_engine_that_the_store_has_is_not_built() -> None:
    first = EngineWorld()
    first.serve()
    (engine,) = first.target("l4").engines
    assert engine.key is not None
    world = EngineWorld()
    world.step()
    world.end_preparation(stored_engines={engine.key: "ef" * 32})
    decision = world.step()
    assert decision.creates == ()
    assert [one["kind"] for one in decision.applies] == ["Deployment"]


def test_a_build_that_was_deleted_by_hand_is_made_again_while_it_is_needed_and_not_after() -> None:
    world = EngineWorld()
    world.step()
    world.end_preparation()
    world.step()
    (build,) = world.cache.of_kind("EngineBuild")
    world.cache.remove(build.address, build.uid)
    assert [one["kind"] for one in world.step().creates] == ["EngineBuild"]
    world.end_builds()
    world.settle()
    (build,) = world.cache.of_kind("EngineBuild")
    world.cache.remove(build.address, build.uid)
    assert world.look().creates == ()
    assert world.target("l4").engines[0].stored


def test_a_build_that_nobody_wants_any_more_is_deleted() -> None:
    world = EngineWorld()
    world.step()
    world.end_preparation()
    world.step()
    world.change_spec(build={"epoch": 1})
    decision = world.step()
    assert [one.address.kind for one in decision.deletes] == ["EngineBuild"]
    assert len(world.of_kind("EngineBuild")) == 1


def _build_epoch(world: EngineWorld, epoch: int) -> str:
    """Go to another engine of the same model until it serves; return its key."""
    world.change_spec(build={"epoch": epoch})
    world.step()
    world.wait(60)
    world.end_builds()
    world.step()
    world.start_pods()
    world.settle()
    return world.target("l4").desired[0]


def _remembered(world: EngineWorld) -> tuple[set[str], set[str]]:
    """Return the keys that builds remember and those that the status does."""
    builds = {one["spec"]["request"]["engineKey"] for one in world.of_kind("EngineBuild")}
    preparation = world.look().status.preparation
    assert preparation is not None
    return builds, {one.key for one in preparation.stored_engines}


@pytest.mark.parametrize(
    ("retention", "want_epochs"),
    [({}, [1, 2, 3]), ({"keepEngines": 0}, [3]), ({"keepEngines": 0, "keepFor": "150s"}, [1, 2, 3])],
    ids=["two beside the newest", "the newest alone", "whatever is young enough"],
)
def test_builds_are_remembered_for_as_long_as_the_retention_keeps_their_engines(
    retention: dict[str, Any], want_epochs: list[int]
) -> None:
    world = EngineWorld(retention=retention)
    world.serve()
    keys = {epoch: _build_epoch(world, epoch) for epoch in (1, 2, 3)}
    want = {keys[epoch] for epoch in want_epochs}
    assert _remembered(world) == (want, want)


def test_the_engine_that_serves_is_remembered_though_nobody_wants_it_any_more() -> None:
    world = EngineWorld(retention={"keepEngines": 0})
    world.serve()
    (served,) = world.target("l4").serving
    world.change_spec(build={"epoch": 1})
    world.step()
    assert served not in world.target("l4").desired
    assert served in _remembered(world)[1]


def test_two_targets_that_want_one_engine_have_it_built_once_and_leave_the_build_alone() -> None:
    world = EngineWorld(targets=[{"name": name, "gpu": {"product": "NVIDIA-L4"}} for name in ("first", "second")])
    world.step()
    world.end_preparation()
    world.step()
    (build,) = world.of_kind("EngineBuild")
    decision = world.settle()
    assert (decision.creates, decision.deletes, decision.applies) == ((), (), ())
    assert world.of_kind("EngineBuild") == [build]
    world.end_builds()
    world.step()
    assert len(world.of_kind("Deployment")) == 2


@pytest.mark.parametrize("build_spec", [{}, {"timeout": "7m"}])
def test_two_engines_that_want_one_engine_share_its_build(build_spec: dict[str, Any]) -> None:
    first = EngineWorld()
    first.step()
    first.end_preparation()
    first.step()
    (build,) = first.of_kind("EngineBuild")
    second = EngineWorld(name="copy", build=build_spec)
    second.step()
    second.end_preparation()
    second.put(build)
    decision = second.step()
    assert (decision.creates, decision.deletes) == ((), ())
    (shared,) = [one for one in decision.applies if one["kind"] == "EngineBuild"]
    assert sorted(one["uid"] for one in shared["metadata"]["ownerReferences"]) == ["uid-copy", "uid-ocr"]
    assert shared["metadata"]["uid"] == build["metadata"]["uid"]
    # Its owners are written as a whole: one that another engine has added meanwhile must not be lost.
    assert shared["metadata"]["resourceVersion"] == build["metadata"]["resourceVersion"]
    assert "spec" not in shared


def _fail_build(world: EngineWorld, **failure: Any) -> None:
    (build,) = world.of_kind("EngineBuild")
    stamp = world.now.isoformat().replace("+00:00", "Z")
    build["status"] = {
        "phase": "Failed",
        "finishedAt": stamp,
        "failure": {"reason": "StoreUnreachable", "message": "no answer", **failure},
    }
    world.put(build)


def _building() -> EngineWorld:
    world = EngineWorld()
    world.step()
    world.end_preparation()
    world.step()
    return world


def test_a_build_that_failed_for_a_reason_that_may_pass_is_made_anew_after_a_pause() -> None:
    world = _building()
    _fail_build(world, retry=True)
    decision = world.step()
    assert decision.deletes == ()
    assert decision.requeue_seconds == 60.0
    assert world.condition("Built").reason == "StoreUnreachable"
    world.wait(61)
    assert [one.address.kind for one in world.step().deletes] == ["EngineBuild"]
    assert [one["kind"] for one in world.step().creates] == ["EngineBuild"]


def test_a_build_that_failed_for_good_stays_until_something_that_it_is_made_of_changes() -> None:
    world = _building()
    _fail_build(world, reason="OutOfMemory", retry=False)
    world.wait(86_400)
    assert world.step().deletes == ()
    assert world.target("l4").phase is TargetPhase.FAILED
    world.nodes.observe(gpu_node("gpu-2"))
    assert world.step().deletes == ()
    world.change_spec(build={"resources": {"limits": {"memory": "64Gi"}}})
    assert [one.address.kind for one in world.step().deletes] == ["EngineBuild"]
    (build,) = world.step().creates
    assert build["spec"]["placement"]["resources"]["limits"] == {"memory": "64Gi"}


def test_a_build_that_has_not_begun_is_made_anew_where_it_is_wanted_otherwise() -> None:
    world = _building()
    corrected = f"registry.example/runtime@sha256:{'b2' * 32}"
    world.catalog({"trt": {"backend": "tensorrt", "version": "10.13.3.9", "cuda": "12.9", "image": corrected}})
    assert [one.address.kind for one in world.step().deletes] == ["EngineBuild"]
    (build,) = world.step().creates
    assert build["spec"]["image"] == corrected
    build = world.of_kind("EngineBuild")[0]
    build["status"] = {"phase": "Building"}
    world.put(build)
    world.change_spec(build={"resources": {"limits": {"memory": "64Gi"}}})
    assert world.step().deletes == ()


def test_a_build_that_two_engines_want_otherwise_is_not_made_anew_by_each_in_turn_at_once() -> None:
    world = _building()
    (build,) = world.of_kind("EngineBuild")
    build["metadata"]["ownerReferences"].append(
        {"apiVersion": "enginesmith.io/v1alpha1", "kind": "InferenceEngine", "name": "copy", "uid": "uid-copy"}
    )
    world.put(build)
    world.change_spec(build={"resources": {"limits": {"memory": "64Gi"}}})
    assert world.step().deletes == ()
    _fail_build(world, reason="OutOfMemory", retry=False)
    decision = world.step()
    assert (decision.deletes, decision.requeue_seconds) == ((), 60.0)
    world.wait(61)
    assert [one.address.kind for one in world.step().deletes] == ["EngineBuild"]


def test_an_engine_that_a_pod_does_not_find_in_the_store_is_built_again_and_only_once() -> None:
    world = EngineWorld()
    world.serve()
    report = {"failure": {"exitCode": 18, "what": "the store has no such engine", "reason": "EngineMissing"}}
    world.wait(60)
    world.start_pods(ready=False, exit_code=18, message=report)
    assert [one.address.kind for one in world.step().deletes] == ["EngineBuild"]
    assert [one["kind"] for one in world.step().creates] == ["EngineBuild"]
    world.wait(60)
    world.end_builds()
    again = world.step()
    assert (again.deletes, again.creates) == ((), ())
    assert world.target("l4").engines[0].stored
