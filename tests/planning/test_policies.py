"""What EnginePolicies forbid in a spec, among the GPUs of nodes, and among toolchains."""

from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from tests.planning.conftest import CPU, DATA, L4, NOW, MakeEngine, MakeNode, MakeObserved, refused_rules

from enginesmith_operator.api.engine_policy import EnginePolicy
from enginesmith_operator.api.patterns import allows_image
from enginesmith_operator.planning.plan import plan
from enginesmith_operator.planning.plan_records import TargetState
from enginesmith_operator.planning.policies import find_violations, select_policies
from enginesmith_operator.planning.policy_defaults import with_defaults
from enginesmith_operator.planning.refusal_error import refusal_error
from enginesmith_operator.planning.snapshot import ObservedDeployment

SERVES = (ObservedDeployment(target="l4", ready_replicas=1),)
CASES: list[dict[str, Any]] = yaml.safe_load((DATA / "policies.yaml").read_text(encoding="utf-8"))


def make_policy(name: str = "house", **spec: Any) -> EnginePolicy:
    return EnginePolicy.model_validate({"metadata": {"name": name}, "spec": spec}, by_name=False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["policy"]))
def test_a_field_that_a_policy_forbids_is_named_with_what_is_allowed(
    make_engine: MakeEngine, case: dict[str, Any]
) -> None:
    policies = [make_policy(**case["policy"])]
    engine, _ = with_defaults(make_engine(**{"targets": [CPU], **case["spec"]}), policies)

    found = find_violations(engine.spec, policies)

    assert [one.text for one in found] == case["want"]


