"""What keeps a build or a serving pod from running is told by the InferenceEngine, where its owner looks first."""

import pytest
from tests.controller.engine_world import EngineWorld
from tests.controller.gpu_nodes import gpu_node

from enginesmith_operator.api.conditions import UP_TO_DATE, ConditionStatus, StatusCondition
from enginesmith_operator.api.engine_status import EngineStatus, TargetPhase
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.inference_engine.status import obstacle_events


def _starting_pod(world: EngineWorld) -> Json:
    """Return the serving pod of a world in which everything went well until then."""
    world.step()
    world.end_preparation()
    world.step()
    world.end_builds()
    world.step()
    world.start_pods(ready=False)
    (pod,) = [one for one in world.of_kind("Pod") if "-prep-" not in one["metadata"]["name"]]
    return pod


def _hold_up(world: EngineWorld, reason: str, message: str) -> None:
    (build,) = world.of_kind("EngineBuild")
    ready = {"type": "Ready", "status": "False", "reason": reason, "message": message}
    build["status"] = {"phase": "Pending", "conditions": [{**ready, "lastTransitionTime": "2026-11-23T12:00:00Z"}]}
    world.put(build)


def test_what_keeps_a_build_from_running_is_told_by_the_engine_too() -> None:
    world = EngineWorld()
    world.step()
    world.end_preparation()
    world.step()
    _hold_up(world, "ImageCannotBePulled", "its image cannot be pulled")
    assert (world.condition("Built").reason, world.condition("Ready").reason) == ("ImageCannotBePulled",) * 2
    assert world.condition("Ready").message == "l4: its image cannot be pulled"
    _hold_up(world, "Starting", "the pod starts on gpu-1")
    assert (world.condition("Built").reason, world.condition("Ready").reason) == ("Building",) * 2


def test_what_keeps_a_serving_pod_from_starting_is_told() -> None:
    world = EngineWorld()
    pod = _starting_pod(world)
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}
    pod["status"]["initContainerStatuses"] = [{"name": "pull", "state": {"waiting": waiting}}]
    world.put(pod)
    assert world.condition("Ready").reason == "ContainerCannotStart"
    assert 'secret "s3" not found; create it' in world.condition("Ready").message
    assert world.target("l4").phase is TargetPhase.ROLLING_OUT


@pytest.mark.parametrize(
    ("ended", "want_reason", "want_remedy"),
    [
        ({"exitCode": 137, "reason": "OOMKilled"}, "OutOfMemory", "raise spec.podTemplate.resources.limits.memory"),
        ({"exitCode": 1, "reason": "Error"}, "Crashing", "kubectl logs l4"),
    ],
)
def test_a_server_that_ended_and_is_started_again_is_told_with_its_node_and_what_helps(
    ended: Json, want_reason: str, want_remedy: str
) -> None:
    world = EngineWorld()
    pod = _starting_pod(world)
    pod["metadata"]["name"] = "l4-0"
    last = {**ended, "startedAt": "2026-11-23T12:00:00Z", "finishedAt": "2026-11-23T12:00:09Z"}
    pod["status"]["containerStatuses"] = [{"name": "server", "restartCount": 1, "lastState": {"terminated": last}}]
    world.put(pod)
    assert world.condition("Ready").reason == want_reason
    assert "on node gpu-1: the server" in world.condition("Ready").message
    assert want_remedy in world.condition("Ready").message
    assert world.target("l4").phase is TargetPhase.ROLLING_OUT


def test_an_init_step_that_was_killed_for_memory_is_not_told_to_serve_less() -> None:
    world = EngineWorld()
    pod = _starting_pod(world)
    last = {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-11-23T12:00:09Z"}
    pod["status"]["initContainerStatuses"] = [{"name": "pull", "restartCount": 1, "lastState": {"terminated": last}}]
    world.put(pod)
    message = world.condition("Ready").message
    assert message.endswith(
        "the init step was killed because it ran out of memory; raise spec.podTemplate.resources.limits.memory"
    )


_DRIVER = "nvidia-container-cli: initialization error: nvml error: driver not loaded"
_INIT_KILLED = "runc create failed: unable to start: container init was OOM-killed (memory limit too low?): unknown"


@pytest.mark.parametrize(
    ("words", "want_reason", "want"),
    [
        (_DRIVER, "ContainerCannotStart", f"the server cannot be started: {_DRIVER}"),
        ("", "ContainerCannotStart", "the server cannot be started: StartError"),
        (_INIT_KILLED, "OutOfMemory", "raise spec.podTemplate.resources.limits.memory"),
    ],
)
def test_a_server_that_never_ran_is_told_in_the_container_runtimes_words(
    words: str, want_reason: str, want: str
) -> None:
    world = EngineWorld()
    pod = _starting_pod(world)
    last = {"exitCode": 128, "reason": "StartError", "message": words, "finishedAt": "2026-11-23T12:00:09Z"}
    told = {"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": last}}
    pod["status"]["containerStatuses"] = [{"name": "server", **told}]
    world.put(pod)
    ready = world.condition("Ready")
    assert ready.reason == want_reason
    assert want in ready.message
    assert "kubectl logs" not in ready.message


