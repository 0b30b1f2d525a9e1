"""What a plan refuses because of what the preparation found out about the model."""

from collections.abc import Mapping

import pytest
from tests.planning.conftest import CPU, DIGEST, L4, NOW, MakeEngine, MakeNode, MakeObserved, make_facts, refused_rules

from enginesmith_contract.backends import Backend
from enginesmith_contract.tensors import DType, ExpectedDifference
from enginesmith_operator.planning.plan import plan
from enginesmith_operator.planning.plan_records import TargetState


@pytest.mark.parametrize(
    ("backend", "dtype", "want_state"),
    [
        (Backend.TENSORRT, DType.FP32, TargetState.PLANNED),
        (Backend.TENSORRT, DType.INT64, TargetState.PLANNED),
        (Backend.TENSORRT, DType.BYTES, TargetState.REFUSED),
        (Backend.TENSORRT, DType.FP64, TargetState.REFUSED),
        (Backend.TENSORRT_RTX, DType.UINT16, TargetState.REFUSED),
        (Backend.ONNXRUNTIME, DType.BYTES, TargetState.PLANNED),
        (Backend.ONNXRUNTIME, DType.FP64, TargetState.PLANNED),
        (Backend.ONNXRUNTIME, DType.BF16, TargetState.REFUSED),
        (Backend.TENSORRT, DType.BF16, TargetState.PLANNED),
    ],
)
def test_a_datatype_that_a_backend_lacks_is_refused_before_a_gpu_is_taken(
    make_engine: MakeEngine,
    make_observed: MakeObserved,
    make_node: MakeNode,
    backend: Backend,
    dtype: DType,
    want_state: TargetState,
) -> None:
    observed = make_observed(make_node("gpu-1"), model_facts=make_facts(dtype))

    result = plan(make_engine(targets=[L4 | {"backend": backend.value}]), observed, NOW)

    assert result.targets[0].state is want_state
    if want_state is TargetState.REFUSED:
        assert f"input 'in0' is {dtype}" in result.targets[0].refusals[0].sentence()


