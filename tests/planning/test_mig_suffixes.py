"""MIG profiles with a suffix are slices on labels and resources alike, in every spelling that clusters have."""

import pytest
from tests.planning.conftest import DIGEST, NOW, MakeEngine, MakeObserved

from enginesmith_contract.products import canonical_mig_profile, split_product
from enginesmith_operator.planning.eligibility import serve_eligibility
from enginesmith_operator.planning.hardware import NodeFacts, read_node
from enginesmith_operator.planning.label_mapping import load_label_mapping
from enginesmith_operator.planning.node_object import NodeObject
from enginesmith_operator.planning.plan import plan
from enginesmith_operator.planning.plan_records import TargetState

PRODUCT = "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition"
SUFFIXES = ("", ".me", "-me", ".me.all", ".gfx", "+me", "+me.all", "+gfx")


def _node(labels: dict[str, str], resources: dict[str, str]) -> NodeFacts:
    document = {
        "metadata": {"name": "node", "labels": labels},
        "status": {"capacity": resources, "allocatable": resources},
    }
    return read_node(NodeObject.model_validate(document), load_label_mapping())


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("end", ["", "-SHARED"])
def test_a_label_with_a_suffixed_profile_is_a_slice(suffix: str, end: str) -> None:
    found = split_product(f"{PRODUCT}-MIG-1g.24gb{suffix}{end}")

    assert found == (PRODUCT, f"1g.24gb{suffix}", bool(end))


def test_a_compute_instance_is_a_slice() -> None:
    assert split_product("NVIDIA-A100-SXM4-40GB-MIG-1c.2g.10gb") == ("NVIDIA-A100-SXM4-40GB", "1c.2g.10gb", False)


def test_a_plus_is_spelled_as_a_dot_and_a_minus_is_another_slice() -> None:
    assert canonical_mig_profile("1g.24gb+me") == canonical_mig_profile("1g.24gb.me") == "1g.24gb.me"
    assert canonical_mig_profile("1g.24gb-me") == "1g.24gb-me"


@pytest.mark.parametrize("suffix", ["", ".me", "-me", ".me.all", ".gfx"])
def test_a_resource_with_a_suffixed_profile_is_a_slice_with_its_labels(suffix: str) -> None:
    profile = f"1g.24gb{suffix}"
    labels = {
        "nvidia.com/gpu.product": PRODUCT,
        "nvidia.com/gpu.count": "1",
        f"nvidia.com/mig-{profile}.count": "4",
        f"nvidia.com/mig-{profile}.memory": "24000",
        f"nvidia.com/mig-{profile}.multiprocessors": "46",
    }
    facts = _node(labels, {f"nvidia.com/mig-{profile}": "4"})

    assert [(one.mig_profile, one.memory_mib, one.multiprocessors) for one in facts.offers] == [(profile, 24000, 46)]


def test_slices_that_kubelet_hands_out_are_proof_of_a_strategy_before_their_labels_are_there() -> None:
    labels = {"nvidia.com/gpu.product": PRODUCT, "nvidia.com/gpu.count": "1", "nvidia.com/gpu.replicas": "0"}

    assert serve_eligibility(_node(labels, {"nvidia.com/mig-1g.24gb-me": "4", "nvidia.com/gpu": "0"})).eligible


@pytest.mark.parametrize(
    ("asked", "label", "want"),
    [
        ("1g.24gb-me", "1g.24gb-me", True),
        ("1g.24gb+me", "1g.24gb.me", True),
        ("1g.24gb.me", "1g.24gb.me", True),
        ("1g.24gb+me.all", "1g.24gb.me.all", True),
        ("1g.24gb.gfx", "1g.24gb.gfx", True),
        ("1g.24gb-me", "1g.24gb.me", False),
        ("1g.24gb", "1g.24gb-me", False),
        (None, "1g.24gb-me", False),
    ],
)
def test_a_target_matches_its_slice_and_no_other(
    asked: str | None,
    label: str,
    make_engine: MakeEngine,
    make_observed: MakeObserved,
    *,
    want: bool,
) -> None:
    labels = {
        "nvidia.com/gpu.product": f"{PRODUCT}-MIG-{label}",
        "nvidia.com/gpu.count": "4",
        "nvidia.com/gpu.replicas": "1",
    }
    gpu = {"product": PRODUCT} | ({"migProfile": asked} if asked else {})
    target = {"name": "slice", "backend": "tensorrt-rtx", "gpu": gpu}
    observed = make_observed(_node(labels, {"nvidia.com/gpu": "4"}), source_digest=DIGEST)

    (planned,) = plan(make_engine(targets=[target]), observed, NOW).targets

    assert (planned.state is TargetState.PLANNED) is want
    if want:
        assert planned.engines[0].hardware.mig_profile == label
    else:
        assert [count.rule for count in planned.refusals] == ["MigProfile"]
