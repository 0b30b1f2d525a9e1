"""`build.quickStart`: a quick engine serves while the full one is built, and only where nothing else serves."""

from typing import Any

import pytest
from tests.controller.engine_world import EngineWorld
from tests.controller.gpu_nodes import gpu_node

from enginesmith_operator.api.conditions import READY, UP_TO_DATE
from enginesmith_operator.api.engine_status import TargetPhase, TargetStatus
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.inference_engine.decide import resolve_engine
from enginesmith_operator.objects.labels import TARGET
from enginesmith_operator.planning.preparation import preparation_job_request

QUICK = {"quickStart": True}
_WRONG = {"reason": "VerificationFailed", "what": "wrong answers", "exitCode": 17}


def quick_world(**spec: Any) -> EngineWorld:
    """An engine with quick start whose model is prepared."""
    world = EngineWorld(**{"build": QUICK} | spec)
    world.step()
    world.end_preparation()
    world.step()
    return world


def levels(world: EngineWorld) -> list[int]:
    """Return the optimization levels of the builds that are there, in order."""
    return sorted(one["spec"]["request"]["options"]["optimizationLevel"] for one in world.of_kind("EngineBuild"))


def build_at(world: EngineWorld, level: int) -> Json:
    """Return the build of a level."""
    found = world.of_kind("EngineBuild")
    return next(one for one in found if one["spec"]["request"]["options"]["optimizationLevel"] == level)


def key_at(world: EngineWorld, level: int) -> str:
    """Return the key of the engine of a level."""
    return str(build_at(world, level)["spec"]["request"]["engineKey"])


def fail_build(world: EngineWorld, level: int, message: str, *, retry: bool = False) -> None:
    """Let a build fail."""
    build = build_at(world, level)
    failure = {"reason": "BuilderFailed", "message": message, "retry": retry}
    ready = {"type": "Ready", "status": "False", "reason": "BuilderFailed", "message": message}
    ready["lastTransitionTime"] = world.now.isoformat()
    finished = world.now.isoformat()
    build["status"] = {"phase": "Failed", "failure": failure, "conditions": [ready], "finishedAt": finished}
    world.put(build)


def serve_quickly(world: EngineWorld) -> str:
    """Go on until the quick engine serves; return its key."""
    key = key_at(world, 0)
    world.end_builds()
    world.step()
    world.start_pods()
    world.settle()
    return key


def target(world: EngineWorld) -> TargetStatus:
    """Return the only target."""
    return world.look().status.targets[0]


def template_keys(world: EngineWorld) -> list[str]:
    """Return the keys that the Deployment's pods may load."""
    live = world.snapshot().deployments["l4"]
    return [one.key for one in live.notes.engines]


def test_the_quick_engine_is_built_alone_and_the_full_one_once_its_pods_are_up() -> None:
    world = quick_world()
    assert levels(world) == [0]
    assert "the quick engine (optimization level 0) is built first" in target(world).message
    world.end_builds()
    world.step()
    assert levels(world) == [0], "the full build would take the GPU that the quick engine's pod needs"
    world.start_pods()
    world.settle()
    assert levels(world) == [0, 3]


def test_the_status_says_that_the_quick_engine_serves() -> None:
    world = quick_world()
    key = serve_quickly(world)
    status = target(world)
    assert (status.phase, status.reason) == (TargetPhase.SERVING, "QuickEngine")
    assert status.message == "serving the quick engine (optimization level 0); the full engine is being built"
    assert (status.engines[0].serving, status.engines[0].serving_quick) == (False, True)
    assert (status.serving, status.desired) == ((key,), (key_at(world, 3),))
    assert world.look().status.serving_on == "NVIDIA-L4 (quick)"
    assert world.condition(READY).status.value == "True"
    behind = world.condition(UP_TO_DATE)
    assert (behind.status.value, behind.reason) == ("False", "QuickEngine")


def test_the_full_engine_is_rolled_out_and_the_quick_one_forgotten() -> None:
    world = quick_world()
    quick = serve_quickly(world)
    full = key_at(world, 3)
    world.end_builds()
    world.step()
    assert template_keys(world) == [full]
    assert world.snapshot().deployments["l4"].notes.served[0].key == quick, "a failed rollout goes back to it"
    assert levels(world) == [0, 3]
    world.start_pods()
    world.settle()
    status = target(world)
    assert (status.reason, status.engines[0].serving, status.engines[0].serving_quick) == ("Serving", True, False)
    assert levels(world) == [3]
    assert world.look().status.serving_on == "NVIDIA-L4"


