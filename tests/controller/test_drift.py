"""When an object has to be written, and when it is left alone."""

from copy import deepcopy
from typing import Any

import pytest
from tests.controller.engine_world import EngineWorld

from enginesmith_operator.controller.shared.drift import must_apply, stamp

_DESIRED: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "ocr-l4", "labels": {"a": "b"}},
    "spec": {
        "replicas": 2,
        "template": {
            "spec": {
                "containers": [{"name": "runtime", "image": "i@sha256:1", "args": ["--request", "/x"]}],
                "tolerations": [
                    {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
                    {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute"},
                ],
            }
        },
    },
}


def _live() -> dict[str, Any]:
    """Return the object as a server gives it back: with defaults and other controllers' fields."""
    live = deepcopy(stamp(_DESIRED))
    live["metadata"] |= {"uid": "u", "resourceVersion": "5"}
    live["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "1"
    live["spec"] |= {"progressDeadlineSeconds": 600}
    spec = live["spec"]["template"]["spec"]
    spec["containers"][0] |= {"imagePullPolicy": "IfNotPresent"}
    spec["containers"].insert(0, {"name": "injected-by-somebody", "image": "x"})
    live["status"] = {"replicas": 2}
    return live


def test_an_object_with_defaults_and_strangers_beside_ours_is_left_alone() -> None:
    assert not must_apply(stamp(_DESIRED), _live())


def test_what_is_not_there_is_written() -> None:
    assert must_apply(stamp(_DESIRED), None)


def test_a_field_of_ours_that_somebody_changed_is_written_back() -> None:
    live = _live()
    live["spec"]["replicas"] = 7
    assert must_apply(stamp(_DESIRED), live)


def test_an_argument_of_ours_that_somebody_removed_is_written_back() -> None:
    live = _live()
    live["spec"]["template"]["spec"]["containers"][1]["args"] = ["--request"]
    assert must_apply(stamp(_DESIRED), live)


def test_a_field_that_is_wanted_no_more_makes_a_difference_although_everything_wanted_is_there() -> None:
    without = deepcopy(_DESIRED)
    del without["metadata"]["labels"]
    assert must_apply(stamp(without), _live())


def test_one_of_two_tolerations_with_one_key_is_told_from_the_other() -> None:
    live = _live()
    live["spec"]["template"]["spec"]["tolerations"].pop(0)
    assert must_apply(stamp(_DESIRED), live)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"requests": {"cpu": "0.1"}}, {"requests": {"cpu": "100m"}}),
        ({"limits": {"memory": "1024Mi"}}, {"limits": {"memory": "1Gi"}}),
        ({"limits": {"memory": "1073741824", "cpu": 2}}, {"limits": {"memory": "1Gi", "cpu": "2"}}),
        ({"limits": {"memory": "1.1Gi"}}, {"limits": {"memory": "1181116006400m"}}),
        ({"target": {"averageValue": "1000m"}}, {"target": {"averageValue": "1"}}),
        ({"sizeLimit": "1024Gi"}, {"sizeLimit": "1Ti"}),
    ],
)
def test_an_amount_that_is_spelled_otherwise_is_the_same(wanted: dict[str, Any], found: dict[str, Any]) -> None:
    desired = stamp({"metadata": {"name": "a"}, "spec": wanted})
    assert not must_apply(desired, desired | {"spec": found})


def test_an_amount_finer_than_the_server_keeps_is_asked_for_as_the_server_rounds_it() -> None:
    fine = {"cpu": "500u", "memory": "0.12345Gi"}
    world = EngineWorld(podTemplate={"resources": {"requests": fine, "limits": {"ephemeral-storage": "0.0001"}}})
    world.serve()
    (deployment,) = world.of_kind("Deployment")
    spec = deployment["spec"]["template"]["spec"]
    for container in (*spec["initContainers"], *spec["containers"]):
        assert container["resources"]["requests"].items() >= {"cpu": "1m", "memory": "132553428173m"}.items()
        assert container["resources"]["limits"]["ephemeral-storage"] == "1m"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "1G"}}),
        ({"limits": {"memory": "1Gi"}}, {"limits": {}}),
        ({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "none"}}),
        ({"env": [{"name": "A", "value": "0.1"}]}, {"env": [{"name": "A", "value": "100m"}]}),
        ({"env": [{"name": "A", "value": "x"}]}, {"env": [{"name": "A"}]}),
        ({"nodeSelector": {"pool": ""}}, {"nodeSelector": {}}),
        ({"tolerations": [{"key": "a", "tolerationSeconds": 0}]}, {"tolerations": [{"key": "a"}]}),
    ],
)
def test_another_amount_or_another_text_is_written_back(wanted: dict[str, Any], found: dict[str, Any]) -> None:
    desired = stamp({"metadata": {"name": "a"}, "spec": wanted})
    assert must_apply(desired, desired | {"spec": found})


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"env": [{"name": "A", "value": ""}]}, {"env": [{"name": "A"}]}),
        ({"tolerations": [{"key": "", "operator": "Exists"}]}, {"tolerations": [{"operator": "Exists"}]}),
        ({"securityContext": {}, "volumes": [], "priority": None}, {}),
    ],
)
def test_what_is_empty_may_be_left_out_by_the_server(wanted: dict[str, Any], found: dict[str, Any]) -> None:
    desired = stamp({"metadata": {"name": "a"}, "spec": wanted})
    assert not must_apply(desired, desired | {"spec": found})
