"""`precision.fallback`: the next precision is prepared, built and served where one is refused, and built once."""

from typing import Any

import pytest
from tests.controller.engine_world import EngineWorld

from enginesmith_contract.backends import Precision
from enginesmith_contract.failure import Failure
from enginesmith_contract.tensors import DType, ExpectedDifference, ModelFacts, TensorSpec
from enginesmith_operator.api.conditions import BUILT, PRECISION_FALLBACK, PREPARED, READY
from enginesmith_operator.api.engine_status import TargetPhase
from enginesmith_operator.controller.inference_engine.decide import EngineDecision
from enginesmith_operator.controller.shared.conditions import find_condition

DATA = "s3://models/samples/"
INT8 = {"default": "int8", "calibration": DATA, "fallback": ["fp16", "fp32"]}
GATE = "VerificationFailed"
WRONG = "output 'y': 0.81 of 24 answers are the FP32 model's, limit 0.97"


def prepared(**precision: Any) -> EngineWorld:
    """An engine whose model is prepared and whose build is there."""
    world = EngineWorld(precision=INT8 | precision)
    world.step()
    world.end_preparation()
    world.step()
    return world


def fallen() -> EngineWorld:
    """An engine whose INT8 build has failed its gate, and whose FP16 model is prepared."""
    world = prepared()
    world.fail_builds(GATE, WRONG)
    world.step()
    world.end_preparation()
    world.step()
    return world


def refused(decision: EngineDecision) -> list[Precision]:
    """Return the precisions that a status says are not used."""
    return [one.precision for one in decision.status.refused_precisions]


def states(world: EngineWorld) -> list[str]:
    """Return the phases of the builds that are there, in order."""
    return sorted((one.get("status") or {}).get("phase", "new") for one in world.of_kind("EngineBuild"))


def test_a_precision_that_fails_its_gate_is_followed_by_the_next_which_is_built_once() -> None:
    world = prepared()
    world.fail_builds(GATE, WRONG)
    decision = world.step()
    assert refused(decision) == [Precision.INT8]
    assert [one["kind"] for one in decision.creates] == ["Job"]
    assert [one.reason for one in decision.events] == ["PrecisionFallback"]
    assert refused(world.step()) == [Precision.INT8]
    world.end_preparation()
    assert [one["kind"] for one in world.step().creates] == ["EngineBuild"]
    assert states(world) == ["Failed", "new"], "the failed build stays: it says why"
    world.end_builds()
    world.step()
    world.start_pods()
    decision = world.settle()
    assert states(world) == ["Failed", "Succeeded"]
    told = world.condition(PRECISION_FALLBACK)
    assert told.message == f"fp16 is used in place of int8, which failed its gate ({WRONG})"
    assert world.condition(BUILT).status == world.condition(READY).status == "True"
    assert decision.status.targets[0].phase is TargetPhase.SERVING


def test_the_engine_that_served_before_goes_on_until_the_next_precision_is_stored() -> None:
    world = EngineWorld()
    world.serve()
    (first,) = world.target("l4").serving
    world.change_spec(precision=INT8)
    world.step()
    for _ in ("int8", "fp16"):
        world.end_preparation()
        world.step()
        assert world.target("l4").serving == (first,)
        world.fail_builds(GATE, WRONG)
        assert world.target("l4").serving == (first,)
        assert world.step().status.targets[0].phase is TargetPhase.SERVING
    decision = world.step()
    assert refused(decision) == [Precision.INT8, Precision.FP16]
    assert "int8, which failed its gate" in world.condition(PRECISION_FALLBACK).message
    assert "fp32 is used in place" in world.condition(PRECISION_FALLBACK).message
    assert world.target("l4").serving == world.target("l4").desired == (first,), "fp32 was there before"


def test_the_failure_of_the_last_precision_is_the_engine_s() -> None:
    world = prepared(fallback=["fp16"])
    world.fail_builds(GATE, WRONG)
    world.step()
    world.end_preparation()
    world.step()
    world.fail_builds(GATE, "output 'y' is NaN")
    world.settle()
    assert world.target("l4").phase is TargetPhase.FAILED
    assert "is NaN" in world.condition(BUILT).message
    assert refused(world.look()) == [Precision.INT8]


@pytest.mark.parametrize("fallback", [["fp16"], []])
def test_a_build_that_fails_for_another_reason_changes_no_precision(fallback: list[str]) -> None:
    world = prepared(fallback=fallback)
    world.fail_builds("OutOfMemory" if fallback else GATE, "the builder was killed for memory")
    decision = world.settle()
    assert refused(decision) == []
    assert find_condition(decision.status.conditions, PRECISION_FALLBACK) is None
    assert world.target("l4").phase is TargetPhase.FAILED


