"""`build.quickStart`: the quick engine's build begins while the model is still being prepared."""

from typing import Any

import pytest
from tests.controller.engine_world import DIGEST, EngineWorld

from enginesmith_contract.failure import Failure
from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec
from enginesmith_operator.api.conditions import KEYS_RESOLVED, PREPARED
from enginesmith_operator.api.engine_status import TargetPhase
from enginesmith_operator.cluster.transport import Json

QUICK = {"quickStart": True}
MODEL = {"uri": "s3://models/ocr.onnx", "sha256": DIGEST}
_FAILED = Failure(exit_code=13, what="the model cannot be read", reason="ModelInvalid")
_TENSOR = TensorSpec(name="x", dtype=DType.FP32, shape=(-1, 4))
_FACTS = ModelFacts(inputs=(_TENSOR,), outputs=(_TENSOR.model_copy(update={"name": "y"}),), opset=17, size_bytes=1)


def early_world(**spec: Any) -> EngineWorld:
    """An engine with quick start and a model of a known digest, whose preparation has a node."""
    fields: dict[str, Any] = {"build": QUICK, "model": MODEL}
    world = EngineWorld(**fields | spec)
    world.step()
    run_preparation(world)
    world.step()
    return world


def run_preparation(world: EngineWorld) -> None:
    """Let the preparation's pod run."""
    job = next(one for one in world.of_kind("Job") if "-prep-" in one["metadata"]["name"])
    since = world.now.isoformat()
    world.job_pod(job, [{"name": "prepare", "state": {"running": {"startedAt": since}}}])


def builds(world: EngineWorld) -> list[Json]:
    """Return the specs of the builds that are there."""
    return [one["spec"] for one in world.of_kind("EngineBuild")]


def levels(world: EngineWorld) -> list[int]:
    """Return the optimization levels of the builds that are there, in order."""
    return sorted(one["request"]["options"]["optimizationLevel"] for one in builds(world))


def start_builds(world: EngineWorld) -> None:
    """Let every build run."""
    for build in world.of_kind("EngineBuild"):
        world.put(build | {"status": {"phase": "Building"}})


def test_the_quick_engines_build_begins_before_the_preparation_has_ended() -> None:
    world = early_world()
    (build,) = builds(world)
    assert build["request"]["options"]["optimizationLevel"] == 0
    assert build["awaitsPreparation"] is True
    start_builds(world)
    world.settle()
    status = world.target("l4")
    assert (status.phase, status.reason, status.message) == (
        TargetPhase.PREPARING,
        "Preparing",
        "the model is being prepared",
    )
    assert world.condition(PREPARED).reason == "Preparing"
    assert world.condition(KEYS_RESOLVED).reason == "DigestPending"


@pytest.mark.parametrize("phase", ["", "Building", "Succeeded"])
def test_the_build_continues_when_the_model_is_prepared(phase: str) -> None:
    world = early_world()
    (before,) = world.of_kind("EngineBuild")
    if phase == "Building":
        start_builds(world)
    if phase == "Succeeded":
        world.end_builds()
    world.end_preparation()
    world.settle()
    assert [one["metadata"]["uid"] for one in world.of_kind("EngineBuild")] == [before["metadata"]["uid"]]
    assert levels(world) == [0]
    want = TargetPhase.ROLLING_OUT if phase == "Succeeded" else TargetPhase.BUILDING
    assert world.target("l4").phase is want


def test_a_build_that_waits_for_a_node_stays_although_the_models_size_is_known_now() -> None:
    world = early_world()
    world.hold_builds()
    world.end_preparation(facts=_FACTS)
    assert world.step().deletes == ()
    world.settle()
    assert [one["awaitsPreparation"] for one in builds(world)] == [True]


@pytest.mark.parametrize(
    "spec",
    [
        {"build": {}},
        {"model": {"uri": MODEL["uri"]}},
        {"build": QUICK | {"refittable": True}},
        {"precision": {"default": "fp16", "fallback": ["fp32"]}},
        {"precision": {"default": "int8", "calibration": "s3://models/images.npz"}},
        {"targets": [{"name": "l4", "gpu": {"product": "NVIDIA-L4"}, "replicas": 0}]},
        {"targets": [{"name": "t4", "gpu": {"product": "Tesla-T4"}}]},
    ],
    ids=["not asked for", "no digest", "refit", "fallback", "calibration", "no replicas", "no node"],
)
def test_otherwise_nothing_is_built_before(spec: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"build": QUICK, "model": MODEL}
    world = EngineWorld(**fields | spec)
    world.step()
    if world.of_kind("Job"):
        run_preparation(world)
    world.settle()
    assert builds(world) == []


def test_nothing_is_built_before_the_preparation_has_a_node() -> None:
    world = EngineWorld(build=QUICK, model=MODEL)
    world.settle()
    assert builds(world) == []