def test_an_input_of_sizes_without_values_refuses_the_targets_that_need_them(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    facts = make_facts(DType.INT64, shape=(1,)).model_copy(update={"shape_inputs": ("in0",)})
    observed = make_observed(make_node("gpu-1"), model_facts=facts)
    entry = {"min": [1], "opt": [1], "max": [1]}

    lacking = plan(make_engine(targets=[L4, CPU]), observed, NOW)
    values = {"inputs": {"in0": entry | {"values": {"min": [1], "opt": [3], "max": [5]}}}}
    complete = plan(make_engine(targets=[L4, CPU], profiles=[values]), observed, NOW)

    assert [target.state for target in lacking.targets] == [TargetState.REFUSED, TargetState.PLANNED]
    assert refused_rules(lacking) == ["MissingValues"]
    assert "in0: {min: [1], opt: [1], max: [1], values: {min: [1]" in lacking.targets[0].refusals[0].sentence()
    assert [target.state for target in complete.targets] == [TargetState.PLANNED, TargetState.PLANNED]


@pytest.mark.parametrize(
    ("backend", "want_state"),
    [
        (Backend.TENSORRT, TargetState.REFUSED),
        (Backend.TENSORRT_RTX, TargetState.REFUSED),
        (Backend.ONNXRUNTIME, TargetState.PLANNED),
    ],
)
def test_nodes_that_tensorrt_does_not_take_refuse_its_targets_before_a_gpu_is_taken(
    make_engine: MakeEngine,
    make_observed: MakeObserved,
    make_node: MakeNode,
    backend: Backend,
    want_state: TargetState,
) -> None:
    said = "node 'q' (QuantizeLinear): its zero point is not 0; quantise symmetrically"
    facts = make_facts(DType.FP32).model_copy(update={"refused_nodes": (said,)})
    observed = make_observed(make_node("gpu-1"), model_facts=facts)

    (target,) = plan(make_engine(targets=[L4 | {"backend": backend.value}]), observed, NOW).targets

    assert target.state is want_state
    if want_state is TargetState.REFUSED:
        assert said in target.refusals[0].sentence()


@pytest.mark.parametrize(
    ("difference", "spec", "want_fragments"),
    [
        pytest.param(0.016, {}, ("differs by 0.016", "limit 0.01", "the references are noise"), id="beyond"),
        pytest.param(0.0099, {}, (), id="within: only a GPU can tell"),
        pytest.param(0.016, {"verification": {"limit": 0.02}}, (), id="the limit of all outputs"),
        pytest.param(0.016, {"verification": {"outputs": {"y": {"limit": 0.02}}}}, (), id="the limit of the output"),
        pytest.param(0.005, {"verification": {"limit": 0.001}}, ("limit 0.001",), id="a stricter limit"),
        pytest.param(
            0.016,
            {"verification": {"inputs": {"x": {"npz": "s3://models/real.npz"}}}},
            ("verification.outputs.y.limit to 0.032",),
            id="real samples",
        ),
        pytest.param(1e6, {}, ("NaN or infinity",), id="no number"),
    ],
)
def test_an_fp16_that_cannot_meet_its_limit_is_refused_before_a_gpu_is_taken(
    make_engine: MakeEngine,
    make_observed: MakeObserved,
    make_node: MakeNode,
    difference: float,
    spec: Mapping[str, object],
    want_fragments: tuple[str, ...],
) -> None:
    expected = ExpectedDifference(output="y", difference=difference, limit=0.01)
    facts = make_facts(DType.FP32).model_copy(update={"expected_differences": (expected,)})
    observed = make_observed(make_node("gpu-1"), model_facts=facts, source_digest=DIGEST)
    engine = make_engine(targets=[L4], precision="fp16", **spec)

    (target,) = plan(engine, observed, NOW).targets

    assert target.state is (TargetState.REFUSED if want_fragments else TargetState.PLANNED)
    for fragment in want_fragments:
        (count,) = target.refusals
        assert count.rule == "PrecisionBeyondLimit"
        assert fragment in count.sentence()
        assert ("noise" in count.sentence()) == ("inputs" not in str(spec))


@pytest.mark.parametrize(
    ("precision", "want"),
    [
        ("fp16", "(precision.keep, precision.autoKeep)"),
        ({"default": "fp16", "autoKeep": True}, "(precision.keep)"),
        ("bf16", "(precision.keep)"),
    ],
    ids=str,
)
def test_a_field_that_is_set_or_has_no_effect_is_not_advised(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode, precision: object, want: str
) -> None:
    expected = ExpectedDifference(output="y", difference=0.5, limit=0.01)
    facts = make_facts(DType.FP32).model_copy(update={"expected_differences": (expected,)})
    observed = make_observed(make_node("gpu-1"), model_facts=facts, source_digest=DIGEST)
    (target,) = plan(make_engine(targets=[L4], precision=precision), observed, NOW).targets
    assert want in target.refusals[0].sentence()


def test_an_engine_that_has_passed_on_its_gpu_is_served_whatever_a_cpu_expects(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    engine = make_engine(targets=[L4], precision="fp16")
    observed = make_observed(make_node("gpu-1"), model_facts=make_facts(DType.FP32), source_digest=DIGEST)
    key = plan(engine, observed, NOW).targets[0].engines[0].engine_key
    expected = ExpectedDifference(output="y", difference=0.5, limit=0.01)
    facts = make_facts(DType.FP32).model_copy(update={"expected_differences": (expected,)})
    more = {"nodes": (*observed.nodes, make_node("gpu-2", "NVIDIA-L40S"))}
    known = observed.model_copy(update={"model_facts": facts, "engine_keys": frozenset({key}), **more})
    (target,) = plan(engine, known, NOW).targets
    assert target.state is TargetState.PLANNED
    assert [one.engine_key for one in target.engines] == [key]
    any_gpu = make_engine(targets=[L4 | {"gpu": {"minMemory": "1Gi"}}], precision="fp16")
    (both,) = plan(any_gpu, known, NOW).targets
    assert [one.engine_key for one in both.engines] == [key]
    assert [count.rule for count in both.refusals] == ["PrecisionBeyondLimit"]
