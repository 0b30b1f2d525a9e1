"""What failed for a reason that may pass is tried again; what does not fit is not, until something changes."""

from typing import Any

import pytest
from tests.controller.engine_world import EngineWorld
from tests.controller.gpu_nodes import gpu_node

from enginesmith_operator.api.engine_status import TargetPhase

L4 = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}}


def _failure(exit_code: int, reason: str, *, retry: bool = False) -> dict[str, Any]:
    return {"failure": {"exitCode": exit_code, "what": "it failed", "reason": reason, "retry": retry}}


STORE_AWAY = _failure(18, "ConnectionLost", retry=True)
# container, exit code, kubelet's reason, the pod's own report
TRANSIENT = {
    "the store is away": ("pull", 18, "Error", STORE_AWAY),
    "the name of the store is not found": ("pull", 18, "Error", _failure(18, "ConnectionLost")),
    "the account is wrong": ("pull", 18, "Error", _failure(18, "AccessDenied")),
    "the disk is full": ("pull", 18, "Error", _failure(18, "DiskFull", retry=True)),
    "the init step is killed for memory": ("pull", 137, "OOMKilled", None),
    "the server is killed for memory": ("server", 137, "OOMKilled", None),
    "the GPU fails": ("server", 31, "Error", _failure(31, "IllegalAddress")),
    "the GPU fails without a report": ("server", 31, "Error", None),
    "the address is taken": ("server", 32, "Error", _failure(32, "AddressUnavailable")),
    "a fault of the server": ("server", 1, "Error", None),
    "a fault of the init step": ("pull", 1, "Error", None),
    "the process cannot be started": ("server", 128, "StartError", None),
    "the process is ended from outside": ("server", 143, "Error", None),
}
SEGMENTATION_FAULT = ("server", 139, "Error", None)


def _rolled_out(**spec: Any) -> EngineWorld:
    """An engine whose first pods are on their way."""
    world = EngineWorld(**spec)
    world.step()
    world.end_preparation()
    world.step()
    world.end_builds()
    world.step()
    return world


def _crash(world: EngineWorld, how: tuple[str, int, str, dict[str, Any] | None]) -> None:
    container, exit_code, reason, message = how
    world.crash_pods("l4", exit_code, container=container, reason=reason, message=message)
    world.step()
    world.step()


def _replicas(world: EngineWorld) -> int:
    (deployment,) = world.of_kind("Deployment")
    return int(deployment["spec"]["replicas"])


def _key(world: EngineWorld) -> str:
    (deployment,) = world.of_kind("Deployment")
    return str(deployment["metadata"]["labels"]["enginesmith.io/key"])


@pytest.mark.parametrize("how", [*TRANSIENT.values(), SEGMENTATION_FAULT], ids=[*TRANSIENT, "a segmentation fault"])
def test_an_engine_that_fails_with_no_way_back_keeps_its_pods_and_serves_when_the_cause_is_gone(
    how: tuple[str, int, str, dict[str, Any] | None],
) -> None:
    world = _rolled_out()
    _crash(world, how)
    failed = world.target("l4")
    assert (failed.phase, failed.rejected, failed.excluded) == (TargetPhase.FAILED, (), ())
    assert "gpu-1" in failed.message
    assert "kubelet restarts it" in failed.message
    assert _replicas(world) == 1
    world.start_pods()
    world.settle()
    assert world.target("l4").phase is TargetPhase.SERVING