def test_a_stored_full_engine_needs_no_quick_one() -> None:
    world = EngineWorld()
    world.serve()
    world.change_spec(build=QUICK)
    world.settle()
    assert levels(world) == [3]
    assert target(world).reason == "Serving"


def test_a_full_engine_in_the_store_from_before_needs_no_quick_one() -> None:
    first = quick_world()
    serve_quickly(first)
    world = EngineWorld(build=QUICK)
    world.step()
    world.end_preparation(stored_engines={key_at(first, 3): "ee" * 32})
    world.step()
    assert levels(world) == []
    assert template_keys(world) == [key_at(first, 3)]


def test_an_earlier_engine_serves_until_the_full_one_is_stored() -> None:
    world = EngineWorld()
    world.serve()
    world.change_spec(build={**QUICK, "epoch": 1})
    world.settle()
    assert levels(world) == [3, 3]
    assert target(world).reason == "BuildingNext"


def test_a_failed_quick_build_does_not_stop_the_full_one() -> None:
    world = quick_world()
    fail_build(world, 0, "level 0 has no kernel for this layer", retry=True)
    world.settle()
    assert levels(world) == [0, 3]
    status = target(world)
    assert status.phase is TargetPhase.BUILDING
    assert "without the quick engine (optimization level 0): level 0 has no kernel for this layer" in status.message
    world.wait(7200)
    world.settle()
    assert levels(world) == [0, 3], "a quick build is not tried again"
    world.end_builds()
    world.step()
    world.start_pods()
    world.settle()
    assert target(world).reason == "Serving"


def test_a_failure_of_both_builds_says_why_the_full_one_failed() -> None:
    world = quick_world()
    fail_build(world, 0, "quick: no such operator")
    world.step()
    fail_build(world, 3, "full: no such operator")
    world.settle()
    status = target(world)
    assert (status.phase, status.message) == (TargetPhase.FAILED, "full: no such operator")


def test_the_quick_engine_stays_when_the_full_build_fails() -> None:
    world = quick_world()
    key = serve_quickly(world)
    fail_build(world, 3, "the answers differ")
    world.settle()
    status = target(world)
    assert (status.phase, status.reason, status.serving) == (TargetPhase.SERVING, "BuildFailed", (key,))
    assert status.message == (
        "serving the quick engine (optimization level 0); the full build failed: the answers differ"
    )
    assert levels(world) == [0, 3]
    assert template_keys(world) == [key]


def test_a_full_engine_that_pods_refuse_yields_to_the_quick_one() -> None:
    world = quick_world()
    quick = serve_quickly(world)
    world.end_builds()
    world.step()
    world.start_pods(
        ready=False,
        exit_code=17,
        message={"engineKey": key_at(world, 3), "failure": _WRONG},
    )
    world.step()
    world.start_pods()
    world.settle()
    assert template_keys(world) == [quick]
    status = target(world)
    assert status.reason == "RolledBack"
    assert status.message.startswith("serving the quick engine (optimization level 0); ")


def test_a_quick_engine_that_pods_refuse_yields_to_the_full_build() -> None:
    world = quick_world()
    quick = key_at(world, 0)
    world.end_builds()
    world.step()
    message = {"engineKey": quick, "failure": _WRONG}
    world.start_pods(ready=False, exit_code=17, message=message)
    world.settle()
    assert levels(world) == [0, 3]
    status = target(world)
    assert status.phase is TargetPhase.BUILDING
    assert "wrong answers" in status.message
    world.end_builds()
    world.step()
    world.start_pods()
    world.settle()
    assert target(world).reason == "Serving"


@pytest.mark.parametrize("when_full", ["wait", "replace"])
def test_the_full_build_waits_for_another_gpu_while_the_quick_engine_has_the_only_one(when_full: str) -> None:
    world = quick_world(rollout={"whenFull": when_full})
    serve_quickly(world)
    world.hold_builds()
    world.wait(60)
    decision = world.settle()
    status = decision.status.targets[0]
    assert (status.phase, status.reason, status.ready_replicas) == (TargetPhase.WAITING_FOR_GPU, "NoFreeGPU", 1)
    assert status.message.startswith("serving the quick engine (optimization level 0); no free nvidia.com/gpu on node")
    (deployment,) = world.of_kind("Deployment")
    assert deployment["spec"]["replicas"] == 1
    remedy = "without build.quickStart" if when_full == "replace" else "rollout.whenFull: replace"
    assert remedy in status.message


