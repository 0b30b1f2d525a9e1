"""Baidu CCE, Tencent TKE and Huawei CCE: the model in a resource's name, percent of a card, and a label by hand."""

from collections.abc import Mapping

import pytest
from tests.planning.conftest import DIGEST, NOW, MakeEngine, MakeObserved, refused_rules

from enginesmith_operator.planning.eligibility import build_eligibility, serve_eligibility
from enginesmith_operator.planning.hardware import NodeFacts, Presence, read_node
from enginesmith_operator.planning.label_mapping import Resource, load_label_mapping
from enginesmith_operator.planning.node_object import NodeObject
from enginesmith_operator.planning.plan import plan
from enginesmith_operator.planning.plan_records import TargetState
from enginesmith_operator.planning.snapshot import NodeClass

QGPU = "tke.cloud.tencent.com/qgpu-core"


def _node(
    resources: Mapping[str, str], labels: Mapping[str, str] | None = None, allocatable: Mapping[str, str] | None = None
) -> NodeFacts:
    document = {
        "metadata": {"name": "node", "labels": labels or {}},
        "status": {"capacity": resources, "allocatable": resources if allocatable is None else allocatable},
    }
    return read_node(NodeObject.model_validate(document), load_label_mapping())


@pytest.mark.parametrize(
    ("model", "want"),
    [
        ("v100_16g", "Tesla-V100-SXM2-16GB"),
        ("v100_32g", "Tesla-V100-SXM2-32GB"),
        ("t4_16g", "Tesla-T4"),
        ("a10_24g", "NVIDIA-A10"),
        ("a30_24g", "NVIDIA-A30"),
        ("a100_40g", "NVIDIA-A100-SXM4-40GB"),
        ("a100_80g", "NVIDIA-A100-SXM4-80GB"),
        ("a800_80g", "NVIDIA-A800-SXM4-80GB"),
        ("h800_80g", "NVIDIA-H800"),
        ("h20_96g", "NVIDIA-H20"),
        ("h20_141g", "NVIDIA-H20-3e"),
        ("h20z_141g", "NVIDIA-H20Z"),
        ("l20", "NVIDIA-L20"),
        ("l40", "NVIDIA-L40"),
        ("rtx_3080", "NVIDIA-GeForce-RTX-3080"),
        ("rtx_3090", "NVIDIA-GeForce-RTX-3090"),
        ("rtx_4090", "NVIDIA-GeForce-RTX-4090"),
        ("p40_8", "Tesla-P40"),
    ],
)
def test_baidu_s_resource_names_the_model_serves_and_never_builds(model: str, want: str) -> None:
    name = f"baidu.com/{model}_cgpu"
    sizes = {f"{name}_core": "800", f"{name}_memory": "640", f"{name}_memory_percent": "800"}
    facts = _node({name: "8", **sizes})

    assert facts.presence is Presence.NVIDIA
    assert (facts.product, facts.product_from) == (want, f"the resource {name} (Baidu CCE)")
    assert [(one.resource, one.allocatable) for one in serve_eligibility(facts).offers] == [(name, 8)]
    assert [one.rule for one in build_eligibility(facts).reasons] == ["SharedGpu"]
    assert facts.strangers == ()


def test_the_platform_s_own_resource_goes_before_nvidia_s_on_the_same_node() -> None:
    facts = _node({"baidu.com/a10_24g_cgpu": "2", "nvidia.com/gpu": "2"})

    assert [one.resource for one in facts.offers] == ["baidu.com/a10_24g_cgpu"]


def test_a_model_that_baidu_s_rows_lack_is_named_and_not_guessed_at() -> None:
    facts = _node({"baidu.com/b300_288g_cgpu": "8"})

    assert (facts.presence, facts.product) == (Presence.NVIDIA, None)
    sentences = [one.sentence() for one in serve_eligibility(facts).reasons]
    assert any("it hands out baidu.com/b300_288g_cgpu, which Enginesmith does not know" in one for one in sentences)


def test_a_node_whose_cgpu_plugin_is_dead_says_which_resource_is_gone() -> None:
    facts = _node({"baidu.com/l20_cgpu": "4"}, allocatable={"baidu.com/l20_cgpu": "0"})

    (reason,) = serve_eligibility(facts).reasons
    assert "baidu.com/l20_cgpu is 0 of 4" in reason.sentence()


