"""Others who write to the operator's objects: who changed what is said, with the field that is for it."""

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from tests.controller.engine_world import EngineWorld

from enginesmith_operator.api.conditions import CONFLICT
from enginesmith_operator.controller.shared.conditions import find_condition

if TYPE_CHECKING:
    from enginesmith_operator.controller.shared.decision import EventNote

L4 = {"name": "l4", "gpu": {"product": "NVIDIA-L4"}, "replicas": 2}
SERVER = 'k:{"name":"server"}'


def _pod_field(*steps: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for step in reversed(("f:spec", "f:template", "f:spec", *steps)):
        fields = {step: fields}
    return fields


def _serving(**target: Any) -> EngineWorld:
    world = EngineWorld(targets=[L4 | target])
    world.serve()
    return world


def _write(world: EngineWorld, manager: str, fields: dict[str, Any], *, subresource: str = "") -> dict[str, Any]:
    """Note in the Deployment who owns which fields, and return it to be changed."""
    (deployment,) = world.of_kind("Deployment")
    entry = {"manager": manager, "operation": "Update", "time": "2026-11-23T12:00:00Z", "fieldsV1": fields}
    entry |= {"subresource": subresource} if subresource else {}
    ours = {"manager": "enginesmith", "operation": "Apply", "fieldsV1": {"f:spec": {"f:template": {}}}}
    deployment["metadata"]["managedFields"] = [ours, entry]
    return deployment


def _conflict(world: EngineWorld) -> str:
    found = find_condition(world.look().status.conditions, CONFLICT)
    return found.message if found is not None else ""


CHANGES: dict[str, tuple[str, str, dict[str, Any], list[Any], Any, str, str]] = {
    "kubectl scale": (
        *("kubectl", "scale", {"f:spec": {"f:replicas": {}}}, ["spec", "replicas"], 5),
        *("kubectl set spec.replicas of Deployment", "spec.targets[l4].replicas"),
    ),
    "an autoscaler of the user": (
        *("kube-controller-manager", "scale", {"f:spec": {"f:replicas": {}}}, ["spec", "replicas"], 5),
        *("a HorizontalPodAutoscaler (kube-controller-manager) set spec.replicas", "spec.targets[l4].autoscaling"),
    ),
    "kubectl set image": (
        *("kubectl-set", "", _pod_field("f:containers", SERVER, "f:image")),
        *(["spec", "template", "spec", "containers", 0, "image"], "example.com/other:1"),
        *("kubectl-set set spec.template.spec.containers[server].image", "spec.toolchain"),
    ),
    "kubectl set resources": (
        *("kubectl-set", "", _pod_field("f:containers", SERVER, "f:resources")),
        *(["spec", "template", "spec", "containers", 0, "resources", "requests", "cpu"], "7"),
        *("kubectl-set set spec.template.spec.containers[server].resources.requests.cpu", "podTemplate.resources"),
    ),
    "kubectl edit of the affinity": (
        *("kubectl-edit", "", _pod_field("f:nodeSelector")),
        *(["spec", "template", "spec", "affinity"], {}),
        *("kubectl-edit set spec.template.spec.affinity.nodeAffinity", "spec.podTemplate.nodeSelector"),
    ),
    "a label": (
        *("argocd-controller", "", {"f:metadata": {"f:labels": {"f:app.kubernetes.io/component": {}}}}),
        *(["metadata", "labels", "app.kubernetes.io/component"], "mine"),
        *("argocd-controller set metadata.labels.app.kubernetes.io/component", "no field of the InferenceEngine"),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_by_somebody_else_is_put_back_and_said(name: str) -> None:
    manager, subresource, fields, path, value, who, advice = CHANGES[name]
    world = _serving()
    (before,) = world.of_kind("Deployment")
    deployment = _write(world, manager, fields, subresource=subresource)
    found: Any = deployment
    for step in path[:-1]:
        found = found[step]
    found[path[-1]] = value
    world.put(deployment)

    decision = world.step()

    assert [event.reason for event in decision.events] == ["ChangedByOthers"]
    assert decision.events[0].is_warning
    assert who in decision.events[0].message
    assert advice in decision.events[0].message
    (after,) = world.of_kind("Deployment")
    assert after["spec"] == before["spec"]
    assert who in _conflict(world)
    assert world.condition("Ready").reason == "Serving"


@pytest.mark.parametrize("kind", ["Service", "PodDisruptionBudget"])
def test_a_key_that_somebody_adds_to_a_selector_is_taken_out_and_said(kind: str) -> None:
    world = _serving(replicas=2)
    before = world.of_kind(kind)
    changed = deepcopy(before[0])
    selector = changed["spec"]["selector"]
    (selector if kind == "Service" else selector["matchLabels"])["track"] = "canary"
    fields: dict[str, Any] = {"f:spec": {"f:selector": {}}}
    changed["metadata"]["managedFields"] = [{"manager": "kubectl-edit", "operation": "Update", "fieldsV1": fields}]
    world.put(changed)

    decision = world.step()

    (event,) = decision.events
    assert f"kubectl-edit set spec.selector of {kind} {changed['metadata']['name']}" in event.message
    (after,) = [one for one in world.of_kind(kind) if one["metadata"]["name"] == changed["metadata"]["name"]]
    assert after["spec"]["selector"] == before[0]["spec"]["selector"]
    assert world.look().applies == ()


def test_what_was_put_back_is_told_for_a_while_and_a_fight_is_one_event_meanwhile() -> None:
    world = _serving()
    events: list[EventNote] = []
    for _ in range(20):
        deployment = _write(world, "kube-controller-manager", {"f:spec": {"f:replicas": {}}}, subresource="scale")
        deployment["spec"]["replicas"] = 5
        world.put(deployment)
        events += world.step().events
        assert world.look().events == ()
        world.wait(15)
    assert len({(event.reason, event.message, event.since) for event in events}) == 1
    assert _conflict(world)
    requeue = world.look().requeue_seconds
    assert requeue is not None
    world.wait(requeue)
    assert _conflict(world) == ""
    world.step()
    assert world.look().requeue_seconds is None


def test_a_change_of_the_spec_is_no_change_by_somebody_else() -> None:
    world = _serving()
    world.change_spec(targets=[L4 | {"replicas": 3}])
    world.step()
    assert _conflict(world) == ""
    assert [one["spec"]["replicas"] for one in world.of_kind("Deployment")] == [3]


def test_an_object_that_is_changed_without_a_trace_is_said_as_well() -> None:
    world = _serving()
    (service,) = [one for one in world.of_kind("Service") if one["metadata"]["name"] == "ocr-l4"]
    service["spec"]["selector"] = {"app": "mine"}
    world.put(service)
    assert "an admission webhook" in world.step().events[0].message


def test_who_set_a_field_of_the_status_is_not_kept_and_nor_are_we() -> None:
    world = _serving()
    deployment = _write(world, "kubectl", {"f:spec": {"f:replicas": {}}}, subresource="scale")
    status = {"manager": "kube-controller-manager", "subresource": "status", "fieldsV1": {"f:status": {}}}
    deployment["metadata"]["managedFields"].append(status)
    world.put(deployment)
    (kept,) = world.of_kind("Deployment")
    assert [one["manager"] for one in kept["metadata"]["managedFields"]] == ["kubectl"]


# How replicas and autoscaling take over from each other


def _scaled(least: int, **more: Any) -> dict[str, Any]:
    bounds = {"minReplicas": least, "maxReplicas": 8, "cpuUtilization": 80} | more
    return {key: value for key, value in L4.items() if key != "replicas"} | {"autoscaling": bounds}


def _replicas(world: EngineWorld) -> object:
    (deployment,) = world.of_kind("Deployment")
    return deployment["spec"].get("replicas")


def _scale(world: EngineWorld, replicas: int, manager: str = "kube-controller-manager") -> None:
    """Let somebody else set the number."""
    deployment = _write(world, manager, {"f:spec": {"f:replicas": {}}}, subresource="scale")
    deployment["spec"]["replicas"] = replicas
    world.put(deployment)


def test_a_target_with_an_autoscaler_begins_with_its_least_number() -> None:
    world = EngineWorld(targets=[_scaled(3)])
    world.serve()
    assert _replicas(world) == 3
    (autoscaler,) = world.of_kind("HorizontalPodAutoscaler")
    assert autoscaler["spec"]["minReplicas"] == 3


def test_from_replicas_to_an_autoscaler_the_number_stays() -> None:
    world = _serving(replicas=4)
    world.change_spec(targets=[_scaled(2)])
    world.settle()
    assert _replicas(world) == 4
    world.wait(3600)
    assert world.look().applies == ()


def test_from_fewer_replicas_to_an_autoscaler_the_least_number_comes_at_once() -> None:
    world = _serving(replicas=1)
    world.change_spec(targets=[_scaled(3)])
    world.settle()
    assert _replicas(world) == 3


def test_a_number_that_an_autoscaler_has_set_is_its_own() -> None:
    world = EngineWorld(targets=[_scaled(2)])
    world.serve()
    _scale(world, 5)
    decision = world.step()
    (applied,) = [one for one in decision.applies if one["kind"] == "Deployment"]
    assert "replicas" not in applied["spec"]
    assert _conflict(world) == ""


def test_from_an_autoscaler_to_replicas_the_number_is_the_one_that_is_asked_for() -> None:
    world = EngineWorld(targets=[_scaled(2)])
    world.serve()
    _scale(world, 5)
    world.step()
    world.change_spec(targets=[L4 | {"replicas": 4}])
    decision = world.step()
    assert _replicas(world) == 4
    assert [one.address.kind for one in decision.deletes] == ["HorizontalPodAutoscaler"]


def test_a_least_number_that_rises_is_there_at_once_though_an_autoscaler_owns_the_number() -> None:
    world = EngineWorld(targets=[_scaled(1)])
    world.serve()
    _scale(world, 2)
    world.step()
    _scale(world, 2)
    world.change_spec(targets=[_scaled(4)])
    world.step()
    assert _replicas(world) == 4
    (autoscaler,) = world.of_kind("HorizontalPodAutoscaler")
    assert autoscaler["spec"]["minReplicas"] == 4


def test_an_autoscaler_of_the_user_may_keep_no_replicas() -> None:
    own = _scaled(0)
    own["autoscaling"].pop("cpuUtilization")
    world = EngineWorld(targets=[own])
    world.serve()
    _scale(world, 0, "keda-operator")
    decision = world.step()
    (applied,) = [one for one in decision.applies if one["kind"] == "Deployment"]
    assert "replicas" not in applied["spec"]


def test_a_standby_that_wakes_has_its_least_number_at_once() -> None:
    first = L4 | {"replicas": 1}
    world = EngineWorld(targets=[first, {"name": "cpu", "backend": "onnxruntime", "standby": True, **_bounds(2)}])
    world.serve()
    world.start_pods()
    world.settle()
    assert _of(world, "cpu") == 0
    world.start_pods(target="l4", ready=False)
    world.settle()
    assert _of(world, "cpu") == 2


def _bounds(least: int) -> dict[str, Any]:
    return {"autoscaling": {"minReplicas": least, "maxReplicas": 8, "cpuUtilization": 80}}


def _of(world: EngineWorld, target: str) -> object:
    found = {one["metadata"]["labels"]["enginesmith.io/target"]: one for one in world.of_kind("Deployment")}
    return found[target]["spec"].get("replicas")
