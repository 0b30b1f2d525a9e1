"""What becomes of an InferenceEngine, pass by pass: from nothing to serving, and what disturbs it."""

import json
from typing import Any

import pytest
from tests.controller.engine_world import EngineWorld
from tests.controller.gpu_nodes import gpu_node

from enginesmith_contract.failure import Failure
from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec
from enginesmith_operator.api.conditions import ConditionStatus
from enginesmith_operator.api.engine_status import EngineStatus, TargetPhase
from enginesmith_operator.controller.shared.status_document import read_status, status_document

_REFUSAL = {
    "failure": {
        "exitCode": 30,
        "what": "the engine does not fit this machine",
        "why": "the driver is too old",
        "remedy": "install a newer driver",
        "reason": "DriverFloor",
    }
}


_MISSING = Failure(exit_code=12, what="there is no such model", where="s3://models/ocr.onnx", reason="NotFound")


def _names(documents: list[dict[str, Any]]) -> list[str]:
    return [one["metadata"]["name"] for one in documents]


def test_a_built_engine_is_served_and_then_it_is_ready() -> None:
    world = EngineWorld()
    world.serve()
    assert world.condition("Ready").status is ConditionStatus.TRUE
    assert world.look().status.serving == "1/1"
    assert world.look().status.serving_on == "NVIDIA-L4"
    assert world.target("l4").nodes == ("gpu-1",)


def test_a_pass_over_an_engine_that_is_in_order_writes_nothing() -> None:
    world = EngineWorld()
    world.serve()
    world.wait(3600)
    decision = world.look()
    assert (decision.creates, decision.applies, decision.deletes, decision.events) == ((), (), (), ())
    assert status_document(decision.status) == world.engine["status"]


def test_the_same_amounts_in_another_spelling_write_nothing() -> None:
    first = {"requests": {"cpu": "0.1", "memory": "0.25Gi"}, "limits": {"memory": "1024Mi", "cpu": 2}}
    second = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": 1 << 30, "cpu": "2000m"}}
    scaled = [_scaled("1.5"), _scaled("1500m")]
    world = EngineWorld(podTemplate={"resources": first}, build={"resources": first}, targets=[scaled[0]])
    world.serve()

    world.change_spec(podTemplate={"resources": second}, build={"resources": second}, targets=[scaled[1]])
    decision = world.look()

    assert (decision.creates, decision.applies, decision.deletes) == ((), (), ())


def _scaled(amount: str) -> dict[str, Any]:
    bounds = {"maxReplicas": 2, "podMetric": {"name": "queue", "averageValue": amount}}
    return {"name": "l4", "gpu": {"product": "NVIDIA-L4"}, "autoscaling": bounds}


@pytest.mark.parametrize("garbage", [None, {}, {"targets": "nonsense"}, {"serving": "9/9", "conditions": []}])
def test_a_garbled_status_becomes_what_it_was_but_for_its_times(garbage: dict[str, Any] | None) -> None:
    world = EngineWorld()
    world.serve()
    before = world.look().status
    if garbage is None:
        world.engine.pop("status")
    else:
        world.engine["status"] = garbage
    after = world.settle().status
    assert [(one.type, one.status, one.reason) for one in after.conditions] == [
        (one.type, one.status, one.reason) for one in before.conditions
    ]
    assert [target.model_copy(update={"since": None}) for target in after.targets] == [
        target.model_copy(update={"since": None}) for target in before.targets
    ]


@pytest.mark.parametrize("moment", ["0000-01-01T00:00:00Z", "2026-11-23T12:00:00+99:00"])
def test_a_moment_that_the_server_takes_and_nobody_can_read_stops_no_pass(moment: str) -> None:
    world = EngineWorld()
    world.step()
    missing = {"exitCode": 12, "what": "the model was not found", "reason": "NotFound", "retry": True}
    world.end_preparation(failure=missing)
    world.step()
    for condition in world.engine["status"]["conditions"]:
        condition["lastTransitionTime"] = moment
    assert world.settle().status.conditions
    assert world.condition("Prepared").reason == "NotFound"


