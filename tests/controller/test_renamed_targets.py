"""Targets that are renamed, split, swapped or put in another order: what serves goes when its successor serves."""

from typing import Any

import pytest
from tests.controller.engine_world import EngineWorld
from tests.controller.gpu_nodes import gpu_node

from enginesmith_operator.api.conditions import ConditionStatus
from enginesmith_operator.api.engine_status import TargetPhase

CPU = {"name": "cpu", "backend": "onnxruntime", "replicas": 2}
L4 = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}}
T4 = {"name": "t4", "gpu": {"product": "Tesla-T4"}}


def _serving(*targets: dict[str, Any], **spec: Any) -> EngineWorld:
    world = EngineWorld(targets=list(targets), **spec)
    world.nodes.observe(gpu_node("gpu-2", "Tesla-T4"))
    world.serve()
    # A standby that started first has ended by now.
    world.start_pods()
    world.settle()
    return world


def _change(world: EngineWorld, *targets: dict[str, Any]) -> None:
    """Change the targets, and let everything be built that this needs."""
    world.change_spec(targets=list(targets))
    world.step()
    world.end_builds()
    world.step()


def _replicas(world: EngineWorld) -> dict[str, int]:
    found = world.of_kind("Deployment")
    return {one["metadata"]["labels"]["enginesmith.io/target"]: one["spec"]["replicas"] for one in found}


def _targets(world: EngineWorld, kind: str) -> set[str]:
    labels = [one["metadata"]["labels"] for one in world.of_kind(kind)]
    return {one["enginesmith.io/target"] for one in labels if "enginesmith.io/target" in one}


def test_a_target_that_gets_another_name_goes_when_the_new_one_serves_in_full() -> None:
    world = _serving(CPU)
    world.change_spec(targets=[CPU | {"name": "main"}])
    decision = world.step()
    assert [one.address.kind for one in decision.deletes] == []
    assert "TargetLeaves" in [event.reason for event in decision.events]
    world.settle()
    for kind in ("Deployment", "Service", "PodDisruptionBudget"):
        assert _targets(world, kind) == {"cpu", "main"}
    assert _replicas(world) == {"cpu": 2, "main": 2}
    serving = world.condition("Serving")
    assert (serving.status, "cpu" in serving.message) == (ConditionStatus.TRUE, True)

    world.start_pods(target="main", only=1)
    world.settle()
    assert _targets(world, "Deployment") == {"cpu", "main"}
    world.start_pods(target="main")
    world.settle()
    for kind in ("Deployment", "Service", "PodDisruptionBudget"):
        assert _targets(world, kind) == {"main"}
    assert world.condition("Serving").message == "on main"


def test_a_name_that_comes_back_before_the_new_one_serves_is_the_same_target_again() -> None:
    world = _serving(CPU)
    (before,) = world.of_kind("Deployment")
    _change(world, CPU | {"name": "main"})
    _change(world, CPU)
    world.settle()
    (after,) = world.of_kind("Deployment")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert "enginesmith.io/leaves" not in after["metadata"]["annotations"]
    assert world.target("cpu").phase is TargetPhase.SERVING


def test_a_name_that_changes_twice_waits_for_the_last_one() -> None:
    world = _serving(CPU)
    _change(world, CPU | {"name": "main"})
    _change(world, CPU | {"name": "prime"})
    world.settle()
    assert _targets(world, "Deployment") == {"cpu", "prime"}
    world.start_pods(target="prime")
    world.settle()
    assert _targets(world, "Deployment") == {"prime"}


def test_a_new_name_that_no_node_fits_leaves_what_serves() -> None:
    world = _serving(L4, CPU)
    _change(world, {"name": "main", "gpu": {"product": "NVIDIA-H100-80GB-HBM3"}}, CPU)
    world.settle()
    assert _targets(world, "Deployment") == {"l4", "cpu"}
    assert world.target("main").phase is TargetPhase.REFUSED


def test_a_target_that_is_taken_out_goes_at_once() -> None:
    world = _serving(L4, CPU)
    world.change_spec(targets=[CPU])
    world.step()
    assert _targets(world, "Deployment") == {"cpu"}


