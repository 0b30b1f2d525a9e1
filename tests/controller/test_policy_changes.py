"""What an EnginePolicy does to an InferenceEngine that is there: a condition, and never a deletion."""

from typing import Any

import pytest
from tests.controller.engine_world import EngineWorld

from enginesmith_operator.api.engine_status import TargetPhase

SELECTED = {"team": "a"}


def put_policy(world: EngineWorld, **spec: Any) -> None:
    head = {"apiVersion": "enginesmith.io/v1alpha1", "kind": "EnginePolicy", "metadata": {"name": "house"}}
    world.put(head | {"spec": spec})


def put_namespace(world: EngineWorld, **labels: str) -> None:
    world.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "vision", "labels": labels}})


def violated(world: EngineWorld) -> str:
    """Return the message of PolicyViolated; empty: the condition is absent."""
    conditions = world.step().status.conditions
    return next((one.message for one in conditions if one.type == "PolicyViolated"), "")


@pytest.fixture
def serving() -> EngineWorld:
    """An engine that serves on an L4."""
    world = EngineWorld()
    world.serve()
    world.settle()
    return world


@pytest.mark.parametrize(
    "policy",
    [
        {"gpuProducts": ["NVIDIA-T4"]},
        {"digestRequired": True},
        {"toolchains": ["other-*"]},
        {"migProfiles": ["1g.10gb"]},
        {"limits": {"buildTimeout": "1m"}},
        {"modelSources": []},
    ],
    ids=lambda policy: next(iter(policy)),
)
def test_what_serves_stays_when_a_policy_forbids_it_and_the_status_says_so(
    serving: EngineWorld, policy: dict[str, Any]
) -> None:
    (before,) = serving.of_kind("Deployment")
    put_policy(serving, **policy)

    decision = serving.step()

    (after,) = serving.of_kind("Deployment")
    condition = serving.condition("PolicyViolated")
    assert not decision.deletes
    assert after["spec"] == before["spec"]
    assert "EnginePolicy house: " in condition.message
    assert "serving pods continue" in condition.message
    assert [one.reason for one in decision.events] == [condition.reason]
    assert serving.condition("Ready").status.value == "True"
    serving.wait(600)
    serving.settle()
    assert serving.condition("PolicyViolated") == condition


def test_the_condition_goes_when_the_policy_allows_it_again(serving: EngineWorld) -> None:
    put_policy(serving, gpuProducts=["NVIDIA-T4"])
    assert "NVIDIA-L4 is not allowed" in violated(serving)

    put_policy(serving, gpuProducts=["NVIDIA-T4", "NVIDIA-L4"])

    assert violated(serving) == ""
    assert serving.condition("UpToDate").status.value == "True"


def test_a_policy_holds_for_a_namespace_as_soon_as_that_has_the_labels(serving: EngineWorld) -> None:
    put_namespace(serving)
    put_policy(serving, namespaceSelector={"matchLabels": SELECTED}, digestRequired=True)
    assert violated(serving) == ""

    put_namespace(serving, **SELECTED)

    assert "a digest is required" in violated(serving)


def test_nothing_is_built_on_a_gpu_that_a_policy_forbids_though_the_spec_names_no_product() -> None:
    world = EngineWorld(targets=[{"name": "any", "gpu": {"minMemory": "1Gi"}}])
    put_policy(world, gpuProducts=["NVIDIA-T4"])

    world.settle()

    assert world.target("any").phase is TargetPhase.REFUSED
    assert world.condition("Planned").reason == "PolicyGpuProduct"
    assert not world.of_kind("Job")


def test_what_serves_on_a_gpu_that_its_spec_does_not_name_is_known_to_violate(serving: EngineWorld) -> None:
    serving.change_spec(targets=[{"name": "l4", "gpu": {"minMemory": "1Gi"}}])
    put_policy(serving, gpuProducts=["NVIDIA-T4"])

    assert "target l4 serves: NVIDIA-L4 is not allowed (allowed: NVIDIA-T4)" in violated(serving)


def test_a_default_of_a_policy_is_used_shown_and_never_written_into_the_document() -> None:
    world = EngineWorld()
    put_policy(world, defaults={"precision": "fp16", "store": {"s3": {"bucket": "team"}}})
    before = dict(world.engine["spec"])

    world.serve()
    status = world.step().status

    assert world.engine["spec"] == before
    assert [(one.field, one.value, one.policy) for one in status.inherited] == [
        ("spec.precision", "fp16", "house"),
        ("spec.store", '{"s3": {"bucket": "team"}}', "house"),
    ]
    (build,) = world.of_kind("EngineBuild")
    assert build["spec"]["store"]["s3"]["bucket"] == "team"
    assert build["spec"]["request"]["store"] == "s3://team/vision"
    assert world.snapshot().engine.spec.precision.default == "fp16"


def test_defaults_that_contradict_each_other_are_a_condition_with_both_policies(serving: EngineWorld) -> None:
    for name, precision in (("a", "fp16"), ("b", "bf16")):
        head = {"apiVersion": "enginesmith.io/v1alpha1", "kind": "EnginePolicy", "metadata": {"name": name}}
        serving.put(head | {"spec": {"defaults": {"precision": precision}}})

    decision = serving.step()

    condition = serving.condition("PolicyViolated")
    assert condition.reason == "PolicyDefault"
    assert (
        "EnginePolicy a: spec.precision: its default fp16 is not the default bf16 of EnginePolicy b"
        in condition.message
    )
    assert not decision.deletes
    assert serving.condition("Ready").status.value == "True"
    serving.change_spec(precision="fp32")
    assert violated(serving) == ""


def test_a_policy_that_cannot_be_read_may_forbid_anything_new(serving: EngineWorld) -> None:
    put_policy(serving, fieldOfANewerRelease=True)

    decision = serving.step()

    assert serving.condition("Planned").reason == "PolicyUnreadable"
    assert "fieldOfANewerRelease" in serving.condition("Planned").message
    assert not decision.deletes
    assert serving.condition("Ready").status.value == "True"
