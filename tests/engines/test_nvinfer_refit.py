"""Refitting a plan, and the room that an engine's contexts need, with what needs a GPU faked."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enginesmith_contract.errors import BuildError, BuildOutOfMemoryError
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.build.phases import PhaseProgress
from enginesmith_runtime.engines.interface import BuildJob
from enginesmith_runtime.engines.nvinfer.build import build_plan
from enginesmith_runtime.engines.nvinfer.inspect import DeviceMemory, Inspection
from enginesmith_runtime.engines.nvinfer.library import RTX_LIBRARY
from enginesmith_runtime.engines.nvinfer.messages import create_logger
from enginesmith_runtime.engines.nvinfer.refit import refit_plan
from enginesmith_runtime.engines.nvinfer.tensorrt_backend import require_room
from enginesmith_runtime.progress import SilentReporter

MakeJob = Callable[..., BuildJob]
Refit = Callable[..., dict[str, Any]]

_FAKE = runpy.run_path(str(Path(__file__).with_name("fake_refit_library.py")))
_GIB = 1 << 30


@pytest.fixture
def refit(tmp_path: Path) -> Refit:
    """Return a refit of a plan with the weights `a` and `b`; returns the new plan."""

    def run(*weights: str, refittable: bool = True, keeps_refit: bool = False) -> dict[str, Any]:
        module = _FAKE["create_fake_library"](RTX_LIBRARY.load().ILogger, keeps_refit=keeps_refit)
        base, model, target = (tmp_path / name for name in ("base", "model", "target"))
        base.write_text(json.dumps({"weights": ["a", "b"], "values": "old", "refittable": refittable}))
        model.write_text(json.dumps({"weights": weights, "values": "new"}))
        refit_plan(module, create_logger(module), base, model, target)
        plan: dict[str, Any] = json.loads(target.read_bytes())
        return plan

    return run


@pytest.mark.parametrize("keeps_refit", [False, True], ids=["before 10.14", "since 10.14"])
def test_a_refitted_plan_has_the_new_weights_and_stays_refittable_where_the_library_can(
    keeps_refit: bool,  # noqa: FBT001 - a parameter of the test
    refit: Refit,
) -> None:
    assert refit("a", "b", keeps_refit=keeps_refit) == {
        "weights": ["a", "b"],
        "values": "new",
        "refittable": keeps_refit,
    }


def test_weights_that_the_model_does_not_bring_are_named_and_nothing_is_written(refit: Refit, tmp_path: Path) -> None:
    with pytest.raises(BuildError) as refusal:
        refit("a")
    assert refusal.value.reason == "RefitRefused"
    assert "weights are missing: b" in refusal.value.why
    assert not (tmp_path / "target").exists()


def test_an_engine_that_was_not_built_for_it_is_refused(refit: Refit) -> None:
    with pytest.raises(BuildError) as refusal:
        refit("a", "b", refittable=False)
    assert refusal.value.reason == "RefitRefused"


def test_a_plan_that_is_none_is_refused_in_the_library_s_place(tmp_path: Path) -> None:
    module = _FAKE["create_fake_library"](RTX_LIBRARY.load().ILogger, keeps_refit=False)
    base = tmp_path / "base"
    base.write_bytes(b"no plan")
    with pytest.raises(BuildError) as refusal:
        refit_plan(module, create_logger(module), base, base, tmp_path / "target")
    assert refusal.value.reason == "EngineUnreadable"


def test_a_library_that_finds_no_memory_to_start_is_out_of_memory(make_job: MakeJob, tmp_path: Path) -> None:
    module = RTX_LIBRARY.load()

    class _Starved:
        """TensorRT where another process holds the GPU: its constructor returns nothing, which pybind reports."""

        def __init__(self, log: object) -> None:
            logger: Any = log
            logger.log(module.ILogger.ERROR, "CUDA initialization failure with error: 2")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    class _Library:
        Builder = _Starved

        def __getattr__(self, name: str) -> object:
            found: object = getattr(module, name)
            return found

    model = tmp_path / "model.onnx"
    model.write_bytes(b"never read")
    job = make_job(model, (), ())
    with pytest.raises(BuildOutOfMemoryError) as failure:
        build_plan(_Library(), job, PhaseProgress(SilentReporter()))
    assert failure.value.reason == "OutOfMemory"
    assert "initialization failure" in failure.value.why


def test_a_profile_beyond_the_free_memory_is_refused_with_both_figures(make_job: MakeJob, tmp_path: Path) -> None:
    spec = TensorSpec(name="x", dtype=DType.FP32, shape=(-1,))
    small, huge = (
        Profile(name=name, inputs={"x": ShapeRange(min=(1,), opt=(1,), max=(1,))}) for name in ("small", "huge")
    )
    model = tmp_path / "model.onnx"
    model.write_bytes(b"never read")
    job = make_job(model, (spec,), (spec,), profiles=(small, huge))
    memory = DeviceMemory(free=70 * _GIB, total=80 * _GIB)
    require_room(job, Inspection(summary={}, context_bytes=(_GIB, 70 * _GIB), memory=memory))
    with pytest.raises(BuildOutOfMemoryError) as refusal:
        require_room(job, Inspection(summary={}, context_bytes=(_GIB, 90 * _GIB), memory=memory))
    assert (refusal.value.reason, refusal.value.where) == ("ProfileTooLarge", "profile huge")
    assert refusal.value.why == "it takes 90.0 GiB, 70.0 GiB of 80.0 GiB are free"