@pytest.mark.parametrize("how", [*TRANSIENT.values(), SEGMENTATION_FAULT], ids=[*TRANSIENT, "a segmentation fault"])
def test_a_new_engine_that_fails_gives_way_to_the_one_that_served_and_is_tried_again_later(
    how: tuple[str, int, str, dict[str, Any] | None],
) -> None:
    world = _rolled_out()
    world.start_pods()
    world.settle()
    old = _key(world)
    world.change_spec(build={"epoch": 1})
    world.step()
    world.end_builds()
    world.step()
    new = _key(world)
    _crash(world, how)
    world.start_pods()
    world.settle()
    back = world.target("l4")
    assert (_key(world), back.phase, back.reason) == (old, TargetPhase.SERVING, "RolledBack")
    assert "it is tried again at 2026-11-23T12:01:00Z" in back.message
    requeue = world.look().requeue_seconds
    assert requeue is not None
    world.wait(requeue)
    world.step()
    assert _key(world) == new
    world.start_pods()
    world.settle()
    assert (world.target("l4").phase, world.target("l4").rejected) == (TargetPhase.SERVING, ())


def test_the_pause_before_another_try_doubles_up_to_half_an_hour() -> None:
    world = _rolled_out()
    world.start_pods()
    world.settle()
    world.change_spec(build={"epoch": 1})
    world.step()
    world.end_builds()
    world.step()
    pauses = []
    for _ in range(7):
        _crash(world, TRANSIENT["the store is away"])
        world.start_pods()
        world.settle()
        pause = world.look().requeue_seconds
        assert pause is not None
        pauses.append(pause)
        world.wait(pause)
        world.step()
    assert pauses == [60, 120, 240, 480, 960, 1800, 1800]


@pytest.mark.parametrize(
    "change",
    [
        {"podTemplate": {"resources": {"limits": {"memory": "2Gi"}}}},
        {"podTemplate": {"env": [{"name": "COLOUR", "value": "green"}]}},
        {"podTemplate": {"serviceAccountName": "reader"}},
        {"serving": {"instances": 1}},
        {"serving": {"maxMessageBytes": "1Mi"}},
        {"targets": [L4 | {"replicas": 2}]},
    ],
)
def test_a_change_of_the_spec_gives_a_new_engine_that_failed_another_try_at_once(change: dict[str, Any]) -> None:
    world = _rolled_out()
    world.start_pods()
    world.settle()
    world.change_spec(build={"epoch": 1})
    world.step()
    world.end_builds()
    world.step()
    new = _key(world)
    _crash(world, TRANSIENT["the server is killed for memory"])
    assert _key(world) != new
    world.drop_pods("l4")
    world.start_pods()
    world.change_spec(**change)
    world.step()
    assert _key(world) == new


def test_a_rollout_that_failed_with_a_changed_pod_serves_once_the_pod_is_right() -> None:
    world = _rolled_out()
    world.start_pods()
    world.settle()
    world.change_spec(build={"epoch": 1}, podTemplate={"resources": {"limits": {"memory": "48Mi"}}})
    world.step()
    world.end_builds()
    world.step()
    new = _key(world)
    _crash(world, TRANSIENT["the server is killed for memory"])
    # The engine that served before cannot run with so little either.
    _crash(world, TRANSIENT["the server is killed for memory"])
    world.change_spec(podTemplate={"resources": {"limits": {"memory": "2Gi"}}})
    world.step()
    assert (_key(world), _replicas(world)) == (new, 1)
    world.start_pods()
    world.settle()
    assert (world.target("l4").phase, world.target("l4").rejected) == (TargetPhase.SERVING, ())


def test_a_person_may_ask_for_another_try() -> None:
    world = _rolled_out()
    world.start_pods()
    world.settle()
    world.change_spec(build={"epoch": 1})
    world.step()
    world.end_builds()
    world.step()
    new = _key(world)
    _crash(world, TRANSIENT["the account is wrong"])
    assert _key(world) != new
    world.start_pods()
    world.engine["metadata"]["annotations"] = {"enginesmith.io/retry": "1"}
    world.step()
    assert _key(world) == new


def test_a_change_of_the_node_gives_a_new_engine_that_failed_there_another_try_at_once() -> None:
    world = _rolled_out()
    world.start_pods()
    world.settle()
    world.change_spec(build={"epoch": 1})
    world.step()
    world.end_builds()
    world.step()
    new = _key(world)
    _crash(world, TRANSIENT["the GPU fails"])
    assert _key(world) != new
    world.start_pods()
    world.nodes.observe(gpu_node("gpu-1", driver="590.10.01"))
    world.step()
    assert _key(world) == new