@pytest.mark.parametrize(
    ("rests", "wanted"),
    [
        (CPU | {"standby": True}, CPU | {"standby": True}),
        (CPU | {"standby": True}, CPU),
        (CPU | {"replicas": 0}, CPU),
    ],
)
def test_a_target_that_is_taken_out_serves_until_one_that_rested_takes_over(
    rests: dict[str, Any], wanted: dict[str, Any]
) -> None:
    world = _serving(L4, rests)
    assert _replicas(world) == {"l4": 1, "cpu": 0}
    world.change_spec(targets=[wanted])
    assert "TargetLeaves" in [event.reason for event in world.step().events]
    world.settle()
    assert _replicas(world) == {"l4": 1, "cpu": 2}
    world.start_pods(target="cpu", only=1)
    world.settle()
    assert _replicas(world) == {"l4": 1, "cpu": 2}
    world.start_pods(target="cpu")
    world.settle()
    assert _replicas(world) == {"cpu": 2}


def test_a_target_that_is_taken_out_does_not_wait_for_one_that_no_node_fits() -> None:
    h100 = {"name": "h100", "gpu": {"product": "NVIDIA-H100-80GB-HBM3"}}
    world = _serving(L4, h100, CPU | {"standby": True})
    world.change_spec(targets=[h100, CPU | {"standby": True}])
    world.settle()
    assert _replicas(world) == {"l4": 1, "cpu": 2}
    world.start_pods(target="cpu")
    world.settle()
    assert _replicas(world) == {"cpu": 2}


def test_the_last_target_that_serves_stays_while_no_node_fits_those_that_are_left() -> None:
    h100 = {"name": "h100", "gpu": {"product": "NVIDIA-H100-80GB-HBM3"}}
    world = _serving(L4, h100)
    world.change_spec(targets=[h100])
    world.settle()
    assert _replicas(world) == {"l4": 1}


def test_a_target_that_is_taken_out_goes_at_once_where_no_replicas_are_wanted() -> None:
    world = _serving(L4, CPU | {"replicas": 0})
    world.change_spec(targets=[CPU | {"replicas": 0}])
    world.step()
    assert _replicas(world) == {"cpu": 0}


def test_a_target_that_serves_nobody_goes_at_once() -> None:
    world = _serving(L4)
    world.start_pods(ready=False)
    _change(world, L4 | {"name": "main"})
    assert _targets(world, "Deployment") == {"main"}


def test_a_target_that_is_split_goes_when_both_parts_serve() -> None:
    world = _serving({"name": "gpus", "gpu": {}, "replicas": 2})
    _change(world, L4, T4)
    world.settle()
    assert _targets(world, "Deployment") == {"gpus", "l4", "t4"}
    world.start_pods(target="l4")
    world.settle()
    assert _targets(world, "Deployment") == {"gpus", "l4", "t4"}
    world.start_pods(target="t4")
    world.settle()
    assert _targets(world, "Deployment") == {"l4", "t4"}


def test_targets_that_are_joined_go_when_the_one_for_both_serves() -> None:
    world = _serving(L4, T4)
    _change(world, {"name": "gpus", "gpu": {}, "replicas": 2})
    world.settle()
    assert _targets(world, "Deployment") == {"gpus", "l4", "t4"}
    world.start_pods(target="gpus")
    world.settle()
    assert _targets(world, "Deployment") == {"gpus"}


@pytest.mark.parametrize("first", [L4, CPU])
def test_targets_that_swap_their_names_start_new_pods_beside_the_old_ones(first: dict[str, Any]) -> None:
    second = T4 if first is L4 else L4
    world = _serving(first | {"name": "a"}, second | {"name": "b"})
    world.change_spec(targets=[second | {"name": "a"}, first | {"name": "b"}])
    decision = world.step()
    assert [one.address.name for one in decision.deletes if one.address.kind == "Deployment"] == []
    for deployment in world.of_kind("Deployment"):
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        assert deployment["spec"]["replicas"] >= 1
    world.settle()
    world.start_pods()
    world.settle()
    assert world.condition("Ready").status is ConditionStatus.TRUE
    assert {one.name: one.engines[0].product for one in world.look().status.targets} == {
        "a": "Tesla-T4" if second is T4 else "NVIDIA-L4",
        "b": "NVIDIA-L4" if first is L4 else None,
    }


