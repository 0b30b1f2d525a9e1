"""Ready means that requests are answered; AllTargets and UpToDate say what a rollout still lacks."""

from typing import Any

from tests.controller.engine_world import EngineWorld
from tests.controller.gpu_nodes import gpu_node

from enginesmith_operator.api.engine_status import EngineStatus
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.inference_engine.status import with_conflict, with_refusal
from enginesmith_operator.controller.shared.conditions import find_condition
from enginesmith_operator.objects.labels import TARGET

L4 = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}}
L40S = {"name": "l40s", "gpu": {"product": "NVIDIA-L40S"}}
CPU = {"name": "cpu", "backend": "onnxruntime", "standby": True}


def pair(**spec: Any) -> EngineWorld:
    """An engine on an L4, in a fleet that has an L40S too."""
    world = EngineWorld(**spec)
    world.nodes.observe(gpu_node("gpu-2", "NVIDIA-L40S"))
    return world


def told(world: EngineWorld) -> dict[str, str]:
    """Return the status of the three conditions."""
    return {kind: world.condition(kind).status.value for kind in ("Ready", "AllTargets", "UpToDate")}


def holding(ready: bool, every: bool, current: bool) -> dict[str, str]:  # noqa: FBT001 - three conditions in order
    """Return what the three conditions are to be."""
    return dict(zip(("Ready", "AllTargets", "UpToDate"), map(str, (ready, every, current)), strict=True))


def finish(world: EngineWorld) -> None:
    """Build what is wanted, start its pods and come to rest."""
    world.settle()
    world.end_builds()
    world.step()
    world.start_pods()
    world.settle()


def test_while_the_next_engine_is_built_and_started_it_is_ready_and_not_up_to_date() -> None:
    world = EngineWorld()
    world.step()
    assert told(world) == holding(False, False, False)
    world.serve()
    assert told(world) == holding(True, True, True)
    world.change_spec(build={"epoch": 1})
    world.step()
    assert told(world) == holding(True, True, False)
    assert world.condition("UpToDate").reason == "BuildingNext"
    world.end_builds()
    world.step()
    world.pend_pods("l4", beside_old=True)
    assert told(world) == holding(True, True, False)
    assert world.condition("UpToDate").reason == "Starting"
    world.start_pods()
    world.settle()
    assert told(world) == holding(True, True, True)


def test_a_target_that_served_and_does_not_answer_makes_it_not_ready() -> None:
    world = pair(targets=[L4, L40S])
    world.serve()
    assert told(world) == holding(True, True, True)
    world.drop_pods("l4")
    ready = world.condition("Ready")
    assert told(world) == holding(False, False, False)
    assert ready.message.startswith("l4: ")


def test_a_new_target_that_has_not_served_yet_leaves_it_ready() -> None:
    world = pair()
    world.serve()
    world.change_spec(targets=[L4, L40S])
    world.step()
    assert told(world) == holding(True, False, False)
    ready = world.condition("Ready")
    assert (ready.reason, ready.message.partition(";")[0]) == ("SomeTargets", "on l4")
    finish(world)
    assert told(world) == holding(True, True, True)


def test_a_target_with_another_name_leaves_it_ready() -> None:
    world = EngineWorld()
    world.serve()
    world.change_spec(targets=[{**L4, "name": "gpu"}])
    world.step()
    assert told(world) == holding(True, False, False)
    assert world.condition("Ready").message.startswith("on l4; without gpu: ")


def test_a_standby_that_answers_leaves_it_ready() -> None:
    world = EngineWorld(targets=[L4, CPU])
    world.serve()
    assert told(world) == holding(True, True, True)
    world.drop_pods("l4")
    world.drop_pods("cpu")
    _show_ready(world, "l4", 0)
    world.step()
    assert told(world) == holding(False, False, False), "the standby has no pods yet"
    world.start_pods(target="cpu")
    world.step()
    assert told(world)["Ready"] == "True"
    assert world.condition("Ready").message.startswith("on cpu; without l4: ")
    assert told(world)["AllTargets"] == "False"


def test_a_replica_less_is_no_outage() -> None:
    world = EngineWorld(targets=[{**L4, "replicas": 2}])
    world.serve()
    world.start_pods(only=1)
    assert told(world)["Ready"] == "True"


def test_a_refusal_by_the_api_server_leaves_what_answers_ready() -> None:
    world = EngineWorld()
    world.serve()
    snapshot = world.snapshot()
    refused = with_refusal(snapshot.status, "a policy forbids it", snapshot)
    assert _status_of(refused, "Ready") == "True"
    assert _status_of(refused, "UpToDate") == "False"
    fresh = EngineWorld().snapshot()
    assert _status_of(with_refusal(fresh.status, "a policy forbids it", fresh), "Ready") == "False"


def test_a_service_that_is_not_ours_hides_what_answers() -> None:
    world = EngineWorld()
    world.serve()
    snapshot = world.snapshot()
    for name, want in (("Service ocr", "False"), ("PodDisruptionBudget ocr-l4-1", "True")):
        taken = with_conflict(snapshot.status, (name,), snapshot)
        assert _status_of(taken, "Ready") == want, name
        assert _status_of(taken, "UpToDate") == "False", name
        types = [one.type for one in taken.conditions]
        assert (len(types), types[:2]) == (len(set(types)), ["Ready", "UpToDate"])


def _status_of(status: EngineStatus, kind: str) -> str:
    found = find_condition(status.conditions, kind)
    assert found is not None
    return found.status.value


def _show_ready(world: EngineWorld, target: str, count: int) -> None:
    (deployment,) = [one for one in world.of_kind("Deployment") if _target(one) == target]
    world.put(deployment | {"status": {"readyReplicas": count, "observedGeneration": 1}})


def _target(document: Json) -> str:
    return str(document["metadata"]["labels"][TARGET])
