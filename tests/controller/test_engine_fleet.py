"""What becomes of an InferenceEngine that serves when nodes, labels, drivers and toolchains change around it."""

from tests.controller.engine_world import EngineWorld
from tests.controller.gpu_nodes import gpu_node

from enginesmith_operator.api.conditions import ConditionStatus
from enginesmith_operator.controller.shared.status_document import status_document


def test_what_serves_goes_on_when_its_last_node_is_gone() -> None:
    world = EngineWorld()
    world.serve()
    world.nodes.forget("gpu-1", "node-gpu-1")
    decision = world.step()
    assert decision.deletes == ()
    assert [one for one in decision.applies if one["kind"] == "Deployment"] == []
    assert world.condition("Planned").status is ConditionStatus.FALSE


def test_labels_that_vanish_for_a_minute_change_no_condition_and_write_nothing() -> None:
    world = EngineWorld()
    world.serve()
    world.nodes.observe(gpu_node("gpu-1", labels=False))
    world.wait(60)
    decision = world.look()
    assert status_document(decision.status) == world.engine["status"]
    assert decision.applies == ()


def test_an_old_driver_is_refused_with_what_was_found_and_wanted_and_goes_on_when_it_is_put_right() -> None:
    world = EngineWorld()
    world.nodes.observe(gpu_node("gpu-1", driver="470.82.01"))
    world.step()
    assert world.condition("Planned").reason == "DriverFloor"
    assert "470.82.01" in world.target("l4").message
    assert world.of_kind("Job") == []
    world.nodes.observe(gpu_node("gpu-1"))
    assert [one["kind"] for one in world.step().creates] == ["Job"]


def test_a_toolchain_is_kept_when_the_catalog_gets_a_newer_one() -> None:
    world = EngineWorld()
    world.serve()
    image = f"registry.example/runtime@sha256:{'b2' * 32}"
    newer = {"backend": "tensorrt", "version": "10.14.1.48", "cuda": "12.9", "image": image}
    older = {**newer, "version": "10.13.3.9", "image": f"registry.example/runtime@sha256:{'a1' * 32}"}
    world.catalog({"trt": older, "trt-new": newer})
    decision = world.look()
    assert (decision.creates, decision.applies) == ((), ())
    assert world.condition("UpdateAvailable").status is ConditionStatus.TRUE
    assert "10.14.1.48" in world.condition("UpdateAvailable").message


def test_a_toolchain_that_is_in_no_catalog_is_kept_for_what_runs_with_it_and_else_let_go() -> None:
    world = EngineWorld()
    world.serve()
    image = f"registry.example/runtime@sha256:{'b2' * 32}"
    world.catalog({"trt": {"backend": "tensorrt", "version": "10.14.1.48", "cuda": "12.9", "image": image}})
    decision = world.look()
    assert (decision.creates, decision.applies) == ((), ())
    nonsense = {"name": "nonsense", "backend": "tensorrt", "version": "10.99", "cuda": "12.9", "image": "nonsense"}
    world.engine["status"]["targets"][0]["toolchain"] = nonsense
    toolchain = world.target("l4").toolchain
    assert toolchain is not None
    assert toolchain.version == "10.14.1.48"