@pytest.mark.parametrize("kind", ["Service", "Deployment"])
def test_an_object_that_was_deleted_by_hand_is_made_again_as_it_was(kind: str) -> None:
    world = EngineWorld()
    world.serve()
    before = world.of_kind(kind)
    for one in world.cache.of_kind(kind):
        world.cache.remove(one.address, one.uid)
    decision = world.step()
    assert _names(list(decision.applies)) == _names(before)
    assert [one["spec"] for one in world.of_kind(kind)] == [one["spec"] for one in before]


def test_a_target_that_no_node_fits_is_refused_by_name_and_takes_no_other_with_it() -> None:
    world = EngineWorld(
        targets=[
            {"name": "h100", "gpu": {"product": "NVIDIA-H100-80GB-HBM3"}},
            {"name": "l4", "gpu": {"product": "NVIDIA-L4"}},
        ]
    )
    world.serve()
    assert world.target("h100").phase is TargetPhase.REFUSED
    assert "NVIDIA-L4" in world.target("h100").message
    assert world.target("l4").phase is TargetPhase.SERVING
    ready, every = world.condition("Ready"), world.condition("AllTargets")
    assert (ready.status, ready.reason) == (ConditionStatus.TRUE, "SomeTargets")
    assert ready.message.startswith("on l4; without h100: ProductDiffers: ")
    assert every.status is ConditionStatus.FALSE
    assert every.message.startswith("h100: ProductDiffers: ")
    assert world.look().status.serving == "1/2"


def test_an_engine_whose_only_target_is_impossible_is_not_ready() -> None:
    world = EngineWorld(targets=[{"name": "h100", "gpu": {"product": "NVIDIA-H100-80GB-HBM3"}}])
    world.step()
    for kind in ("Ready", "AllTargets"):
        assert world.condition(kind).status is ConditionStatus.FALSE
    assert world.look().status.serving == "0/1"


def test_an_engine_is_not_ready_while_a_target_that_can_serve_is_not_there_yet() -> None:
    world = EngineWorld(
        targets=[
            {"name": "h100", "gpu": {"product": "NVIDIA-H100-80GB-HBM3"}},
            {"name": "l4", "gpu": {"product": "NVIDIA-L4"}},
        ]
    )
    world.step()
    ready = world.condition("Ready")
    assert ready.status is ConditionStatus.FALSE
    assert ready.message.startswith("l4: ")
    assert world.look().status.serving == "0/2"


_L4 = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}}
_H100 = {"name": "h100", "gpu": {"product": "NVIDIA-H100-80GB-HBM3"}}
_CPU = {"name": "cpu", "backend": "onnxruntime"}


@pytest.mark.parametrize(
    ("targets", "want_before", "want_after"),
    [
        ([_L4, _CPU | {"standby": True}], "0/1", "1/1"),
        ([_H100, _CPU | {"standby": True}], "0/1", "1/1"),
        ([_H100, _L4, _CPU | {"standby": True}], "0/2", "1/2"),
        ([_CPU | {"standby": True}], "0/1", "1/1"),
        ([_L4, _CPU], "0/2", "2/2"),
        ([_L4, _CPU | {"replicas": 0}], "0/1", "1/1"),
        ([_L4 | {"replicas": 0}], "0/0", "0/0"),
    ],
)
def test_of_how_many_targets_is_told_by_the_spec_alone(
    targets: list[dict[str, Any]], want_before: str, want_after: str
) -> None:
    world = EngineWorld(targets=targets)
    assert world.look().status.serving == want_before
    world.serve()
    assert world.look().status.serving == want_after


def test_an_engine_that_the_store_had_is_told_from_one_that_was_built() -> None:
    first, second = EngineWorld(), EngineWorld()
    first.serve()
    assert first.condition("Built").message == "1 engine is stored"
    key = first.target("l4").serving[0]

    second.step()
    second.end_preparation(stored_engines={key: "cd" * 32})
    second.settle()

    assert second.of_kind("EngineBuild") == []
    assert second.condition("Built").message == "1 engine is stored; found in the store, so nothing was built"