def test_every_violation_of_every_policy_is_in_the_plan(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    policies = make_policy("digests", digestRequired=True), make_policy("gpus", gpuProducts=["NVIDIA-T4"])

    result = plan(make_engine(targets=[L4]), make_observed(make_node("gpu-1"), policies=policies), NOW)

    assert [one.rule for one in result.refusals] == ["PolicyDigest", "PolicyGpuProduct"]
    assert "EnginePolicy gpus: spec.targets[0].gpu.product: NVIDIA-L4 is not allowed" in result.refusals[1].found
    assert not result.has_target
    (hint,) = result.targets[0].hints
    assert hint.startswith("the spec is refused: PolicyDigest: EnginePolicy digests: spec.model.sha256")
    assert hint.endswith("(and 1 more)")
    assert str(refusal_error(result)).count("spec.model.sha256") == 1


def test_what_is_forbidden_of_one_target_leaves_the_others_their_plan(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    policies = (make_policy(gpuProducts=["NVIDIA-T4"]),)

    result = plan(make_engine(targets=[L4, CPU]), make_observed(make_node("gpu-1"), policies=policies), NOW)

    assert [one.state for one in result.targets] == [TargetState.REFUSED, TargetState.PLANNED]
    assert refused_rules(result) == ["PolicyGpuProduct"]


def test_a_target_that_names_no_product_gets_the_allowed_ones_among_the_nodes(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    engine = make_engine(targets=[{"name": "any", "gpu": {"minMemory": "20Gi"}}])
    nodes = make_node("a", "NVIDIA-L4"), make_node("b", "NVIDIA-A10")

    result = plan(engine, make_observed(*nodes, policies=(make_policy(gpuProducts=["NVIDIA-L4"]),)), NOW)
    refused = plan(engine, make_observed(*nodes, policies=(make_policy(gpuProducts=["NVIDIA-T4"]),)), NOW)

    assert [one.hardware.product for one in result.targets[0].engines] == ["NVIDIA-L4"]
    assert "EnginePolicy house: NVIDIA-A10 is not allowed" in result.targets[0].refusals[0].sentence()
    assert refused_rules(refused) == ["PolicyGpuProduct"]
    assert not refused.refusals


def test_all_policies_hold_together(make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode) -> None:
    engine = make_engine(targets=[{"name": "any", "gpu": {"minMemory": "20Gi"}}])
    nodes = make_node("a", "NVIDIA-L4"), make_node("b", "NVIDIA-A10")
    policies = make_policy("one", gpuProducts=["NVIDIA-L4"]), make_policy("two", gpuProducts=["NVIDIA-A10"])

    result = plan(engine, make_observed(*nodes, policies=policies), NOW)

    assert result.targets[0].state is TargetState.REFUSED


def test_the_newest_toolchain_that_is_allowed_is_chosen(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    allowed, forbidden = make_policy(toolchains=["trt-10.9*", "ort"]), make_policy(toolchains=["ort"])

    result = plan(make_engine(targets=[L4]), make_observed(make_node("gpu-1"), policies=(allowed,)), NOW)
    refused = plan(make_engine(targets=[L4]), make_observed(make_node("gpu-1"), policies=(forbidden,)), NOW)

    assert [one.toolchain.name for one in result.targets[0].engines] == ["trt-10.9-cu12"]
    assert refused_rules(refused) == ["PolicyToolchain"]


@pytest.mark.parametrize(
    ("update", "deployments", "want"),
    [("manual", SERVES, ""), ("manual", (), "trt-10.9-cu12"), ("auto", SERVES, "trt-10.9-cu12")],
)
def test_a_toolchain_that_serves_is_not_replaced_because_a_policy_forbids_it_now(
    make_engine: MakeEngine,
    make_observed: MakeObserved,
    make_node: MakeNode,
    update: str,
    deployments: tuple[ObservedDeployment, ...],
    want: str,
) -> None:
    known = make_observed(make_node("gpu-1"), policies=(make_policy(toolchains=["trt-10.9*"]),))
    pinned = {"l4": next(one for one in known.toolchains if one.name == "trt-10.13-cu12")}
    observed = known.model_copy(update={"pinned": pinned, "deployments": deployments})

    result = plan(make_engine(targets=[L4], toolchain={"update": update}), observed, NOW)

    assert [one.toolchain.name for one in result.targets[0].engines] == ([want] if want else [])
    assert refused_rules(result) == ([] if want else ["PolicyToolchain"])


@pytest.mark.parametrize(
    ("images", "want"),
    [
        ([f"registry.example/{name}*" for name in ("runtime", "other")], []),
        (["*.evil/*"], ["PolicyImage"]),
        (["registry.*/runtime*"], []),
        (["registry.example:5000/*"], ["PolicyImage"]),
        (["*/library/*"], ["PolicyImage"]),
        ([], ["PolicyImage"]),
    ],
)
def test_a_toolchain_is_used_where_its_image_is_allowed(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode, images: list[str], want: list[str]
) -> None:
    known = make_observed(make_node("gpu-1"), policies=(make_policy(images=images),))
    image = f"registry.example/runtime@sha256:{'a1' * 32}"
    toolchains = tuple(one.model_copy(update={"image": image}) for one in known.toolchains)

    result = plan(make_engine(targets=[L4]), known.model_copy(update={"toolchains": toolchains}), NOW)

    assert refused_rules(result) == want


@pytest.mark.parametrize(
    ("image", "pattern", "want"),
    [
        ("evil.org/registry.example/x", "*.example/*", False),
        ("a.example/team/deep/x@sha256:aa", "a.example/team/*", True),
        ("a.example:5000/x:1", "a.example:5000/x:*", True),
        ("python:3.11", "docker.io/python:*", True),
        ("library/python:3.11", "docker.io/library/*", True),
        ("localhost/x:1", "docker.io/*", False),
    ],
)
def test_a_star_before_the_first_slash_stays_in_the_host(image: str, pattern: str, *, want: bool) -> None:
    assert allows_image(image, [pattern]) is want


DEFAULTS = {
    "precision": "fp16",
    "build": {"timeout": "1h", "workspace": "4Gi"},
    "verification": {"limit": 0.02, "agreement": 0.98},
    "store": {"s3": {"bucket": "team"}},
}


def test_what_a_document_leaves_out_comes_from_the_policy_and_is_shown(make_engine: MakeEngine) -> None:
    engine, inherited = with_defaults(make_engine(build={"workspace": "1Gi"}), [make_policy(defaults=DEFAULTS)])

    spec = engine.spec
    assert (spec.precision.default, spec.build.timeout_seconds, spec.build.workspace_bytes) == ("fp16", 3600, 1 << 30)
    assert (spec.verification.limit, spec.verification.agreement) == (0.02, 0.98)
    assert spec.store is not None
    assert spec.store.s3 is not None
    assert [(one.field, one.value, one.policy) for one in inherited] == [
        ("spec.precision", "fp16", "house"),
        ("spec.build.timeout", "1h", "house"),
        ("spec.verification.limit", "0.02", "house"),
        ("spec.verification.agreement", "0.98", "house"),
        ("spec.store", '{"s3": {"bucket": "team"}}', "house"),
    ]


def test_two_policies_with_different_defaults_for_a_field_use_neither(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    policies = (
        make_policy("a", defaults={"precision": "fp16", "build": {"timeout": "60m"}}),
        make_policy("b", defaults={"precision": "bf16", "build": {"timeout": "1h"}}),
    )
    engine, inherited = with_defaults(make_engine(targets=[L4]), policies)

    result = plan(engine, make_observed(make_node("gpu-1"), policies=policies), NOW)
    chosen = plan(
        make_engine(targets=[L4], precision="fp16"), make_observed(make_node("gpu-1"), policies=policies), NOW
    )

    assert [(one.field, one.policy) for one in inherited] == [("spec.build.timeout", "a, b")]
    assert [one.rule for one in result.refusals] == ["PolicyDefault"]
    assert result.refusals[0].found == (
        "EnginePolicy a: spec.precision: its default fp16 is not the default bf16 of EnginePolicy b"
    )
    assert chosen.has_target


@pytest.mark.parametrize(
    "spec",
    [
        {"precisions": ["fp32"], "defaults": {"precision": "fp16"}},
        {"limits": {"buildTimeout": "1m", "workspace": "1Gi"}, "defaults": {"build": {"timeout": "2m"}}},
        {"limits": {"workspace": "1Gi"}, "defaults": {"build": {"workspace": "2Gi"}}},
        {"verification": {"largestLimit": 0.1}, "defaults": {"verification": {"limit": 0.2}}},
        {"verification": {"smallestAgreement": 0.9}, "defaults": {"verification": {"agreement": 0.8}}},
        {"defaults": {"precision": "int8"}},
    ],
    ids=str,
)
def test_a_default_that_the_policy_itself_forbids_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"default|calibration"):
        make_policy(**spec)


@pytest.mark.parametrize(
    ("selector", "labels", "want"),
    [
        ({}, {}, ["house"]),
        ({"names": ["vis*"]}, {}, ["house"]),
        ({"names": ["is*"]}, {}, []),
        ({"names": ["vision"], "matchLabels": {"team": "a"}}, {"team": "a", "b": "c"}, ["house"]),
        ({"names": ["vision"], "matchLabels": {"team": "a"}}, {"team": "b"}, []),
        ({"matchLabels": {"team": "a"}}, {}, []),
        # Not known: it could have them.
        ({"matchLabels": {"team": "a"}}, None, ["house"]),
    ],
)
def test_a_policy_selects_namespaces_by_names_and_labels(
    selector: dict[str, Any], labels: dict[str, str] | None, want: list[str]
) -> None:
    found = select_policies([make_policy(namespaceSelector=selector)], "vision", labels)

    assert [one.name for one in found] == want


def test_the_policy_of_the_documentation_is_valid() -> None:
    page = (DATA.parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
    document = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])

    assert EnginePolicy.model_validate(document, by_name=False).name == "vision"