@pytest.mark.parametrize(
    ("reason", "want"),
    [("NotQuantisable", [Precision.INT8]), ("PrecisionNotAvailable", [Precision.INT8]), ("CalibrationUnusable", [])],
)
def test_a_model_that_cannot_be_had_in_a_precision_is_prepared_in_the_next(reason: str, want: list[Precision]) -> None:
    world = EngineWorld(precision=INT8)
    world.step()
    world.end_preparation(failure=Failure(exit_code=12, what="the model cannot be quantised", reason=reason))
    decision = world.step()
    assert refused(decision) == want
    assert bool(decision.creates) == bool(want)
    assert (world.condition(PREPARED).reason != reason) == bool(want)


def test_a_model_whose_answers_are_beyond_the_limit_on_a_cpu_is_built_in_the_next_precision() -> None:
    world = EngineWorld(precision={"default": "fp16", "fallback": ["fp32"]})
    world.step()
    tensor = TensorSpec(name="x", dtype=DType.FP32, shape=(-1, 4))
    far = (ExpectedDifference(output="y", difference=0.9, limit=0.1),)
    facts = ModelFacts(inputs=(tensor,), outputs=(tensor.model_copy(update={"name": "y"}),), opset=17, size_bytes=1)
    world.end_preparation(facts=facts.model_copy(update={"expected_differences": far}))
    assert refused(world.step()) == [Precision.FP16]
    world.end_preparation(facts=facts)
    assert [one["kind"] for one in world.step().creates] == ["EngineBuild"]
    assert "fp16, which fails its gate on a CPU" in world.condition(PRECISION_FALLBACK).message


def test_a_refused_precision_is_tried_again_when_the_verification_is_another_one() -> None:
    world = fallen()
    world.change_spec(verification={"agreement": 0.8})
    decision = world.step()
    assert refused(decision) == []
    assert [one.address.kind for one in decision.deletes] == ["EngineBuild"] * 2, "the failed one, and that in fp16"
    assert [one["kind"] for one in world.step().creates] == ["EngineBuild"]
    world.end_builds()
    world.step()
    assert states(world) == ["Succeeded"]
    assert refused(world.look()) == []


def test_a_refused_precision_is_tried_again_when_its_failed_build_is_deleted_and_not_for_a_replica_more() -> None:
    world = fallen()
    targets = [{"name": "l4", "gpu": {"product": "NVIDIA-L4"}, "replicas": 2}]
    world.change_spec(targets=targets)
    assert refused(world.step()) == [Precision.INT8]
    (failed,) = [one for one in world.cache.of_kind("EngineBuild") if one.document().get("status")]
    world.cache.remove(failed.address, failed.uid)
    assert refused(world.step()) == []


def test_a_refused_precision_is_tried_again_with_another_model_at_the_same_address() -> None:
    world = EngineWorld(precision=INT8, model={"uri": "s3://models/ocr.onnx", "refresh": "1h"})
    world.step()
    world.end_preparation()
    world.step()
    world.fail_builds(GATE, WRONG)
    world.step()
    world.end_preparation()
    world.step()
    world.wait(3600)
    world.step()
    assert refused(world.look()) == [Precision.INT8]
    world.end_preparation(source_digest="12" * 32, preparation_key="34" * 32)
    world.step()
    assert refused(world.step()) == []


def test_an_engine_that_its_first_server_refuses_is_followed_by_the_next_precision() -> None:
    world = prepared()
    world.end_builds()
    world.step()
    (engine,) = world.target("l4").engines
    why = {"reason": GATE, "what": "wrong answers", "exitCode": 17}
    world.start_pods(ready=False, exit_code=17, message={"engineKey": engine.key, "failure": why})
    world.step()
    assert refused(world.step()) == [Precision.INT8]
    assert "on node gpu-1" in world.condition(PRECISION_FALLBACK).message


@pytest.mark.parametrize(("int8", "half"), [(0.004, 0.003), (0.002, 0.003)])
def test_an_engine_that_is_slower_than_the_stored_one_in_fp16_is_not_taken(int8: float, half: float) -> None:
    world = EngineWorld(precision="fp16")
    world.step()
    world.end_preparation()
    world.step()
    world.end_builds(latency_seconds=half)
    world.step()
    world.start_pods()
    world.settle()
    (first,) = world.target("l4").serving
    world.change_spec(precision=INT8)
    world.step()
    world.end_preparation()
    world.step()
    world.end_builds(latency_seconds=int8)
    decision = world.step()
    assert refused(decision) == ([Precision.INT8] if int8 > half else [])
    if int8 > half:
        why = "int8, which is slower than fp16 (4 ms and 3 ms on NVIDIA-L4, profile default)"
        assert why in world.condition(PRECISION_FALLBACK).message
        decision = world.settle()
        assert decision.status.targets[0].serving == decision.status.targets[0].desired == (first,)