def test_while_an_earlier_engine_serves_no_build_begins_early() -> None:
    world = EngineWorld(build=QUICK, model=MODEL)
    world.serve()
    world.end_builds()
    world.step()
    world.start_pods()
    world.settle()
    there = levels(world)
    world.change_spec(profiles=[{"name": "b", "inputs": {"x": {"min": [1, 4], "opt": [2, 4], "max": [2, 4]}}}])
    world.step()
    job = next(one for one in world.of_kind("Job") if "-prep-" in one["metadata"]["name"] and not one.get("status"))
    world.job_pod(job, [{"name": "prepare", "state": {"running": {"startedAt": world.now.isoformat()}}}])
    world.settle()
    assert levels(world) == there


@pytest.mark.parametrize("phase", ["", "Building"])
def test_a_preparation_that_fails_leaves_no_build_and_says_why(phase: str) -> None:
    world = early_world()
    if phase:
        start_builds(world)
    world.end_preparation(failure=_FAILED)
    world.settle()
    assert builds(world) == []
    status = world.target("l4")
    assert (status.phase, status.reason) == (TargetPhase.PREPARING, "ModelInvalid")


def test_a_preparation_that_cannot_go_on_gives_the_gpu_back() -> None:
    world = early_world()
    job = next(one for one in world.of_kind("Job") if "-prep-" in one["metadata"]["name"])
    world.drop_preparation_pods()
    world.job_pod(job, [{"name": "prepare", "state": {"waiting": {"reason": "ErrImagePull", "message": "no"}}}])
    world.settle()
    assert builds(world) == []


@pytest.mark.parametrize("phase", ["Building", "Failed"])
def test_a_model_that_the_plan_refuses_leaves_no_build(phase: str) -> None:
    world = early_world()
    start_builds(world)
    if phase == "Failed":
        (build,) = world.of_kind("EngineBuild")
        world.put({**build, "status": {}})
        world.fail_builds("UnsupportedOperators", "TensorRT does not take the model")
    said = "node 'nms': NonMaxSuppression is not taken"
    world.end_preparation(facts=_FACTS.model_copy(update={"refused_nodes": (said,)}))
    world.settle()
    assert builds(world) == []
    assert world.target("l4").phase is TargetPhase.REFUSED


def test_a_build_continues_although_its_node_is_not_seen_for_a_moment() -> None:
    world = early_world()
    start_builds(world)
    world.end_preparation(facts=_FACTS)
    world.settle()
    world.nodes.forget("gpu-1", "node-gpu-1")
    world.wait(600)
    world.settle()
    assert world.target("l4").phase is TargetPhase.REFUSED
    assert levels(world) == [0]


def test_a_model_that_is_another_one_than_expected_is_built_as_without() -> None:
    world = early_world()
    (before,) = builds(world)
    world.end_preparation(source_digest="ef" * 32, preparation_key="12" * 32)
    world.settle()
    assert levels(world) == [0]
    (after,) = builds(world)
    assert after["request"]["engineKey"] != before["request"]["engineKey"]
    assert "awaitsPreparation" not in after


@pytest.mark.parametrize("reason", ["PreparationLate", "PreparationMissing"])
def test_a_preparation_that_takes_longer_than_the_builder_waits_costs_nothing(reason: str) -> None:
    world = early_world()
    world.fail_builds(reason, "the model's preparation has not ended yet", retry=reason == "PreparationLate")
    world.settle()
    assert levels(world) == [0], "it is not created again while the model is being prepared"
    assert world.target("l4").phase is TargetPhase.PREPARING
    world.end_preparation()
    first = world.step()
    assert len(first.deletes) == 1
    assert (
        first.status.targets[0].message
        == "0 of 1 engines are stored; the quick engine (optimization level 0) is built first"
    )
    world.settle()
    (after,) = builds(world)
    assert after["request"]["options"]["optimizationLevel"] == 0
    assert "awaitsPreparation" not in after


def test_a_stored_full_engine_is_served_and_the_build_goes() -> None:
    first = EngineWorld(build=QUICK, model=MODEL)
    first.serve()
    first.settle()
    full = next(one for one in builds(first) if one["request"]["options"]["optimizationLevel"] == 3)
    world = early_world()
    start_builds(world)
    world.end_preparation(stored_engines={full["request"]["engineKey"]: "cd" * 32})
    world.settle()
    assert builds(world) == []
    assert world.target("l4").phase is TargetPhase.ROLLING_OUT


def test_another_engine_that_wants_the_same_build_takes_it_when_the_model_is_prepared() -> None:
    world = early_world()
    (before,) = world.of_kind("EngineBuild")
    world.engine = world.make_engine("other", build=QUICK, model=MODEL)
    world.step()
    job = next(one for one in world.of_kind("Job") if one["metadata"]["name"].startswith("other-prep-"))
    world.job_pod(job, [{"name": "prepare", "state": {"running": {"startedAt": world.now.isoformat()}}}])
    world.settle()
    assert [one["metadata"]["name"] for one in world.of_kind("EngineBuild")] == [before["metadata"]["name"]]


def test_it_is_deleted_when_quick_start_is_no_longer_asked_for() -> None:
    world = early_world()
    world.change_spec(build={})
    world.settle()
    assert builds(world) == []
