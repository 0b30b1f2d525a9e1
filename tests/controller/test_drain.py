"""A drain: the budget makes way where no node can replace a replica, a standby first, and "cordoned" is said."""

from typing import Any

from tests.controller.engine_world import EngineWorld
from tests.controller.gpu_nodes import gpu_node

from enginesmith_operator.api.engine_status import TargetPhase
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.watch.intake import JOB_NAME
from enginesmith_operator.objects.labels import TARGET

_TWO = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}, "replicas": 2}
_STANDBY = {"name": "a10", "gpu": {"product": "NVIDIA-A10"}, "replicas": 1, "standby": True}
_WORDS = "0/1 nodes are available: 1 node(s) were unschedulable."


def _budget(world: EngineWorld, target: str = "l4") -> int:
    found = next(one for one in world.of_kind("PodDisruptionBudget") if one["metadata"]["labels"][TARGET] == target)
    unavailable: int = found["spec"]["maxUnavailable"]
    return unavailable


def _pods(world: EngineWorld, target: str) -> list[Json]:
    return [
        one.document()
        for one in world.cache.of_kind("Pod")
        if one.labels.get(TARGET) == target and JOB_NAME not in one.labels
    ]


def _cordon(world: EngineWorld, name: str, *, cordoned: bool = True) -> None:
    world.nodes.observe({**gpu_node(name), "spec": {"unschedulable": cordoned}})


def _evict_one(world: EngineWorld, target: str = "l4") -> None:
    """Let a pod of a target be replaced by one that fits no node."""
    pod = _pods(world, target)[-1]
    at = world.now.isoformat().replace("+00:00", "Z")
    waits = {"type": "PodScheduled", "status": "False", "message": _WORDS, "lastTransitionTime": at}
    pod["status"] = {"conditions": [waits, {"type": "Ready", "status": "False"}]}
    pod["spec"] = {}
    world.put(pod)
    _ready_replicas(world, target)


def _ready_replicas(world: EngineWorld, target: str) -> None:
    deployment = next(one for one in world.of_kind("Deployment") if one["metadata"]["labels"][TARGET] == target)
    ready = [pod for pod in _pods(world, target) if {"type": "Ready", "status": "True"} in pod["status"]["conditions"]]
    deployment["status"]["readyReplicas"] = len(ready)
    world.put(deployment)


def _serving(*targets: dict[str, Any]) -> EngineWorld:
    world = EngineWorld(targets=list(targets))
    world.serve()
    return world


def test_a_drain_of_the_only_node_completes_and_says_that_nothing_takes_over() -> None:
    world = _serving(_TWO)
    _cordon(world, "gpu-1")
    world.settle()
    assert _budget(world) == 1
    _evict_one(world)
    assert world.step().requeue_seconds is not None
    assert _budget(world) == 1
    world.wait(16)
    world.settle()
    assert _budget(world) == 2
    target = world.target("l4")
    assert (target.phase, target.reason) == (TargetPhase.SERVING, "NodeCordoned")
    assert target.message == (
        "1 of 2 replicas are ready; node gpu-1 is cordoned and no other node has room for one, so the replicas "
        "there may be evicted; uncordon it, or add a node"
    )


def test_the_budget_is_as_it_was_once_the_node_is_back() -> None:
    world = _serving(_TWO)
    _cordon(world, "gpu-1")
    _evict_one(world)
    world.wait(16)
    world.settle()
    _cordon(world, "gpu-1", cordoned=False)
    world.settle()
    assert _budget(world) == 1


def test_replicas_on_other_nodes_stay_protected() -> None:
    world = _serving({**_TWO, "replicas": 3})
    world.nodes.observe(gpu_node("gpu-2"))
    first, *_ = _pods(world, "l4")
    first["spec"]["nodeName"] = "gpu-2"
    world.put(first)
    _cordon(world, "gpu-1")
    _evict_one(world)
    world.wait(16)
    world.settle()
    assert _budget(world) == 2


def test_a_node_that_is_only_cordoned_changes_nothing() -> None:
    world = _serving(_TWO)
    _cordon(world, "gpu-1")
    world.wait(3600)
    world.settle()
    assert _budget(world) == 1
    assert world.target("l4").phase is TargetPhase.SERVING


def test_a_pod_that_waits_while_no_node_is_cordoned_changes_nothing() -> None:
    world = _serving(_TWO)
    _evict_one(world)
    world.wait(3600)
    world.settle()
    assert _budget(world) == 1
    assert world.target("l4").reason == "NoFreeGPU"


def test_a_standby_takes_over_before_the_budget_makes_way() -> None:
    world = EngineWorld(targets=[_TWO, _STANDBY])
    world.nodes.observe(gpu_node("gpu-2", "NVIDIA-A10"))
    world.serve()
    for _ in range(3):
        world.end_builds()
        world.step()
    _cordon(world, "gpu-1")
    world.step()
    standby = next(one for one in world.of_kind("Deployment") if one["metadata"]["labels"][TARGET] == "a10")
    assert standby["spec"]["replicas"] == 1
    standby["status"] = {"readyReplicas": 0, "observedGeneration": 1}
    world.put(standby)
    _evict_one(world)
    world.wait(16)
    world.step()
    assert _budget(world) == 1
    standby["status"]["readyReplicas"] = 1
    world.put(standby)
    world.step()
    assert _budget(world) == 2


def test_a_standby_that_does_not_start_holds_a_drain_up_for_minutes_and_not_for_ever() -> None:
    world = EngineWorld(targets=[_TWO, _STANDBY])
    world.nodes.observe(gpu_node("gpu-2", "NVIDIA-A10"))
    world.serve()
    for _ in range(3):
        world.end_builds()
        world.step()
    _cordon(world, "gpu-1")
    world.step()
    standby = next(one for one in world.of_kind("Deployment") if one["metadata"]["labels"][TARGET] == "a10")
    standby["status"] = {"readyReplicas": 0, "observedGeneration": 1}
    world.put(standby)
    _evict_one(world)
    world.wait(16)
    assert (world.step().requeue_seconds or 0) <= 300
    world.wait(301)
    world.step()
    assert _budget(world) == 2


def test_a_new_pod_that_fits_no_node_is_told_of_the_cordoned_one() -> None:
    world = _serving({**_TWO, "replicas": 1})
    world.nodes.observe(gpu_node("gpu-2"))
    _cordon(world, "gpu-1")
    _evict_one(world)
    world.wait(16)
    target = world.target("l4")
    assert target.reason == "NodeCordoned"
    assert "node gpu-1 is cordoned (kubectl uncordon)" in target.message
    assert "no free" not in target.message