def test_a_status_holds_no_null_and_is_read_as_it_was() -> None:
    world = EngineWorld()
    tensor = TensorSpec(name="x", dtype=DType.FP32, shape=(-1, 4), symbols=("batch", None))
    facts = ModelFacts(inputs=(tensor,), outputs=(tensor,), opset=17, size_bytes=1)
    world.step()
    world.end_preparation(facts=facts)
    status = world.look().status
    document = status_document(status)

    assert "null" not in json.dumps(document)
    assert document["preparation"]["facts"]["inputs"][0]["symbols"] == ["batch", ""]
    assert read_status(EngineStatus, {"status": document}, EngineStatus()).preparation == status.preparation


def test_an_event_is_made_once_for_what_happened_once() -> None:
    world = EngineWorld()
    world.step()
    world.end_preparation(failure=_MISSING)
    assert [event.reason for event in world.step().events] == ["NotFound"]
    assert world.step().events == ()


def test_a_runtime_that_refuses_ends_after_its_first_exit_with_its_sentence_and_its_node() -> None:
    world = EngineWorld()
    world.step()
    world.end_preparation()
    world.step()
    world.end_builds()
    world.step()
    world.start_pods(ready=False, exit_code=30, message=_REFUSAL)
    world.step()
    target = world.target("l4")
    assert target.phase is TargetPhase.FAILED
    assert "the driver is too old" in target.message
    assert [one.name for one in target.excluded] == ["gpu-1"]
    (deployment,) = world.of_kind("Deployment")
    assert deployment["spec"]["replicas"] == 0
    world.start_pods()
    world.settle()
    world.wait(3600)
    assert world.look().applies == ()