def test_without_quick_start_a_replica_stops_for_the_full_build_after_all() -> None:
    world = quick_world(rollout={"whenFull": "replace"})
    serve_quickly(world)
    world.hold_builds()
    world.wait(60)
    world.settle()
    world.change_spec(build={})
    world.step()
    (deployment,) = world.of_kind("Deployment")
    assert deployment["spec"]["replicas"] == 0


def test_on_one_gpu_a_replica_stops_for_the_quick_build_only() -> None:
    world = EngineWorld(rollout={"whenFull": "replace"}, build=QUICK)
    world.step()
    world.end_preparation()
    world.step()
    old_quick = serve_quickly(world)
    world.end_builds()
    world.step()
    world.start_pods()
    world.settle()
    world.change_spec(build={**QUICK, "epoch": 1})
    world.step()
    assert levels(world) == [3, 3], "the old engine serves, so the full build is tried first"
    world.hold_builds()
    world.wait(20)
    world.step()
    # The full build, which has not begun, makes room for the quick one, and a replica too.
    (deployment,) = world.of_kind("Deployment")
    assert (levels(world), deployment["spec"]["replicas"]) == ([0, 3], 0)
    assert target(world).reason == "MadeRoom"
    assert key_at(world, 0) != old_quick
    world.start_pods()
    world.settle()
    assert levels(world) == [0, 3]
    quick = key_at(world, 0)
    world.end_builds()
    world.step()
    (deployment,) = world.of_kind("Deployment")
    assert (template_keys(world), deployment["spec"]["replicas"]) == ([quick], 1)
    assert levels(world) == [0, 3], "the full build has to wait for the pod"
    world.start_pods()
    world.settle()
    assert levels(world) == [0, 3, 3]
    world.hold_builds()
    world.wait(60)
    world.settle()
    (deployment,) = world.of_kind("Deployment")
    assert (target(world).phase, deployment["spec"]["replicas"]) == (TargetPhase.WAITING_FOR_GPU, 1)


def test_a_quick_engine_takes_the_place_of_a_target_that_leaves() -> None:
    world = EngineWorld()
    world.nodes.observe(gpu_node("gpu-2"))
    world.serve()
    world.change_spec(build={**QUICK, "epoch": 1}, targets=[{"name": "next", "gpu": {"product": "NVIDIA-L4"}}])
    world.settle()
    assert levels(world) == [0, 3], "the quick engine's build, and that of the target which leaves"
    world.end_builds()
    world.step()
    assert {one["metadata"]["labels"][TARGET] for one in world.of_kind("Deployment")} == {"l4", "next"}
    world.start_pods()
    world.step()
    world.hold_builds()
    world.wait(60)
    world.settle()
    # The full build waits for the GPU of the target that leaves.
    assert target(world).reason == "NoFreeGPU"
    assert [one["metadata"]["labels"][TARGET] for one in world.of_kind("Deployment")] == ["next"]


def test_two_products_start_quickly_each() -> None:
    world = EngineWorld(build=QUICK, targets=[{"name": "l4"}])
    world.nodes.observe(gpu_node("gpu-2", "NVIDIA-L40S"))
    world.step()
    world.end_preparation()
    world.step()
    assert levels(world) == [0, 0]


def test_a_target_without_levels_is_built_once() -> None:
    targets = [
        {"name": "l4", "gpu": {"product": "NVIDIA-L4"}},
        {"name": "cpu", "backend": "onnxruntime"},
    ]
    world = quick_world(targets=targets)
    assert levels(world) == [0, 3]
    backends = [one["spec"]["request"]["keyInputs"]["backend"] for one in world.of_kind("EngineBuild")]
    assert sorted(backends) == ["onnxruntime", "tensorrt"]


@pytest.mark.parametrize("more", [{"replicas": 0}, {"standby": True}])
def test_a_target_that_is_not_asked_to_serve_needs_no_quick_engine(more: dict[str, Any]) -> None:
    cpu = {"name": "cpu", "backend": "onnxruntime"}
    targets = [cpu, {"name": "l4", "gpu": {"product": "NVIDIA-L4"}} | more]
    world = EngineWorld(build=QUICK, targets=targets)
    world.step()
    world.end_preparation()
    world.step()
    if "standby" in more:
        # Until the target before it serves, the standby is asked to.
        assert levels(world) == [0, 3]
        return
    assert levels(world) == [3, 3]


def test_the_preparation_looks_for_both_engines_in_the_store() -> None:
    world = EngineWorld(build=QUICK)
    candidates = preparation_job_request(resolve_engine(world.snapshot()).plan, "s3://engines").candidates
    assert [one.flags for one in candidates] == [{}, {"optimizationLevel": "0"}]
