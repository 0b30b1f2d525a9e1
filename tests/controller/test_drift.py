"""When an object has to be written, and when it is left alone."""

from copy import deepcopy
from typing import Any

from enginesmith_operator.controller.drift import must_apply, stamp

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