def test_targets_that_swap_the_last_gpus_make_room_one_after_the_other() -> None:
    world = _serving(L4 | {"name": "a"}, T4 | {"name": "b"}, rollout={"whenFull": "replace"})
    _change(world, T4 | {"name": "a"}, L4 | {"name": "b"})
    for target in ("a", "b"):
        world.pend_pods(target, beside_old=True)
    world.wait(60)
    world.step()
    told = {one["metadata"]["labels"]["enginesmith.io/target"]: one for one in world.of_kind("Deployment")}
    surges = {name: one["spec"]["strategy"]["rollingUpdate"]["maxSurge"] for name, one in told.items()}
    assert surges == {"a": 0, "b": 1}


def test_a_target_that_asks_for_another_gpu_moves_there() -> None:
    world = _serving(L4 | {"name": "gpu"})
    _change(world, T4 | {"name": "gpu"})
    world.start_pods()
    world.settle()
    assert world.condition("Ready").status is ConditionStatus.TRUE
    assert world.look().status.serving_on == "Tesla-T4"


def test_another_order_changes_nothing() -> None:
    world = _serving(L4, CPU)
    world.change_spec(targets=[CPU, L4])
    decision = world.step()
    assert (decision.deletes, decision.applies, decision.creates) == ((), (), ())


def test_a_first_target_that_becomes_the_standby_serves_until_the_other_one_does() -> None:
    world = _serving(L4, CPU | {"standby": True})
    _change(world, CPU, L4 | {"standby": True})
    world.settle()
    assert _replicas(world) == {"l4": 1, "cpu": 2}
    world.start_pods()
    world.settle()
    assert _replicas(world) == {"l4": 0, "cpu": 2}


def test_a_standby_sleeps_on_while_the_target_before_it_gets_another_name() -> None:
    world = _serving(L4, CPU | {"standby": True})
    _change(world, L4 | {"name": "main"}, CPU | {"standby": True})
    world.settle()
    assert _replicas(world) == {"l4": 1, "main": 1, "cpu": 0}
    world.start_pods(target="main")
    world.settle()
    assert _replicas(world) == {"main": 1, "cpu": 0}


def test_a_standby_alone_takes_over_before_the_last_target_before_it_goes() -> None:
    world = _serving(L4, CPU | {"standby": True})
    _change(world, CPU | {"name": "main", "standby": True})
    world.settle()
    assert _replicas(world)["l4"] == 1
    world.start_pods(target="main")
    world.settle()
    assert _replicas(world) == {"main": 2}


def test_without_a_free_gpu_the_old_name_serves_on() -> None:
    world = _serving(L4)
    _change(world, L4 | {"name": "main"})
    world.pend_pods("main")
    world.wait(60)
    world.settle()
    assert (world.target("main").phase, _replicas(world)) == (TargetPhase.WAITING_FOR_GPU, {"l4": 1, "main": 1})
    assert "target l4, which is not in the spec any more, has one" in world.target("main").message
    assert "rollout.whenFull: replace" in world.condition("Ready").message


def test_without_a_free_gpu_the_old_name_makes_room_one_replica_at_a_time_where_it_may() -> None:
    world = _serving(L4 | {"replicas": 2}, rollout={"whenFull": "replace"})
    _change(world, L4 | {"name": "main", "replicas": 2})
    world.pend_pods("main")
    world.wait(60)
    world.step()
    assert _replicas(world) == {"l4": 1, "main": 2}
    world.start_pods(target="l4")
    world.wait(60)
    world.settle()
    # Nothing has come for the one that went yet.
    assert _replicas(world) == {"l4": 1, "main": 2}
    world.start_pods(target="main", only=1)
    world.settle()
    assert _replicas(world)["main"] == 2
    world.pend_pods("main", beside=1)
    world.wait(60)
    world.step()
    assert _replicas(world) == {"l4": 0, "main": 2}
    world.start_pods()
    world.settle()
    assert _replicas(world) == {"main": 2}


def test_a_pass_over_a_target_that_leaves_writes_nothing_twice() -> None:
    world = _serving(L4)
    _change(world, L4 | {"name": "main"})
    world.settle()
    world.wait(3600)
    decision = world.look()
    assert (decision.applies, decision.deletes, decision.creates, decision.events) == ((), (), (), ())


def test_a_deployment_whose_notes_cannot_be_read_is_written_once() -> None:
    world = _serving(L4)
    (deployment,) = world.of_kind("Deployment")
    deployment["metadata"]["annotations"]["enginesmith.io/notes"] = "nonsense"
    world.put(deployment)
    world.nodes.forget("gpu-1", "node-gpu-1")
    world.settle()
    assert world.look().applies == ()
