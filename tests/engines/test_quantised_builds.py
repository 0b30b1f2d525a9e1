"""Quantised graphs as TensorRT for RTX takes them: its parser and builder need no GPU."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.prepare.quantised_cases import cast_to_half, normalise, ranges_of, residual_case

from enginesmith_contract.backends import Backend, Precision
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.engines.interface import BuildJob
from enginesmith_runtime.engines.nvinfer.tensorrt_rtx_backend import TensorRtRtxBuilder
from enginesmith_runtime.prepare.quantize.tensorrt_placement import place

MakeJob = Callable[..., BuildJob]
Shape = tuple[int, ...]

pytestmark = pytest.mark.slow


class _Sink:
    """A ProgressSink that remembers nothing."""

    def phase(self, name: str, *, steps: int, parent: str | None = None) -> None:
        """Ignore it."""

    def step(self, name: str, step: int) -> bool:
        return bool(name) and step >= 0

    def finish(self, name: str) -> None:
        """Ignore it."""


@pytest.fixture
def build(make_job: MakeJob, tmp_path: Path) -> Callable[..., int]:
    """Return a builder of engines from models with images: `build(model, min, opt, max)`; returns the plan's bytes."""

    def run(model: onnx.ModelProto, low: Shape, best: Shape, high: Shape) -> int:
        path = tmp_path / "placed.onnx"
        onnx.save(model, path)
        sizes = tuple(one if one == other else -1 for one, other in zip(low, high, strict=True))
        facts = TensorSpec(name="x", dtype=DType.FP32, shape=sizes)
        output = TensorSpec(name=model.graph.output[0].name, dtype=DType.FP32, shape=(-1,))
        profile = Profile(inputs={"x": ShapeRange(min=low, opt=best, max=high)})
        job = make_job(path, (facts,), (output,), backend=Backend.TENSORRT_RTX, profiles=(profile,))
        return TensorRtRtxBuilder().build(job, _Sink()).files[0].stat().st_size

    return run


@pytest.mark.parametrize("kind", [Precision.INT8, Precision.FP8])
@pytest.mark.parametrize("is_cast", [False, True])
def test_a_residual_network_builds(
    build: Callable[..., int], tmp_path: Path, kind: Precision, *, is_cast: bool
) -> None:
    normal = normalise(residual_case()).model
    x = np.random.default_rng(1).standard_normal((2, 3, 16, 16)).astype(np.float32)
    rest = cast_to_half(normal, tmp_path) if is_cast else normal
    assert build(place(rest, ranges_of(normal, x), kind=kind), (1, 3, 16, 16), (2, 3, 16, 16), (4, 3, 16, 16)) > 0


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("det", (1, 3, 96, 96), (1, 3, 320, 320)),
        ("rec", (1, 3, 48, 96), (4, 3, 48, 320)),
        ("cls", (1, 3, 48, 192), (4, 3, 48, 192)),
    ],
)
def test_real_models_build_in_int8_with_an_fp16_rest(
    build: Callable[..., int], ocr_models: Path, tmp_path: Path, name: str, low: Shape, high: Shape
) -> None:
    normal = normalise(onnx.load(ocr_models / f"{name}.onnx")).model
    x = np.random.default_rng(1).uniform(-1, 1, low).astype(np.float32)
    assert build(place(cast_to_half(normal, tmp_path), ranges_of(normal, x)), low, low, high) > 0