def test_baidu_s_other_accelerator_is_not_nvidia() -> None:
    assert _node({"baidu.com/xpu": "8"}).presence is Presence.OTHER_VENDOR
    assert _node({"vastaitech.com/va": "4"}).vendor == "Vastai (vastaitech.com/va)"


@pytest.mark.parametrize(("core", "want"), [("100", 1), ("800", 8), ("1k", 10), ("1600", 16), ("250", 2)])
def test_qgpu_counts_percent_of_a_card(core: str, want: int) -> None:
    labels = {"nvidia.com/gpu.product": "NVIDIA-L20", "qgpu-device-enable": "enable"}
    facts = _node({QGPU: core, "tke.cloud.tencent.com/qgpu-memory": "48"}, labels)

    assert [(one.resource, one.allocatable, one.units_per_device) for one in facts.offers] == [(QGPU, want, 100)]
    assert serve_eligibility(facts).eligible
    assert [one.rule for one in build_eligibility(facts).reasons] == ["SharedGpu"]
    assert facts.strangers == ()


def test_a_qgpu_node_whose_model_nothing_names_says_so() -> None:
    (reason,) = serve_eligibility(_node({QGPU: "100", "tke.cloud.tencent.com/qgpu-memory": "48"})).reasons

    assert (reason.rule, QGPU in reason.found) == ("ProductUnknown", True)


def test_a_pod_on_qgpu_asks_for_whole_cards_and_too_few_are_said_in_the_resource_s_unit(
    make_engine: MakeEngine, make_observed: MakeObserved
) -> None:
    observed = make_observed(_node({QGPU: "200"}, {"nvidia.com/gpu.product": "NVIDIA-L20"}), source_digest=DIGEST)
    two = {"name": "two", "backend": "tensorrt-rtx", "gpu": {"product": "NVIDIA-L20", "count": 2}}
    three = {"name": "three", "backend": "tensorrt-rtx", "gpu": {"product": "NVIDIA-L20", "count": 3}}

    result = plan(make_engine(targets=[two, three]), observed, NOW)

    assert result.targets[0].deployment is not None
    assert (result.targets[0].engines[0].resource, result.targets[0].engines[0].units) == (QGPU, 100)
    assert refused_rules(result, 1) == ["GpuCount"]
    sentence = result.targets[1].refusals[0].sentence()
    assert f"it has 200 {QGPU} (100 of it are one GPU); gpu.count asks for 3" in sentence


def test_a_pod_on_cgpu_is_placed_by_the_resource_alone(make_engine: MakeEngine, make_observed: MakeObserved) -> None:
    name = "baidu.com/l20_cgpu"
    labelled = {"nvidia.com/gpu.product": "NVIDIA-L20", "nvidia.com/gpu.count": "8"}
    observed = make_observed(_node({name: "8"}), _node({name: "8"}, labelled), source_digest=DIGEST)
    target = {"name": "l20", "backend": "tensorrt-rtx", "gpu": {"product": "NVIDIA-L20"}}

    (planned,) = plan(make_engine(targets=[target]), observed, NOW).targets

    assert planned.state is TargetState.PLANNED
    assert planned.deployment is not None
    assert (planned.engines[0].resource, planned.engines[0].pins) == (name, ())


def test_shared_nodes_serve_what_an_unshared_node_built(make_engine: MakeEngine, make_observed: MakeObserved) -> None:
    shared = _node({"baidu.com/l20_cgpu": "8"}, {"pool": "cgpu"})
    whole = _node({"nvidia.com/gpu": "1"}, {"pool": "build", "nvidia.com/gpu.product": "NVIDIA-L20"})
    target = {"name": "l20", "gpu": {"product": "NVIDIA-L20"}}
    fleet = make_observed(shared, whole.model_copy(update={"name": "whole"}), source_digest=DIGEST)
    (built,) = plan(make_engine(targets=[target]), fleet, NOW).targets
    assert [engine.build_nodes for engine in built.engines] == [("whole",)]
    key = built.engines[0].engine_key

    stored = fleet.model_copy(update={"engine_keys": frozenset({key})})
    chosen = make_engine(targets=[target], podTemplate={"nodeSelector": {"pool": "cgpu"}})
    (served,) = plan(chosen, stored, NOW).targets

    assert served.deployment is not None
    assert (served.engines[0].engine_key, served.engines[0].resource) == (key, "baidu.com/l20_cgpu")
    assert "podTemplate.nodeSelector" in built.refusals[0].sentence()


