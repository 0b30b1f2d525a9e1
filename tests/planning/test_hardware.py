"""Every node dump with the verdict that an expert would give, and the sentence that a user reads."""

from collections.abc import Mapping
from typing import NamedTuple

import pytest

from enginesmith_operator.planning.eligibility import build_eligibility, serve_eligibility
from enginesmith_operator.planning.hardware import NodeFacts, Presence, read_node
from enginesmith_operator.planning.label_mapping import load_label_mapping
from enginesmith_operator.planning.node_object import NodeObject


class Verdict(NamedTuple):
    """What an expert says of one dump; `want_rule` and `want_words` are of the refusal to build."""

    node: str
    want_product: str | None
    want_capability: str | None
    want_build: bool
    want_serve: bool
    want_rule: str = ""
    want_words: str = ""


VERDICTS = (
    Verdict("t4-g4dn-driver470", "Tesla-T4", "7.5", True, True),
    Verdict("v100-ovh", "Tesla-V100-PCIE-16GB", "7.0", True, True),
    Verdict("l4-gce-driver595", "NVIDIA-L4", "8.9", True, True),
    Verdict("a10g-plugin-dead", "NVIDIA-A10G", "8.6", False, False, "NothingAllocatable", "nvidia.com/gpu is 0 of 0"),
    Verdict("a100-sxm4-40-noprefix", "NVIDIA-A100-SXM4-40GB", "8.0", True, True),
    Verdict("a100-sxm4-40-mig-single", "NVIDIA-A100-SXM4-40GB", "8.0", True, True),
    Verdict("a100-pcie-40-mig-mixed", "NVIDIA-A100-PCIE-40GB", None, True, True),
    Verdict("a100-80-mig-invalid", "NVIDIA-A100-SXM4-80GB", "8.0", False, False, "MigInvalid", "one layout"),
    Verdict("a100-dgx-station-display", "NVIDIA-DGX-Display", "7.5", False, False, "SeveralModels", "labels count 1"),
    Verdict("h100-sxm-two", "NVIDIA-H100-80GB-HBM3", "9.0", True, True),
    Verdict("h100-xe9680-eight", "NVIDIA-H100-80GB-HBM3", None, True, True),
    Verdict("h200-mps-eighty", "NVIDIA-H200", None, False, True, "SharedGpu", "gpu.sharing-strategy=mps"),
    Verdict("t4-timesliced-bytes", "Tesla-T4", "7.5", False, True, "SharedGpu", "gpu.replicas=8"),
    Verdict("a100-mps-renamed", "NVIDIA-A100-PCIE-40GB", None, False, True, "SharedGpu", "nvidia.com/gpu.shared"),
    Verdict("rtx4090-mps-noshared", "NVIDIA-GeForce-RTX-4090", "8.9", False, True, "SharedGpu", "gpu.replicas=2"),
    Verdict("rtx4000ada-lke", "NVIDIA-RTX-4000-Ada-Generation", "8.9", True, True),
    Verdict("a10-vgpu-shared", "NVIDIA-A10-24Q", "8.6", False, True, "SharedGpu", "gpu.replicas=4"),
    Verdict("thor-kairos", "NVIDIA-Thor", None, True, True),
    Verdict("gb200-gke-arm", "NVIDIA-GB200", None, True, True),
    Verdict("l4-gke-timeshared", "NVIDIA-L4", None, False, True, "SharedGpu", "gke-gpu-sharing-strategy=time-sharing"),
    Verdict("v100-aks-nc6sv3", None, None, False, False, "ProductUnknown", "usually has Tesla-V100-PCIE-16GB"),
    Verdict("a100-eks-p4d-young", "NVIDIA-A100-SXM4-40GB", None, True, True),
    Verdict(
        "t4-karpenter-wrong-product", None, None, False, False, "ProductUnsettled", "gpu.product=NVIDIA-T4 against"
    ),
    Verdict("p100-ack", "Tesla-P100-PCIE-16GB", None, True, True),
    Verdict("a800-vke", "NVIDIA-A800-SXM4-80GB", None, True, True),
    Verdict("h200-coreweave", "NVIDIA-H200", None, True, True),
    Verdict("mi300x-amd", None, None, False, False, "NotNvidia", "AMD (amd.com/gpu)"),
    Verdict("ascend-910b3", None, None, False, False, "NotNvidia", "Huawei Ascend"),
    Verdict("a100-hami-k3s", None, None, False, False, "NothingAllocatable", "HAMi hands out its GPUs"),
    Verdict("nfd-only-class-vendor", None, None, False, False, "ProductUnknown", "pci-0302_10de.present"),
    Verdict(
        "maxwell-empty-revision",
        None,
        "5.0",
        False,
        False,
        "ProductUnknown",
        "no label names the model of its NVIDIA GPU",
    ),
    Verdict("h100-pcie-one", "NVIDIA-H100-PCIe", "9.0", True, True),
    Verdict("l40s-openstack", "NVIDIA-L40S", "8.9", True, True),
)


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda verdict: verdict.node)
def test_a_real_node_gets_the_verdict_that_an_expert_would_give(
    nodes: Mapping[str, NodeFacts], verdict: Verdict
) -> None:
    facts = nodes[verdict.node]

    build, serve = build_eligibility(facts), serve_eligibility(facts)

    assert facts.product == verdict.want_product
    assert facts.compute_capability == verdict.want_capability
    assert (build.eligible, serve.eligible) == (verdict.want_build, verdict.want_serve)
    sentences = {reason.rule: reason.sentence() for reason in build.reasons}
    assert verdict.want_words in sentences.get(verdict.want_rule, "")
    assert build.eligible == (not sentences)


