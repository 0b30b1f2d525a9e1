"""GPUs of a namespace that an EnginePolicy limits: what does not fit waits, and nothing that runs is stopped."""

from typing import Any

from tests.controller.engine_world import EngineWorld

from enginesmith_operator.api.engine_status import TargetPhase
from enginesmith_operator.controller.shared.cache import Address

SENTENCE = "EnginePolicy house allows {} GPUs in namespace vision (in use: {})"
OTHER = Address("InferenceEngine", "vision", "other")


def limit(world: EngineWorld, gpus: int) -> None:
    head = {"apiVersion": "enginesmith.io/v1alpha1", "kind": "EnginePolicy", "metadata": {"name": "house"}}
    world.put(head | {"spec": {"limits": {"gpus": gpus}}})


def others(world: EngineWorld, gpus: int) -> None:
    """Let another InferenceEngine of the namespace have so many GPUs."""
    world.make_engine("other")
    world.gpus.promise(OTHER, gpus)


def replicas(world: EngineWorld) -> list[int]:
    return [one["spec"]["replicas"] for one in world.of_kind("Deployment")]


def serving(*targets: dict[str, Any]) -> EngineWorld:
    world = EngineWorld(targets=list(targets))
    world.serve()
    world.settle()
    return world


def l4(**fields: Any) -> dict[str, Any]:
    return {"name": "l4", "gpu": {"product": "NVIDIA-L4"}} | fields


def test_a_target_for_which_no_gpu_is_left_waits_and_names_policy_and_users() -> None:
    world = EngineWorld()
    limit(world, 2)
    others(world, 2)
    world.serve()

    target = world.target("l4")

    assert replicas(world) == [0]
    assert (target.phase, target.reason) == (TargetPhase.WAITING_FOR_GPU, "PolicyGpus")
    assert target.message == SENTENCE.format(2, "InferenceEngine other 2")
    assert world.condition("Ready").reason == "PolicyGpus"
    assert world.look().requeue_seconds == 10


def test_replicas_that_do_not_fit_wait_and_start_when_there_is_room() -> None:
    world = EngineWorld(targets=[l4(replicas=3)])
    limit(world, 4)
    others(world, 2)
    world.serve()
    world.settle()

    target = world.target("l4")

    assert replicas(world) == [2]
    assert (target.phase, target.reason) == (TargetPhase.SERVING, "PolicyGpus")
    assert target.message.endswith(SENTENCE.format(4, "this InferenceEngine 2, InferenceEngine other 2"))
    assert world.condition("Ready").status.value == "True"

    world.gpus.promise(OTHER, 1)
    world.settle()

    assert replicas(world) == [3]


def test_a_limit_that_is_lowered_stops_nothing_and_is_a_violation() -> None:
    world = serving(l4(replicas=3))
    limit(world, 1)

    world.settle()

    assert replicas(world) == [3]
    assert world.condition("PolicyViolated").reason == "PolicyGpus"
    assert "spec.targets: 3 GPUs are more than 1" in world.condition("PolicyViolated").message


def test_targets_get_gpus_in_their_order_and_those_of_cpus_are_not_counted() -> None:
    cpu = {"name": "cpu", "backend": "onnxruntime", "replicas": 4}
    world = EngineWorld(targets=[cpu, l4(name="a"), l4(name="b")])
    limit(world, 2)
    others(world, 1)
    world.serve()
    world.settle()

    found = {
        one["metadata"]["labels"]["enginesmith.io/target"]: one["spec"]["replicas"]
        for one in world.of_kind("Deployment")
    }

    assert found == {"cpu": 4, "a": 1, "b": 0}


def test_an_autoscaler_may_go_no_further_than_the_limit() -> None:
    world = EngineWorld(targets=[l4(autoscaling={"minReplicas": 2, "maxReplicas": 3, "cpuUtilization": 50})])
    limit(world, 4)
    others(world, 3)
    world.serve()
    world.settle()

    (scaler,) = world.of_kind("HorizontalPodAutoscaler")

    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (1, 1)

    world.gpus.promise(OTHER, 0)
    world.settle()

    (scaler,) = world.of_kind("HorizontalPodAutoscaler")
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (2, 3)
    seen = world.gpus.limit("vision", without=OTHER)
    assert seen is not None
    assert seen.used == {"InferenceEngine ocr": 3}


def test_what_serves_is_counted_for_others_without_a_promise() -> None:
    world = serving(l4(replicas=2))
    limit(world, 5)

    seen = world.gpus.limit("vision", without=OTHER)

    assert seen is not None
    assert (seen.used, seen.left) == ({"InferenceEngine ocr": 2}, 3)
    alone = world.gpus.limit("vision", without=Address("InferenceEngine", "vision", "ocr"))
    assert alone is not None
    assert alone.used == {}