def test_a_preparation_that_never_ran_is_told_in_the_container_runtimes_words() -> None:
    world = EngineWorld()
    world.step()
    (job,) = world.of_kind("Job")
    ended = {"exitCode": 128, "reason": "StartError", "message": _DRIVER, "finishedAt": "2026-11-23T12:00:09Z"}
    world.job_pod(job, [{"name": "prepare", "state": {"terminated": ended}}], phase="Failed")
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "Job has reached it"}
    job["status"] = {"conditions": [{**failed, "lastTransitionTime": "2026-11-23T12:00:10Z"}], "failed": 3}
    world.put(job)
    assert world.condition("Prepared").reason == "ContainerCannotStart"
    assert f"its container cannot be started: {_DRIVER}" in world.condition("Prepared").message


def test_a_pod_that_needs_no_gpu_and_fits_no_node_waits_for_no_gpu() -> None:
    world = EngineWorld(targets=[{"name": "cpu", "backend": "onnxruntime"}])
    pod = _starting_pod(world)
    words = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available: 3 Insufficient memory."}
    pod["status"]["conditions"].append({**words, "lastTransitionTime": "2026-11-23T12:00:00Z"})
    pod["spec"] = {}
    world.put(pod)
    world.wait(60)
    assert world.target("cpu").phase is TargetPhase.ROLLING_OUT
    assert world.target("cpu").reason == "Unschedulable"
    assert world.condition("Ready").message == "cpu: no node takes the pod: 3 nodes have too little memory"


def test_a_preparation_that_waits_for_a_plan_is_not_said_to_begin() -> None:
    world = EngineWorld(targets=[{"name": "a10", "gpu": {"product": "NVIDIA-A10"}}])
    assert world.step().creates == ()
    assert world.condition("Prepared").reason == "NoPlan"
    world.nodes.observe(gpu_node("gpu-2", "NVIDIA-A10"))
    assert [one["kind"] for one in world.step().creates] == ["Job"]
    assert world.condition("Prepared").reason == "Starting"


def test_a_claim_for_one_node_is_refused_with_the_nodes_that_there_are() -> None:
    world = EngineWorld(store={"pvc": {"claimName": "once"}})
    metadata = {"name": "once", "namespace": "vision"}
    world.put({"kind": "PersistentVolumeClaim", "metadata": metadata, "spec": {"accessModes": ["ReadWriteOnce"]}})
    world.nodes.observe(gpu_node("gpu-2"))
    world.nodes.observe(gpu_node("gpu-3"))
    assert "3 nodes (gpu-1, gpu-2, gpu-3);" in world.condition("Prepared").message
    world.nodes.observe(gpu_node("gpu-4"))
    assert "4 nodes (gpu-1, gpu-2, gpu-3, ...);" in world.condition("Prepared").message


def _up_to_date(reason: str, message: str) -> EngineStatus:
    at = "2026-11-23T12:00:00Z"
    condition = StatusCondition.model_validate(
        {
            "type": UP_TO_DATE,
            "status": ConditionStatus.FALSE,
            "reason": reason,
            "message": message,
            "lastTransitionTime": at,
        }
    )
    return EngineStatus(conditions=(condition,))


@pytest.mark.parametrize("reason", ["NameTaken", "Refused", "SpecInvalid"])
def test_an_engine_that_cannot_be_worked_on_is_an_event_once(reason: str) -> None:
    began, goes_on = _up_to_date(reason, "2 pods of 2"), _up_to_date(reason, "3 pods of 2")

    (note,) = obstacle_events(_up_to_date("Starting", "the pod starts"), began)
    assert (note.is_warning, note.reason, note.message) == (True, reason, "2 pods of 2")
    assert [one.reason for one in obstacle_events(EngineStatus(), began)] == [reason]
    assert obstacle_events(began, goes_on) == ()
    assert obstacle_events(began, _up_to_date("Starting", "the pod starts")) == ()