def test_every_dump_has_a_verdict(nodes: Mapping[str, NodeFacts]) -> None:
    assert {verdict.node for verdict in VERDICTS} == set(nodes)


@pytest.mark.parametrize(
    ("node", "want_driver", "want_cuda", "want_memory_mib"),
    [
        ("t4-g4dn-driver470", "470.82.01", "11.4", 15109),
        ("l4-gce-driver595", "595.91.07", "13.2", 23034),
        ("maxwell-empty-revision", "550.120", "12.4", None),
        ("t4-timesliced-bytes", "510.73.08", "11.7", 15360),
        ("a10-vgpu-shared", "535.161.08", "12.2", 24512),
        ("h100-xe9680-eight", None, None, 81559),
        ("p100-ack", None, None, 16276),
        ("a100-eks-p4d-young", None, None, 40960),
        ("l4-gke-timeshared", None, None, None),
    ],
)
def test_driver_cuda_and_memory_are_read_in_every_spelling(
    nodes: Mapping[str, NodeFacts],
    node: str,
    want_driver: str | None,
    want_cuda: str | None,
    want_memory_mib: int | None,
) -> None:
    facts = nodes[node]

    assert (facts.driver, facts.cuda, facts.memory_mib) == (want_driver, want_cuda, want_memory_mib)


@pytest.mark.parametrize(
    ("node", "want_offers"),
    [
        ("h100-sxm-two", [(None, "nvidia.com/gpu", 2, 81559)]),
        ("a100-sxm4-40-mig-single", [("1g.5gb", "nvidia.com/gpu", 7, 4864)]),
        (
            "a100-pcie-40-mig-mixed",
            [
                ("1g.5gb", "nvidia.com/mig-1g.5gb", 4, 4864),
                ("2g.10gb", "nvidia.com/mig-2g.10gb", 2, None),
                ("3g.20gb", "nvidia.com/mig-3g.20gb", 2, None),
            ],
        ),
        ("a100-mps-renamed", [(None, "nvidia.com/gpu.shared", 20, None)]),
        ("a10g-plugin-dead", []),
    ],
)
def test_a_node_offers_what_its_kubelet_hands_out(
    nodes: Mapping[str, NodeFacts], node: str, want_offers: list[tuple[str | None, str, int, int | None]]
) -> None:
    offers = nodes[node].offers

    assert [(one.mig_profile, one.resource, one.allocatable, one.memory_mib) for one in offers] == want_offers


def test_missing_labels_are_unknown_and_not_no_gpu(nodes: Mapping[str, NodeFacts]) -> None:
    assert nodes["nfd-only-class-vendor"].presence is Presence.NVIDIA
    assert nodes["v100-aks-nc6sv3"].unknown == ("driver", "compute capability", "memory")
    assert nodes["mi300x-amd"].presence is Presence.OTHER_VENDOR


def _node(labels: Mapping[str, str], allocatable: Mapping[str, str] | None = None) -> NodeFacts:
    resources = {"nvidia.com/gpu": "1"} if allocatable is None else allocatable
    document = {
        "metadata": {"name": "node", "labels": labels},
        "status": {"capacity": resources, "allocatable": resources},
    }
    return read_node(NodeObject.model_validate(document), load_label_mapping())


@pytest.mark.parametrize(
    ("labels", "want_product"),
    [
        ({"cloud.google.com/gke-accelerator": "H100_NVLINK_80GB", "gpu.nvidia.com/model": "H200"}, "NVIDIA-H200"),
        ({"cloud.google.com/gke-accelerator": "nvidia-h100-mega-80gb"}, "NVIDIA-H100-80GB-HBM3"),
        ({"karpenter.k8s.aws/instance-gpu-name": "a100"}, None),
        (
            {
                "karpenter.k8s.aws/instance-gpu-name": "a100",
                "karpenter.k8s.aws/instance-gpu-memory": "81920",
            },
            "NVIDIA-A100-SXM4-80GB",
        ),
        ({"eks.amazonaws.com/instance-gpu-name": "t4"}, "Tesla-T4"),
        ({"machine.cluster.vke.volcengine.com/gpu-name": "GPU-L3c"}, None),
        (
            {"doks.digitalocean.com/gpu-model": "h100", "doks.digitalocean.com/gpu-brand": "nvidia"},
            "NVIDIA-H100-80GB-HBM3",
        ),
        ({"doks.digitalocean.com/gpu-model": "mi300x", "doks.digitalocean.com/gpu-brand": "amd"}, None),
        ({"gpu.nvidia.com/class": "A100_NVLINK_80GB"}, "NVIDIA-A100-SXM4-80GB"),
        ({"accelerator": "nvidia-t4"}, "Tesla-T4"),
        ({"accelerator": "nvidia-v100"}, None),
        ({"skypilot.co/accelerator": "h100"}, None),
    ],
)
def test_a_clouds_label_names_a_product_only_where_its_value_is_known(
    labels: Mapping[str, str], want_product: str | None
) -> None:
    assert _node(labels).product == want_product


