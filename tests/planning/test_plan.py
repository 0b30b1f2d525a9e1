"""What a plan decides: targets, keys, standby, and every reason why not."""

from collections.abc import Mapping

import pytest
from tests.planning.conftest import CPU, DIGEST, L4, NOW, MakeEngine, MakeNode, MakeObserved, make_facts, refused_rules

from enginesmith_contract.preparation import Batching, Preparation
from enginesmith_contract.tensors import DType
from enginesmith_operator.planning.hardware import NodeFacts
from enginesmith_operator.planning.node_object import Taint
from enginesmith_operator.planning.plan import plan
from enginesmith_operator.planning.plan_records import TargetState
from enginesmith_operator.planning.refusal_error import refusal_error
from enginesmith_operator.planning.snapshot import NodeClass, ObservedDeployment


def test_a_target_gets_a_toolchain_a_node_keys_and_a_deployment(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    observed = make_observed(make_node("gpu-1"), source_digest=DIGEST)

    result = plan(make_engine(targets=[L4 | {"replicas": 3}]), observed, NOW)

    (target,) = result.targets
    (engine,) = target.engines
    assert target.state is TargetState.PLANNED
    assert (engine.toolchain.name, engine.nodes, engine.build_nodes) == ("trt-10.13-cu13", ("gpu-1",), ("gpu-1",))
    assert engine.build is not None
    assert engine.build.engine_key == engine.engine_key
    assert engine.build.key_inputs.gpu_product == "NVIDIA-L4"
    assert target.deployment is not None
    assert (target.deployment.replicas, engine.resource) == (3, "nvidia.com/gpu")
    assert [pin.value for pin in engine.pins] == ["NVIDIA-L4"]


def test_keys_are_pending_until_the_digest_is_known(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    result = plan(make_engine(targets=[L4]), make_observed(make_node("gpu-1")), NOW)

    assert result.preparation_key is None
    assert result.targets[0].engines[0].engine_key is None
    assert result.targets[0].engines[0].build is None
    assert {one.type: one.status for one in result.conditions} == {"Planned": True, "KeysResolved": False}


def test_calibration_keeps_keys_pending_until_its_digest_is_known(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    engine = make_engine(targets=[L4], precision={"default": "int8", "calibration": "s3://models/calibration.npz"})
    observed = make_observed(make_node("gpu-1"), source_digest=DIGEST)

    assert plan(engine, observed, NOW).preparation_key is None
    known = observed.model_copy(update={"calibration_digest": "cd" * 32})
    assert plan(engine, known, NOW).preparation_key is not None


def test_a_stored_engine_is_not_built_again_even_where_no_node_could_build_it(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    engine = make_engine(targets=[L4])
    first = plan(engine, make_observed(make_node("gpu-1"), source_digest=DIGEST), NOW).targets[0].engines[0]
    shared = make_node("gpu-1", gpu_replicas="4")
    lost = plan(engine, make_observed(shared, source_digest=DIGEST), NOW)
    assert lost.targets[0].state is TargetState.REFUSED
    assert refused_rules(lost) == ["SharedGpu"]

    observed = make_observed(shared, source_digest=DIGEST, engine_keys=frozenset({first.engine_key}))
    result = plan(engine, observed, NOW)

    assert (result.targets[0].state, result.targets[0].engines[0].stored) == (TargetState.PLANNED, True)


@pytest.mark.parametrize(
    ("changed", "want_same"),
    [
        ({"targets": [L4 | {"replicas": 9}]}, True),
        ({"build": {"timeout": "5m"}}, True),
        ({"build": {"optimizationLevel": 3}}, True),
        ({"build": {"optimizationLevel": 5}}, False),
        ({"build": {"epoch": 1}}, False),
        ({"build": {"workspace": "4Gi"}}, False),
        ({"precision": "fp16"}, False),
        ({"verification": {"limit": 0.1}}, True),
        ({"toolchain": {"tensorrt": "<10.13"}}, False),
    ],
)
def test_the_engine_key_changes_with_what_changes_the_engine_and_nothing_else(
    make_engine: MakeEngine,
    make_observed: MakeObserved,
    make_node: MakeNode,
    changed: dict[str, object],
    want_same: bool,  # noqa: FBT001 - a column of the table
) -> None:
    observed = make_observed(make_node("gpu-1"), source_digest=DIGEST)

    before = plan(make_engine(targets=[L4]), observed, NOW).targets[0].engines[0].engine_key
    after = plan(make_engine(**({"targets": [L4]} | changed)), observed, NOW).targets[0].engines[0].engine_key

    assert (before == after) is want_same


def test_a_driver_update_changes_no_key(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    engine = make_engine(targets=[L4])
    keys = {
        plan(engine, make_observed(make_node("gpu-1", **driver), source_digest=DIGEST), NOW)
        .targets[0]
        .engines[0]
        .engine_key
        for driver in ({}, {"cuda_driver__version_full": "590.44.01"})
    }

    assert len(keys) == 1


def test_a_profile_that_does_not_fit_refuses_the_document_once(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    observed = make_observed(make_node("gpu-1"), model_facts=make_facts(DType.FP32))
    profiles = [{"inputs": {"in0": {"min": [1, 4], "opt": [1, 4], "max": [1, 4]}}}]

    result = plan(make_engine(targets=[L4, CPU], profiles=profiles), observed, NOW)

    assert not result.has_target
    assert {refusal.rule for refusal in result.refusals} == {"FixedDimension"}
    assert "use 3" in refusal_error(result).sentence()


def test_a_dynamic_model_without_profiles_gets_one_to_paste(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    observed = make_observed(make_node("gpu-1"), model_facts=make_facts(DType.FP32, shape=(-1, 3)))

    result = plan(make_engine(targets=[L4]), observed, NOW)

    assert [refusal.rule for refusal in result.refusals] == ["ProfileMissing"]
    assert "in0: {min: [1, 3]" in result.suggestion
    assert result.suggestion in refusal_error(result).sentence() + "\n"


def test_the_preparations_word_goes_before_the_files(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    key = plan(make_engine(targets=[L4]), make_observed(source_digest=DIGEST), NOW).preparation_key
    assert key is not None
    preparation = Preparation(
        preparation_key=key,
        source_digest=DIGEST,
        facts=make_facts(DType.FP32),
        model=(),
        profiles=(),
        exercises=(),
        references=(),
        batching=Batching(proved=False),
    )
    observed = make_observed(
        make_node("gpu-1"), source_digest=DIGEST, model_facts=make_facts(DType.FP64), preparation=preparation
    )

    result = plan(make_engine(targets=[L4]), observed, NOW)

    assert (result.prepared, result.targets[0].state) == (True, TargetState.PLANNED)


@pytest.mark.parametrize(
    ("local", "ready", "want_serves"), [(False, (), True), (False, ("l4",), False), (True, (), False)]
)
def test_a_standby_serves_only_while_no_target_before_it_does(
    make_engine: MakeEngine,
    make_observed: MakeObserved,
    make_node: MakeNode,
    local: bool,  # noqa: FBT001 - a column of the table
    ready: tuple[str, ...],
    want_serves: bool,  # noqa: FBT001 - a column of the table
) -> None:
    deployments = tuple(ObservedDeployment(target=name, ready_replicas=1) for name in ready)
    observed = make_observed(make_node("gpu-1"), local=local, deployments=deployments)

    result = plan(make_engine(targets=[L4, CPU | {"standby": True}]), observed, NOW)

    deployment = result.targets[1].deployment
    assert deployment is not None
    assert deployment.serves is want_serves


def test_a_pool_scaled_to_zero_is_planned_for_and_waits(make_engine: MakeEngine, make_observed: MakeObserved) -> None:
    pool = NodeClass(name="l4-spot", selector={"pool": "l4"}, product="NVIDIA-L4", compute_capability="8.9")

    result = plan(make_engine(targets=[L4]), make_observed(node_classes=(pool,)), NOW)

    (engine,) = result.targets[0].engines
    assert (engine.waits_for_class, engine.nodes) == (True, ("class l4-spot",))
    assert "NodesMissing" in {one.type for one in result.conditions}


def test_a_taint_needs_a_toleration_except_those_of_gpus_and_of_an_architecture(
    make_engine: MakeEngine, make_observed: MakeObserved, nodes: Mapping[str, NodeFacts]
) -> None:
    target = {"name": "gb200", "gpu": {"product": "NVIDIA-GB200"}, "backend": "onnxruntime"}
    taint = Taint(key="dedicated", value="training", effect="NoSchedule")
    node = nodes["gb200-gke-arm"]
    observed = make_observed(node.model_copy(update={"taints": (*node.taints, taint)}))
    toleration = {"key": "dedicated", "operator": "Equal", "value": "training"}

    refused = plan(make_engine(targets=[target]), observed, NOW)
    planned = plan(make_engine(targets=[target], podTemplate={"tolerations": [toleration]}), observed, NOW)

    assert refused_rules(refused) == ["Taint"]
    assert "dedicated=training" in refused.targets[0].refusals[0].sentence()
    assert planned.targets[0].state is TargetState.PLANNED


def test_a_machine_without_gpu_refuses_gpus_in_one_line_each_and_serves_on_its_cpu(
    make_engine: MakeEngine, make_observed: MakeObserved
) -> None:
    bare = NodeFacts(name="this machine", is_local=True, presence="none", arch="amd64")
    engine = make_engine()

    result = plan(engine, make_observed(bare, local=True), NOW)

    assert [target.state for target in result.targets] == [TargetState.REFUSED, TargetState.PLANNED]
    (line,) = result.targets[0].refusals
    assert line.sentence().startswith("NoGpu: 1 node (this machine): NVML finds no NVIDIA GPU")
    assert result.targets[1].deployment is not None
    assert result.targets[1].deployment.serves


@pytest.mark.parametrize(
    ("product", "want_state"),
    [("NVIDIA-L4", TargetState.BUILD_ONLY), ("NVIDIA-H100-PCIe", TargetState.REFUSED)],
)
def test_tensorrt_for_rtx_builds_for_hardware_that_is_not_here_when_asked(
    make_engine: MakeEngine, make_observed: MakeObserved, product: str, want_state: TargetState
) -> None:
    bare = NodeFacts(name="this machine", is_local=True, presence="none", arch="amd64")
    engine = make_engine(targets=[{"name": "rtx", "gpu": {"product": product}, "backend": "tensorrt-rtx"}])

    (here,) = plan(engine, make_observed(bare, local=True), NOW).targets
    (elsewhere,) = plan(engine, make_observed(bare, local=True, build_for_absent_gpus=True), NOW).targets

    assert here.state is TargetState.REFUSED
    assert elsewhere.state is want_state
    assert elsewhere.deployment is None


def test_nodes_in_another_order_give_the_same_plan(
    make_engine: MakeEngine, make_observed: MakeObserved, nodes: Mapping[str, NodeFacts]
) -> None:
    engine = make_engine(targets=[L4, {"name": "any"}, CPU])
    shuffled = sorted(nodes.values(), key=lambda facts: facts.name[::-1])

    first = plan(engine, make_observed(*nodes.values(), source_digest=DIGEST), NOW)
    second = plan(engine, make_observed(*shuffled, source_digest=DIGEST), NOW)

    assert first.to_json() == second.to_json()


def test_two_hundred_nodes_are_counted_and_three_are_named(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    fleet = [make_node(f"gpu-{number}", "Tesla-T4") for number in range(200)]

    (target,) = plan(make_engine(targets=[L4]), make_observed(*fleet), NOW).targets
    (smaller,) = plan(make_engine(targets=[L4]), make_observed(*fleet[:-1]), NOW).targets

    want = "ProductDiffers: 200 nodes (gpu-0, gpu-1, gpu-2, ...): its GPU is Tesla-T4; NVIDIA-L4 is asked for"
    assert [count.sentence() for count in target.refusals] == [want]
    assert [count.sentence() for count in smaller.refusals] == [want.replace("200", "199")]


def test_no_nodes_at_all_is_said(make_engine: MakeEngine, make_observed: MakeObserved) -> None:
    result = plan(make_engine(targets=[L4]), make_observed(), NOW)

    assert not result.has_target
    assert result.conditions[0].reason == "NoNodes"
