"""GPU products of a target: one engine for each, one Deployment for all, and names that no driver has."""

from collections.abc import Mapping

import pytest
from tests.planning.conftest import DIGEST, NOW, MakeEngine, MakeNode, MakeObserved, refused_rules

from enginesmith_operator.planning.hardware import NodeFacts
from enginesmith_operator.planning.plan import plan
from enginesmith_operator.planning.plan_records import TargetState


def test_one_engine_per_product_and_one_deployment_for_all(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    target = {"name": "ada", "gpu": {"computeCapability": "8.9"}}
    observed = make_observed(
        make_node("b", "NVIDIA-L40S"), make_node("a"), make_node("t4", "Tesla-T4"), source_digest=DIGEST
    )

    (planned,) = plan(make_engine(targets=[target]), observed, NOW).targets

    assert [engine.hardware.product for engine in planned.engines] == ["NVIDIA-L4", "NVIDIA-L40S"]
    assert planned.deployment is not None
    assert [pin.value for one in planned.engines for pin in one.pins] == ["NVIDIA-L4", "NVIDIA-L40S"]
    assert len(planned.engines) == 2


def test_two_spellings_of_one_card_are_one_engine_with_two_pins(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    observed = make_observed(
        make_node("old", "A100-SXM4-40GB"), make_node("new", "NVIDIA-A100-SXM4-40GB"), source_digest=DIGEST
    )

    (target,) = plan(
        make_engine(targets=[{"name": "a100", "gpu": {"product": "A100-SXM4-40GB"}}]), observed, NOW
    ).targets

    assert [engine.nodes for engine in target.engines] == [("new", "old")]
    assert target.deployment is not None
    assert [pin.value for one in target.engines for pin in one.pins] == ["A100-SXM4-40GB", "NVIDIA-A100-SXM4-40GB"]


def test_a_slice_and_a_whole_gpu_are_other_hardware(
    make_engine: MakeEngine, make_observed: MakeObserved, nodes: Mapping[str, NodeFacts]
) -> None:
    observed = make_observed(nodes["a100-sxm4-40-mig-single"], nodes["a100-pcie-40-mig-mixed"])
    whole = {"name": "whole", "gpu": {"computeCapability": "8.0"}, "backend": "onnxruntime"}
    sliced = {"name": "sliced", "gpu": {"migProfile": "1g.5gb"}, "backend": "onnxruntime"}

    result = plan(make_engine(targets=[whole, sliced]), observed, NOW)

    assert refused_rules(result) == ["MigProfile"]
    assert "gpu.migProfile: 1g.5gb would match" in result.targets[0].refusals[0].sentence()
    assert result.targets[1].state is TargetState.PLANNED


def test_the_pods_of_a_target_ask_for_one_resource_and_other_nodes_are_named(
    make_engine: MakeEngine, make_observed: MakeObserved, nodes: Mapping[str, NodeFacts]
) -> None:
    observed = make_observed(nodes["a100-sxm4-40-mig-single"], nodes["a100-pcie-40-mig-mixed"])
    sliced = {"name": "sliced", "gpu": {"migProfile": "1g.5gb"}, "backend": "onnxruntime"}

    (target,) = plan(make_engine(targets=[sliced]), observed, NOW).targets

    assert target.deployment is not None
    assert target.engines[0].resource == "nvidia.com/gpu"
    assert [engine.nodes for engine in target.engines] == [("a100-sxm4-40-mig-single",)]
    assert "nvidia.com/mig-1g.5gb" in target.refusals[0].sentence()


@pytest.mark.parametrize(
    ("asked", "want"),
    [
        ("NVIDIA-T4", "did you mean Tesla-T4?"),
        ("NVIDIA-H100-SXM4-80GB", "did you mean NVIDIA-H100-80GB-HBM3?"),
        ("NVIDIA-A100-SXM4-80GB", ""),
    ],
)
def test_a_product_that_no_driver_produces_gets_a_suggestion(
    make_engine: MakeEngine, make_observed: MakeObserved, nodes: Mapping[str, NodeFacts], asked: str, want: str
) -> None:
    engine = make_engine(targets=[{"name": "gpu", "gpu": {"product": asked}}])

    (target,) = plan(engine, make_observed(*nodes.values()), NOW).targets

    assert target.state is TargetState.REFUSED
    assert [hint for hint in target.hints if hint.startswith("did you mean")] == ([want] if want else [])