@pytest.mark.parametrize(
    "sharing",
    [
        {"cloud.google.com/gke-gpu-sharing-strategy": "TIME_SHARING"},
        {"cloud.google.com/gke-gpu-sharing-strategy": "MPS"},
        {"ack.node.gpu.schedule": "cgpu"},
        {"qgpu-device-enable": "enable"},
        {"nvidia.com/gpu.replicas": "4"},
        {"nvidia.com/gpu.sharing-strategy": "time-slicing"},
    ],
)
def test_a_shared_gpu_serves_and_never_builds(sharing: Mapping[str, str]) -> None:
    facts = _node({"nvidia.com/gpu.product": "NVIDIA-L4", **sharing})

    assert serve_eligibility(facts).eligible
    assert [reason.rule for reason in build_eligibility(facts).reasons] == ["SharedGpu"]


def test_discovered_labels_go_before_what_a_cloud_says() -> None:
    facts = _node(
        {
            "karpenter.k8s.aws/instance-gpu-name": "t4",
            "nvidia.com/gpu.product": "NVIDIA-L4",
            "nvidia.com/gpu.compute.major": "8",
            "nvidia.com/gpu.compute.minor": "9",
        }
    )

    assert (facts.product, facts.claims) == ("NVIDIA-L4", ())


@pytest.mark.parametrize(
    ("labels", "want_driver"),
    [
        ({"nvidia.com/cuda.driver-version.major": "unknown", "nvidia.com/cuda.driver-version.full": "unknown"}, None),
        ({"nvidia.com/cuda.driver.major": "535", "nvidia.com/cuda.driver.minor": "54"}, "535.54"),
        ({}, None),
    ],
)
def test_a_driver_that_is_not_a_number_is_not_known(labels: Mapping[str, str], want_driver: str | None) -> None:
    facts = _node({"nvidia.com/gpu.product": "Orin", **labels})

    assert (facts.driver, facts.product) == (want_driver, "Orin")


def test_gpus_in_mig_mode_without_a_strategy_are_refused() -> None:
    facts = _node({"nvidia.com/gpu.product": "NVIDIA-A30", "nvidia.com/gpu.replicas": "0"})

    assert [reason.rule for reason in serve_eligibility(facts).reasons] == ["MigWithoutStrategy"]


def test_a_node_whose_gpus_are_all_sliced_under_strategy_mixed_serves_its_slices() -> None:
    labels = {
        "nvidia.com/gpu.product": "NVIDIA-A30",
        "nvidia.com/gpu.replicas": "0",
        "nvidia.com/mig.strategy": "mixed",
        "nvidia.com/mig-1g.6gb.count": "4",
        "nvidia.com/mig-1g.6gb.memory": "5952",
    }
    facts = _node(labels, {"nvidia.com/mig-1g.6gb": "4"})

    assert serve_eligibility(facts).reasons == ()


def test_a_renamed_resource_is_named_and_not_guessed_at() -> None:
    facts = _node({"nvidia.com/gpu.product": "NVIDIA-L4"}, {"nvidia.com/gpu-24gb": "2"})

    (reason,) = serve_eligibility(facts).reasons
    assert reason.rule == "NothingAllocatable"
    assert "nvidia.com/gpu-24gb" in reason.found


def test_a_cordoned_node_and_a_silent_kubelet_take_no_pod() -> None:
    labels = {"nvidia.com/gpu.product": "NVIDIA-L4"}
    resources = {"nvidia.com/gpu": "1"}
    document = {
        "metadata": {"name": "node", "labels": labels},
        "spec": {"unschedulable": True},
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [{"type": "Ready", "status": "Unknown"}],
        },
    }
    facts = read_node(NodeObject.model_validate(document), load_label_mapping())

    assert [reason.rule for reason in serve_eligibility(facts).reasons] == ["NodeNotReady", "NodeCordoned"]


def test_a_cpu_node_shows_no_gpu() -> None:
    facts = _node({"kubernetes.io/arch": "arm64"}, {})

    assert facts.presence is Presence.NONE
    assert [reason.rule for reason in serve_eligibility(facts).reasons] == ["NoGpu"]