def test_a_node_class_of_a_shared_resource_serves_and_never_builds() -> None:
    pool = NodeClass(name="qgpu", selector={"pool": "q"}, product="NVIDIA-L20", resource=QGPU, gpus=2).as_node()

    assert serve_eligibility(pool).offers[0].units_per_device == 100
    assert [one.rule for one in build_eligibility(pool).reasons] == ["SharedGpu"]


@pytest.mark.parametrize(
    ("value", "want"), [("T4", "Tesla-T4"), ("t4", "Tesla-T4"), ("A10", "NVIDIA-A10"), ("V100", None), ("XYZ", None)]
)
def test_tencent_s_serverless_nodes_name_the_model(value: str, want: str | None) -> None:
    assert _node({"nvidia.com/gpu": "1"}, {"eks.tke.cloud.tencent.com/gpu-type": value}).product == want


@pytest.mark.parametrize(
    ("value", "want"),
    [
        ("nvidia-t4", "Tesla-T4"),
        ("nvidia-p4", "Tesla-P4"),
        ("NVIDIA-L4", "NVIDIA-L4"),
        ("nvidia-a30", "NVIDIA-A30"),
        ("nvidia-l40s", "NVIDIA-L40S"),
    ],
)
def test_huawei_s_label_names_a_model_that_has_one_form(value: str, want: str) -> None:
    facts = _node({"nvidia.com/gpu": "1"}, {"accelerator": value})

    assert (facts.product, facts.product_from) == (want, f"accelerator={value} (Huawei CCE)")
    assert facts.pin is not None
    assert (facts.pin.label, facts.pin.value) == ("accelerator", value)
    assert build_eligibility(facts).eligible


@pytest.mark.parametrize(
    ("value", "want"),
    [
        ("nvidia-v100", "Tesla-V100-SXM2-32GB"),
        ("nvidia-a100", "NVIDIA-A100-80GB-PCIe"),
        ("nvidia-h20", "NVIDIA-H20-3e"),
        ("nvidia-p100", "Tesla-P100-PCIE-16GB"),
    ],
)
def test_huawei_s_label_leaves_a_model_with_several_forms_open_and_says_which(value: str, want: str) -> None:
    (reason,) = serve_eligibility(_node({"nvidia.com/gpu": "1"}, {"accelerator": value})).reasons

    assert reason.rule == "ProductUnknown"
    assert f"accelerator={value} (Huawei CCE) leaves open which: " in reason.found
    assert want in reason.found


@pytest.mark.parametrize(("value", "want"), [("nvidia", Presence.NVIDIA), ("huawei-Ascend910", Presence.NONE)])
def test_another_platform_s_value_of_the_same_label_is_not_huawei_s(value: str, want: Presence) -> None:
    facts = _node({}, {"accelerator": value})

    assert (facts.product, facts.presence) == (None, want)
    assert "Huawei" not in facts.hint


@pytest.mark.parametrize("resource", ["volcano.sh/gpu-mem.128Mi", "volcano.sh/vgpu-number"])
def test_virtual_gpus_beside_nvidia_s_resource_are_shared(resource: str) -> None:
    facts = _node({"nvidia.com/gpu": "1", resource: "120"}, {"accelerator": "nvidia-t4"})

    assert serve_eligibility(facts).eligible
    (reason,) = build_eligibility(facts).reasons
    assert (reason.rule, resource in reason.found) == ("SharedGpu", True)


def test_a_resource_of_which_several_are_one_gpu_cannot_be_for_builds() -> None:
    with pytest.raises(ValueError, match="a build takes one unit"):
        Resource(name="example.com/percent", shared=False, units_per_gpu=100)