def test_a_node_that_refused_is_tried_again_when_its_driver_changed() -> None:
    world = EngineWorld()
    world.step()
    world.end_preparation()
    world.step()
    world.end_builds()
    world.step()
    world.start_pods(ready=False, exit_code=30, message=_REFUSAL)
    world.step()
    world.start_pods()
    world.nodes.observe(gpu_node("gpu-1", driver="590.10.01"))
    world.step()
    (deployment,) = world.of_kind("Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert world.target("l4").excluded == ()


def test_a_new_engine_is_built_before_anything_that_serves_is_touched() -> None:
    world = EngineWorld()
    world.serve()
    (before,) = world.of_kind("Deployment")
    world.change_spec(build={"epoch": 1})
    decision = world.step()
    assert [one["kind"] for one in decision.creates] == ["EngineBuild"]
    assert [one for one in decision.applies if one["kind"] == "Deployment"] == []
    behind = world.condition("UpToDate")
    assert (behind.status, behind.reason) == (ConditionStatus.FALSE, "BuildingNext")
    assert world.condition("Ready").status is ConditionStatus.TRUE
    world.end_builds()
    world.step()
    (after,) = world.of_kind("Deployment")
    assert after["spec"]["template"] != before["spec"]["template"]
    world.start_pods()
    world.settle()
    for kind in ("Ready", "UpToDate"):
        assert world.condition(kind).status is ConditionStatus.TRUE


def test_pods_of_another_template_are_replaced_though_their_engine_is_the_same() -> None:
    world = EngineWorld(rollout={"whenFull": "replace"})
    world.serve()
    world.change_spec(podTemplate={"env": [{"name": "COLOUR", "value": "green"}]})
    world.step()
    under_way = world.target("l4")
    world.start_pods()
    world.settle()
    assert (under_way.phase, under_way.ready_replicas) == (TargetPhase.ROLLING_OUT, 1)
    assert world.target("l4").phase is TargetPhase.SERVING


def test_a_replica_that_makes_room_is_an_event_and_ends_until_the_build_has() -> None:
    world = EngineWorld(rollout={"whenFull": "replace"})
    world.serve()
    world.change_spec(build={"epoch": 1})
    world.step()
    world.hold_builds()
    world.wait(60)
    decision = world.step()
    assert [event.reason for event in decision.events] == ["MadeRoom"]
    (deployment,) = world.of_kind("Deployment")
    assert deployment["spec"]["replicas"] == 0
    assert world.look().events == ()
    world.end_builds()
    world.step()
    (deployment,) = world.of_kind("Deployment")
    assert deployment["spec"]["replicas"] == 1


def test_an_engine_that_served_and_is_refused_now_ends_in_no_crash_loop() -> None:
    world = EngineWorld()
    world.serve()
    world.start_pods(ready=False, exit_code=30, message=_REFUSAL)
    world.step()
    (deployment,) = world.of_kind("Deployment")
    assert deployment["spec"]["replicas"] == 0
    world.start_pods()
    world.settle()
    world.wait(3600)
    assert world.look().applies == ()
    assert world.target("l4").phase is TargetPhase.FAILED


def test_what_belonged_to_a_target_goes_with_it() -> None:
    both = [
        {"name": "l4", "gpu": {"product": "NVIDIA-L4"}},
        {"name": "cpu", "backend": "onnxruntime"},
    ]
    world = EngineWorld(targets=both)
    world.serve()
    world.change_spec(targets=both[:1])
    decision = world.step()
    assert sorted((one.address.kind, one.address.name.split("-")[1]) for one in decision.deletes) == [
        ("Deployment", "cpu"),
        ("EngineBuild", "cpu"),
        ("Service", "cpu"),
    ]


def test_pods_of_an_earlier_engine_of_the_same_name_count_for_nothing() -> None:
    world = EngineWorld()
    world.serve()
    world.engine["metadata"] |= {"uid": "uid-anew", "creationTimestamp": "2026-11-23T12:00:01Z"}
    world.engine.pop("status")
    assert world.target("l4").ready_replicas == 0
    assert world.condition("Serving").status is ConditionStatus.FALSE


def test_a_standby_serves_only_while_no_target_before_it_does() -> None:
    world = EngineWorld(
        targets=[
            {"name": "l4", "gpu": {"product": "NVIDIA-L4"}},
            {"name": "cpu", "backend": "onnxruntime", "standby": True},
        ]
    )
    world.serve()
    replicas = {one["metadata"]["labels"]["enginesmith.io/target"]: one for one in world.of_kind("Deployment")}
    assert replicas["l4"]["spec"]["replicas"] == 1
    assert replicas["cpu"]["spec"]["replicas"] == 0
    assert world.target("cpu").phase is TargetPhase.STANDBY
    assert world.condition("Ready").status is ConditionStatus.TRUE


@pytest.mark.parametrize(
    ("settings", "spec", "want_reason"),
    [
        ({}, {}, "NoStore"),
        (None, {"store": {"pvc": {"claimName": "nothing"}}}, "StoreMissing"),
        (None, {"store": {"pvc": {"claimName": "once"}}}, "StoreNotShared"),
        (
            {"store": {"default": {"s3": {"bucket": "b"}}}, "allowedPlugins": []},
            {"build": {"plugins": [{"uri": "s3://p/a.so", "sha256": "0" * 64}]}},
            "PluginNotAllowed",
        ),
    ],
)
def test_what_cannot_be_stored_or_may_not_be_loaded_is_refused_before_any_job(
    settings: dict[str, Any] | None, spec: dict[str, Any], want_reason: str
) -> None:
    world = EngineWorld(settings=settings, **spec)
    world.nodes.observe(gpu_node("gpu-2"))
    claim = {"name": "once", "namespace": "vision"}
    world.put({"kind": "PersistentVolumeClaim", "metadata": claim, "spec": {"accessModes": ["ReadWriteOnce"]}})
    decision = world.step()
    assert decision.creates == ()
    assert world.condition("Prepared").reason == want_reason
    assert world.condition("Ready").reason == want_reason


def test_a_service_keeps_its_address_through_a_moment_without_a_plan() -> None:
    world = EngineWorld()
    world.step()
    world.nodes.forget("gpu-1", "node-gpu-1")
    assert world.step().deletes == ()
    assert len(world.of_kind("Service")) == 3
