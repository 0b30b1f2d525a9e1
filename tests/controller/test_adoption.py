"""Objects that were left without an owner: adopted where they are what would be made, else named all at once."""

from copy import deepcopy

import pytest
from tests.controller.engine_world import EngineWorld

from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.shared.adoption import adopted, is_orphan, may_adopt, orphan_names


def _orphan(made: Json) -> Json:
    """Return an object as `kubectl delete --cascade=orphan` of its owner leaves it."""
    left = deepcopy(made)
    left["metadata"].pop("ownerReferences")
    return left


def _serving() -> dict[str, Json]:
    """Return what an engine that serves has, by kind; the cluster's own fields beside what was applied."""
    world = EngineWorld(targets=[{"name": "l4", "gpu": {"product": "NVIDIA-L4"}, "replicas": 2}])
    world.serve()
    kinds = ("Job", "Deployment", "PodDisruptionBudget", "Service")
    return {kind: one for kind in kinds for one in world.of_kind(kind)}


@pytest.mark.parametrize("kind", ["Job", "Deployment", "PodDisruptionBudget", "Service"])
def test_an_orphan_that_is_what_would_be_made_is_adopted(kind: str) -> None:
    desired = _serving()[kind]
    live = _orphan(desired) | {"status": {"observedGeneration": 1}}
    live["metadata"]["annotations"] = (live["metadata"].get("annotations") or {}) | {"deployment/revision": "3"}
    assert may_adopt(live, desired)
    document = adopted(live, desired)
    assert document["metadata"]["uid"] == live["metadata"]["uid"]
    assert document["metadata"]["ownerReferences"] == desired["metadata"]["ownerReferences"]
    assert "spec" not in document


def test_replicas_that_somebody_set_are_no_reason_to_refuse_an_orphan() -> None:
    desired = _serving()["Deployment"]
    live = _orphan(desired)
    live["spec"]["replicas"] = 7
    assert may_adopt(live, desired)


@pytest.mark.parametrize("change", ["image", "container", "variable", "argument", "host", "label"])
def test_an_orphan_that_was_changed_is_left_alone(change: str) -> None:
    desired = _serving()["Deployment"]
    live = _orphan(desired)
    pod = live["spec"]["template"]["spec"]
    match change:
        case "image":
            pod["containers"][0]["image"] = "example.com/mine:1"
        case "container":
            pod["containers"].append({"name": "mine", "image": "example.com/mine:1"})
        case "variable":
            pod["containers"][0]["env"].append({"name": "LD_PRELOAD", "value": "/models/mine.so"})
        case "argument":
            pod["containers"][0]["args"] = ["--more"]
        case "host":
            pod["hostNetwork"] = True
        case _:
            live["metadata"]["labels"]["enginesmith.io/engine"] = "another"
    assert not may_adopt(live, desired)


def test_an_object_of_another_owner_and_one_that_goes_are_no_orphans() -> None:
    desired = _serving()["Service"]
    assert not is_orphan(desired, "ocr")
    going = _orphan(desired)
    going["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    assert not is_orphan(going, "ocr")
    assert not is_orphan(_orphan(desired), "another")


def test_all_orphans_are_named_and_nothing_else() -> None:
    objects = [_orphan(one) if kind != "Service" else one for kind, one in _serving().items()]
    names = orphan_names(objects, "ocr")
    assert [name.partition(" ")[0] for name in names] == ["Deployment", "Job", "PodDisruptionBudget"]


def test_the_pods_of_an_adopted_deployment_serve_the_engine_that_is_younger() -> None:
    world = EngineWorld()
    world.serve()
    world.engine["metadata"]["creationTimestamp"] = "2026-11-23T13:00:00Z"
    world.put(world.engine)
    assert world.target("l4").ready_replicas == 0
    (deployment,) = world.of_kind("Deployment")
    deployment["metadata"]["creationTimestamp"] = "2026-11-23T12:00:00Z"
    world.put(deployment)
    assert world.target("l4").ready_replicas == 1
