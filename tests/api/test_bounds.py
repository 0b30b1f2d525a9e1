"""The least and the largest value of what a user may set, in files and in objects of a cluster alike."""

from typing import Any

import pytest
from pydantic import ValidationError

from enginesmith_contract.errors import SpecError
from enginesmith_operator.api.inference_engine import InferenceEngineSpec
from enginesmith_operator.controller.inference_engine.reconcile import read_engine

HUGE = "2562047h47m16s"
"""The longest duration that Go can hold."""


def _spec(path: str, value: object) -> dict[str, Any]:
    """Return a spec with one field set; `[]` in the path stands for a list of one entry."""
    inner: Any = value
    for step in reversed(path.split(".")):
        inner = {step.removesuffix("[]"): [inner] if step.endswith("[]") else inner}
    spec: dict[str, Any] = {"model": {"uri": "s3://models/a.onnx"}}
    return spec | {name: spec.get(name, {}) | each if isinstance(each, dict) else each for name, each in inner.items()}


def _target(path: str, value: object) -> dict[str, Any]:
    inner = _spec(path, value)
    inner.pop("model")
    return _spec("targets", [{"name": "a"} | inner])


@pytest.mark.parametrize(
    ("path", "value", "want_words"),
    [
        ("model.refresh", "0s", "at least 1m"),
        ("model.refresh", "0", "at least 1m"),
        ("model.refresh", "1ns", "at least 1m"),
        ("model.refresh", "999ms", "at least 1m"),
        ("model.refresh", "1s", "at least 1m"),
        ("model.refresh", "59s999ms999us999ns", "at least 1m"),
        ("model.refresh", HUGE, "at most 8760h"),
        ("model.refresh", "-1m", "expected a duration with its unit"),
        ("model.refresh", "9999999h", "at most 292 years"),
        ("build.timeout", "0s", "at least 1s"),
        ("build.timeout", "500us", "at least 1s"),
        ("build.timeout", HUGE, "at most 168h"),
        ("serving.drainDelay", "1h1ns", "at most 1h"),
        ("serving.batching", {"maxQueueDelay": "10001ms"}, "at most 10s"),
        ("serving.queue", {"timeout": "0s"}, "at least 1ms"),
        ("serving.responseCache", {"size": 0}, "at least 1Ki"),
        ("serving.gracePeriod", HUGE, "at most 24h"),
        ("retention.keepFor", HUGE, "at most 87600h"),
        ("build.workspace", 0, "at least 1Mi"),
        ("build.workspace", "0", "at least 1Mi"),
        ("build.workspace", "1023Ki", "at least 1Mi"),
        ("build.workspace", "1e30", "at most 2^63 - 1"),
        ("build.workspace", "2Ti", "at most 1Ti"),
        ("build.workspace", -1, "must not be negative"),
        ("serving.maxMessageBytes", "0", "at least 1"),
        ("serving.maxMessageBytes", "2Gi", "at most 2147483647"),
        ("podTemplate.resources", {"requests": {"cpu": "1e30"}}, "at most 1E"),
        ("podTemplate.resources", {"limits": {"memory": -1}}, "expected a Kubernetes quantity"),
        ("build.resources", {"limits": {"memory": "9Ei"}}, "at most 1E"),
        ("build.resources", {"requests": {"memory": "1025Mi"}, "limits": {"memory": "1Gi"}}, "the limit of memory is"),
        ("podTemplate.tolerations[]", {"key": "a", "effect": "NoExecute", "tolerationSeconds": -1}, "greater than or"),
        ("podTemplate.tolerations[]", {"key": "a", "tolerationSeconds": 1}, "only for the effect NoExecute"),
        ("podTemplate.tolerations[]", {"value": "a"}, "without a key needs the operator Exists"),
        ("podTemplate.tolerations[]", {"operator": "Exists", "value": "a"}, "does not compare a value"),
    ],
)
def test_what_is_too_small_or_too_large_is_refused_with_what_would_do(
    path: str, value: object, want_words: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        InferenceEngineSpec.model_validate(_spec(path, value), by_name=False)

    assert want_words in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "want_words"),
    [
        ("replicas", -1, "greater than or equal to 0"),
        ("replicas", 10_001, "less than or equal to 10000"),
        ("replicas", 10**30, "less than or equal to 10000"),
        ("gpu.count", 0, "greater than or equal to 1"),
        ("gpu.minMemory", "0", "at least 1Mi"),
        ("gpu.minMemory", "1Pi", "at most 16Ti"),
        ("autoscaling", {"maxReplicas": 0}, "greater than or equal to 1"),
        ("autoscaling", {"maxReplicas": 1, "podMetric": {"name": "a", "averageValue": "0"}}, "at least 1n"),
    ],
)
def test_what_is_too_small_or_too_large_in_a_target_is_refused(path: str, value: object, want_words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        InferenceEngineSpec.model_validate(_target(path, value), by_name=False)

    assert want_words in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.refresh", "1m"),
        ("model.refresh", "60000000us"),
        ("model.refresh", "8760h"),
        ("build.timeout", "1s"),
        ("build.timeout", "1000ms"),
        ("build.timeout", "168h"),
        ("build.workspace", "1Mi"),
        ("build.workspace", 1 << 20),
        ("build.workspace", "1Ti"),
        ("serving.drainDelay", "0s"),
        ("serving.batching", {"maxQueueDelay": "10s"}),
        # What the API server makes of it: defaults are no wishes.
        ("serving.batching", {"enabled": False, "maxQueueDelay": "0s"}),
        ("serving.queue", {"timeout": "1ms"}),
        ("serving.drainDelay", "0"),
        ("serving.gracePeriod", "0s"),
        ("serving.maxMessageBytes", 1),
        ("serving.maxMessageBytes", "2147483647"),
        ("retention.keepFor", "0s"),
        ("podTemplate.resources", {"requests": {"cpu": 0, "memory": "1024Mi"}, "limits": {"memory": "1Gi"}}),
        ("podTemplate.tolerations[]", {"key": "a", "effect": "NoExecute", "tolerationSeconds": 0}),
        ("podTemplate.tolerations[]", {"operator": "Exists"}),
    ],
)
def test_the_least_and_the_largest_value_are_taken(path: str, value: object) -> None:
    spec = InferenceEngineSpec.model_validate(_spec(path, value), by_name=False)

    assert spec.model_dump(mode="json", by_alias=True, exclude_unset=True) == _spec(path, value) | (
        {} if path != "build.workspace" or isinstance(value, str) else {"build": {"workspace": "1Mi"}}
    )


def test_an_object_that_an_earlier_definition_let_in_is_refused_by_its_field() -> None:
    document = {
        "apiVersion": "enginesmith.io/v1alpha1",
        "kind": "InferenceEngine",
        "metadata": {"name": "refresh0", "namespace": "a"},
        "spec": _spec("model.refresh", "0s"),
    }

    error = read_engine(document)

    assert isinstance(error, SpecError)
    assert "spec.model.refresh" in error.sentence()
    assert "at least 1m" in error.sentence()