@pytest.mark.parametrize("reason", ["DriverFloor", "SameGpu", "NodeMislabelled", "NoEngineForGpu", "Tampered"])
def test_an_engine_that_does_not_fit_is_not_tried_again_by_time_but_once_its_pods_change(reason: str) -> None:
    world = _rolled_out()
    world.start_pods(ready=False, exit_code=30, message=_failure(30, reason))
    world.step()
    world.drop_pods("l4")
    assert _replicas(world) == 0
    world.wait(86_400)
    world.settle()
    assert _replicas(world) == 0
    world.change_spec(targets=[L4 | {"replicas": 2}])
    world.settle()
    assert _replicas(world) == 0
    world.change_spec(podTemplate={"runtimeClassName": "nvidia"})
    world.step()
    assert _replicas(world) == 2
    assert (world.target("l4").rejected, world.target("l4").excluded) == ((), ())


@pytest.mark.parametrize("reason", ["NoGpu", "NoDriver", "NoDevice", "DeviceBusy", "OutOfMemory"])
def test_a_node_without_a_driver_or_memory_now_is_tried_again_after_a_pause(reason: str) -> None:
    world = _rolled_out()
    world.start_pods(ready=False, exit_code=30, message=_failure(30, reason))
    world.step()
    world.drop_pods("l4")
    assert _replicas(world) == 0
    assert "it is tried again at" in world.target("l4").message
    world.wait(300)
    world.step()
    (deployment,) = world.of_kind("Deployment")
    assert deployment["spec"]["replicas"] == 1
    # The pods may go there again.
    assert "gpu-1" not in str(deployment["spec"]["template"]["spec"]["affinity"])
    world.start_pods(ready=False, exit_code=30, message=_failure(30, reason))
    world.step()
    assert [one.tries for one in world.target("l4").excluded] == [2]
    world.drop_pods("l4")
    world.wait(600)
    world.step()
    world.start_pods()
    world.settle()
    assert (world.target("l4").phase, world.target("l4").excluded) == (TargetPhase.SERVING, ())


def test_a_node_whose_gpu_fails_is_left_for_another_one_and_tried_again_later() -> None:
    world = EngineWorld()
    world.nodes.observe(gpu_node("gpu-2"))
    world.step()
    world.end_preparation()
    world.step()
    world.end_builds()
    world.step()
    _crash(world, TRANSIENT["the GPU fails"])
    (deployment,) = world.of_kind("Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert "gpu-1" in str(deployment["spec"]["template"]["spec"]["affinity"])
    assert [one.name for one in world.target("l4").excluded] == ["gpu-1"]
    assert world.target("l4").rejected == ()


def test_a_pod_that_was_evicted_after_crashes_rejects_nothing() -> None:
    world = _rolled_out()
    world.start_pods()
    world.settle()
    world.change_spec(build={"epoch": 1})
    world.step()
    world.end_builds()
    world.step()
    new = _key(world)
    world.crash_pods("l4", 137)
    for pod in world.of_kind("Pod"):
        if pod["metadata"]["labels"].get("enginesmith.io/target") == "l4":
            pod["status"] |= {"phase": "Failed", "reason": "Evicted"}
            world.put(pod)
    world.step()
    assert _key(world) == new
    assert world.target("l4").rejected == ()


def test_an_entry_of_an_earlier_release_gets_another_try() -> None:
    world = _rolled_out()
    (target,) = world.engine["status"]["targets"]
    stuck = {"key": target["desired"][0], "reason": "ConnectionLost", "node": "gpu-1"}
    target["rejected"] = [stuck]
    world.step()
    assert _replicas(world) == 1
    assert world.target("l4").rejected == ()
