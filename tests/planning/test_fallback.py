"""`precision.fallback` in plans: the keys of each precision are its own, and a plan says which one it is for."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.contract.test_records import MANIFEST
from tests.planning.conftest import CPU, DIGEST, L4, NOW

from enginesmith_cli.fallback import GateMemo, find_slower
from enginesmith_contract.backends import Precision
from enginesmith_contract.manifest import Timings
from enginesmith_contract.store_layout import engine_pointer
from enginesmith_contract.tensors import DType, ExpectedDifference, ModelFacts, TensorSpec
from enginesmith_operator.api.conditions import PRECISION_FALLBACK
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.planning.fallback import (
    compare_latencies,
    fallback_condition,
    in_half_precision,
    pair_engines,
    refused_by_model,
    refused_by_plan,
    without_refused,
)
from enginesmith_operator.planning.hardware import NodeFacts
from enginesmith_operator.planning.plan import plan
from enginesmith_operator.planning.plan_records import Plan
from enginesmith_operator.planning.render import render_plan
from enginesmith_operator.planning.snapshot import Observed, RefusedPrecision
from enginesmith_runtime.store.open import open_store

MakeEngine = Callable[..., InferenceEngine]
MakeObserved = Callable[..., Observed]
MakeNode = Callable[..., NodeFacts]

INT8 = {"default": "int8", "calibration": "s3://models/samples/"}
WRONG = RefusedPrecision(precision=Precision.INT8, reason="VerificationFailed", message="output 'y' differs")


def key_of(planned: Plan) -> str | None:
    """Return the key of the only engine."""
    (target,) = planned.targets
    (engine,) = target.engines
    return engine.engine_key


def test_each_precision_has_the_key_that_it_has_alone(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    known = make_observed(make_node("n1"), source_digest=DIGEST, calibration_digest=DIGEST)
    engine = make_engine(targets=[L4], precision=INT8 | {"fallback": ["fp16", "fp32"]})
    alone = [make_engine(targets=[L4], precision=one) for one in (INT8, "fp16", "fp32")]
    refused = [set(), {Precision.INT8}, {Precision.INT8, Precision.FP16}, set(Precision)]
    keys = [key_of(plan(without_refused(engine, one), known, NOW)) for one in refused]
    assert keys[:3] == [key_of(plan(one, known, NOW)) for one in alone]
    assert keys[3] == keys[2], "the last one stays"
    assert len(set(keys)) == 3


def test_a_plan_says_what_its_precision_takes_the_place_of_and_what_comes_after_it(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    engine = make_engine(targets=[L4], precision=INT8 | {"fallback": ["fp16", "fp32"]})
    observed = make_observed(make_node("n1"), source_digest=DIGEST)
    first = render_plan(plan(engine, observed, NOW))
    assert "  precision int8, or else fp16, then fp32" in first.splitlines()
    assert "in place" not in first
    known = observed.model_copy(update={"refused_precisions": (WRONG,)})
    second = plan(without_refused(engine, {Precision.INT8}), known, NOW)
    said = "fp16 is used in place of int8, which failed its gate (output 'y' differs)"
    assert [(one.reason, one.message) for one in second.conditions if one.type == PRECISION_FALLBACK] == [
        ("VerificationFailed", said)
    ]
    lines = render_plan(second).splitlines()
    assert f"  warning: spec.precision: {said}" in lines
    assert "  precision fp16, or else fp32" in lines


def test_two_precisions_that_were_refused_are_both_named() -> None:
    had = refused_by_model(Precision.INT8, "NotQuantisable", "it is quantised already")
    assert had is not None
    slow = WRONG.model_copy(update={"precision": Precision.FP16})
    (told,) = fallback_condition(Precision.FP32, (had, slow))
    assert told.message == (
        "fp32 is used in place of int8, which the model cannot be had in (it is quantised already), "
        "and of fp16, which failed its gate (output 'y' differs)"
    )


@pytest.mark.parametrize("target", [L4, CPU], ids=["gpu", "cpu"])
def test_a_target_without_a_plan_refuses_a_precision_whose_answers_are_beyond_the_limit(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode, target: Mapping[str, object]
) -> None:
    tensor = TensorSpec(name="x", dtype=DType.FP32, shape=(1, 4))
    far = (ExpectedDifference(output="x", difference=0.5, limit=0.01),)
    facts = ModelFacts(inputs=(tensor,), outputs=(tensor,), opset=17, size_bytes=1, expected_differences=far)
    observed = make_observed(make_node("n1"), source_digest=DIGEST, model_facts=facts)
    engine = make_engine(targets=[target], precision={"default": "fp16", "fallback": ["fp32"]})
    found = refused_by_plan(plan(engine, observed, NOW))
    assert found is not None
    assert (found.precision, found.reason) == (Precision.FP16, "PrecisionBeyondLimit")
    assert refused_by_plan(plan(engine, observed.model_copy(update={"model_facts": None}), NOW)) is None


def test_an_engine_is_compared_with_the_one_in_fp16_for_the_same_gpu(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode
) -> None:
    engine = make_engine(targets=[L4, CPU], precision=INT8 | {"fallback": ["bf16", "fp16"]})
    half = in_half_precision(engine)
    assert half is not None
    assert half.spec.precision.default is Precision.FP16
    nodes = (make_node("n1"), make_node("n2", "NVIDIA-A10"))
    observed = make_observed(*nodes, source_digest=DIGEST, calibration_digest=DIGEST)
    ((one, other),) = pair_engines(plan(engine, observed, NOW), plan(half, observed, NOW))
    assert one.hardware == other.hardware
    assert one.engine_key != other.engine_key
    assert in_half_precision(half) is None
    assert in_half_precision(make_engine(targets=[L4], precision=INT8 | {"fallback": ["fp32"]})) is None


@pytest.mark.parametrize(
    ("latencies", "half", "want"),
    [
        ({"a": 0.004}, {"a": 0.003}, "4 ms and 3 ms on NVIDIA-L4, profile a"),
        ({"a": 0.003}, {"a": 0.003}, ""),
        ({"a": 0.002, "b": 0.009}, {"a": 0.003, "b": 0.001}, ""),
        ({"a": 0.004}, {}, ""),
        ({}, {"a": 0.003}, ""),
    ],
)
def test_the_first_profile_that_both_were_measured_at_decides_which_engine_is_slower(
    make_engine: MakeEngine, latencies: Mapping[str, float], half: Mapping[str, float], want: str
) -> None:
    shapes = {"x": {"min": [1, 4], "opt": [1, 4], "max": [2, 4]}}
    profiles = [{"name": name, "inputs": shapes} for name in ("a", "b")]
    engine = make_engine(targets=[L4], precision=INT8, profiles=profiles)
    found = compare_latencies(engine, "NVIDIA-L4", latencies, half)
    assert (found.message if found is not None else "") == want


@pytest.mark.parametrize(("seconds", "want"), [(0.004, "SlowerThanFP16"), (0.002, "")])
def test_in_local_mode_the_engine_in_fp16_is_the_one_in_the_store(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode, tmp_path: Path, seconds: float, want: str
) -> None:
    engine = make_engine(targets=[L4], precision=INT8 | {"fallback": ["fp16"]})
    observed = make_observed(
        make_node("n1"), source_digest=DIGEST, calibration_digest=DIGEST, store=str(tmp_path / "store")
    )
    planned = plan(engine, observed, NOW)
    plain = observed.model_copy(update={"calibration_digest": None})
    half = key_of(plan(make_engine(targets=[L4], precision="fp16"), plain, NOW))
    key = key_of(planned)
    assert key is not None
    assert half is not None
    measured = {"default": seconds}
    assert find_slower(engine, planned, key, measured, observed) is None
    timings = Timings(build_seconds=1.0, latency_seconds={"default": 0.003})
    stored = MANIFEST.model_copy(update={"engine_key": half, "timings": timings})
    open_store(observed.store).create_pointer(engine_pointer(half), stored.to_json())
    known = observed.model_copy(update={"engine_keys": frozenset({half})})
    found = find_slower(engine, planned, key, measured, known)
    assert (found.reason if found is not None else "") == want


def test_an_engine_that_failed_its_gate_is_remembered_for_its_key_and_one_verification(
    make_engine: MakeEngine, make_observed: MakeObserved, make_node: MakeNode, tmp_path: Path
) -> None:
    observed = make_observed(make_node("n1"), source_digest=DIGEST, calibration_digest=DIGEST)
    documents: tuple[dict[str, Any], ...] = ({}, {"verification": {"agreement": 0.8}}, {"build": {"epoch": 1}})
    failed, loose, again = (plan(make_engine(targets=[L4], precision=INT8, **one), observed, NOW) for one in documents)
    assert key_of(failed) == key_of(loose)
    memo = GateMemo(tmp_path / "gates")
    assert memo.recall(failed) is None
    memo.remember(failed.targets[0].engines[0], WRONG)
    assert memo.recall(failed) == WRONG
    assert memo.recall(loose) is None
    assert memo.recall(again) is None
