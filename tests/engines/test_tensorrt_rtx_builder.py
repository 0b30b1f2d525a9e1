"""The parts shared by TensorRT and TensorRT for RTX, run with the latter, which builds without a GPU."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from enginesmith_contract.backends import Backend
from enginesmith_contract.errors import BuildError, CancelledBuildError, EngineRefusedError, SpecError
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.engines.interface import BuildJob
from enginesmith_runtime.engines.nvinfer.build import build_plan
from enginesmith_runtime.engines.nvinfer.early_start import start_builder
from enginesmith_runtime.engines.nvinfer.library import RTX_LIBRARY, TENSORRT_LIBRARY
from enginesmith_runtime.engines.nvinfer.loader import NvInferLoader
from enginesmith_runtime.engines.nvinfer.tensorrt_backend import TensorRtBuilder
from enginesmith_runtime.engines.nvinfer.tensorrt_rtx_backend import TensorRtRtxBuilder

WriteModel = Callable[..., Path]
MakeJob = Callable[..., BuildJob]
MakeManifest = Callable[..., Manifest]

pytestmark = pytest.mark.slow


class _Sink:
    """A ProgressSink that remembers phases, and stops the build when one is named."""

    def __init__(self, stop_at: str = "") -> None:
        self.phases: list[tuple[str, str | None]] = []
        self.finished: list[str] = []
        self._stop_at = stop_at

    def phase(self, name: str, *, steps: int, parent: str | None = None) -> None:
        assert steps >= 0
        self.phases.append((name, parent))

    def step(self, name: str, step: int) -> bool:  # noqa: ARG002 - the ProgressSink's signature
        return name != self._stop_at

    def finish(self, name: str) -> None:
        self.finished.append(name)


def _image(symbols: tuple[str | None, ...] = ()) -> TensorSpec:
    return TensorSpec(name="x", dtype=DType.FP32, shape=(-1, 3, -1, -1), symbols=symbols)


_OUT = TensorSpec(name="y", dtype=DType.FP32, shape=(-1, 2, -1, -1))
_WIDE = Profile(inputs={"x": ShapeRange(min=(1, 3, 8, 8), opt=(2, 3, 16, 24), max=(4, 3, 32, 64))})


@pytest.fixture
def write_convolution(write_model: WriteModel) -> Callable[..., Path]:
    """Return a writer of one convolution over images whose open dimensions have the given names."""

    def write(names: tuple[str | int | None, ...], dtype: type[np.generic] = np.float32) -> Path:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        weights = np.random.default_rng(1).standard_normal((2, 3, 3, 3)).astype(dtype)
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["y"]),
        ]
        return write_model(
            nodes,
            [helper.make_tensor_value_info("x", kind, [names[0], 3, names[1], names[2]])],
            [helper.make_tensor_value_info("y", kind, [None, 2, None, None])],
            w=weights,
        )

    return write


def test_the_library_s_phases_arrive_below_ours_and_all_end(
    write_convolution: Callable[..., Path], make_job: MakeJob
) -> None:
    sink = _Sink()
    job = make_job(
        write_convolution(("n", "h", "w")),
        (_image(("n", None, "h", "w")),),
        (_OUT,),
        backend=Backend.TENSORRT_RTX,
        profiles=(_WIDE,),
    )
    TensorRtRtxBuilder().build(job, sink)
    names = [name for name, _ in sink.phases]
    assert sink.phases[0] == ("build", None)
    assert len(names) > 1
    assert all(parent in names for _, parent in sink.phases[1:])
    assert sorted(sink.finished) == sorted(names)


def test_a_builder_that_was_started_before_its_job_makes_the_engine(
    write_convolution: Callable[..., Path], make_job: MakeJob
) -> None:
    started = start_builder(RTX_LIBRARY.load)
    assert started is not None
    model = write_convolution(("n", None, "h", "w"))
    job = make_job(model, (_image(("n", None, "h", "w")),), (_OUT,), backend=Backend.TENSORRT_RTX, profiles=(_WIDE,))
    plan = build_plan(RTX_LIBRARY.load(), job, _Sink(), started=started)
    assert plan.files[0].stat().st_size > 0


def test_a_library_that_cannot_be_started_early_is_left_to_the_build(
    write_convolution: Callable[..., Path], make_job: MakeJob
) -> None:
    builder = TensorRtBuilder()
    builder.start()
    job = make_job(write_convolution(("n", None, "h", "w")), (), ())
    with pytest.raises(BuildError) as caught:
        builder.build(job, _Sink())
    assert caught.value.reason == "ToolchainMissing"


def test_a_build_that_is_told_to_stop_stops_in_the_library(
    write_convolution: Callable[..., Path], make_job: MakeJob
) -> None:
    model = write_convolution(("n", "h", "w"))
    job = make_job(model, (_image(("n", None, "h", "w")),), (_OUT,), backend=Backend.TENSORRT_RTX, profiles=(_WIDE,))
    sink = _Sink()
    TensorRtRtxBuilder().build(job, sink)
    native = sink.phases[1][0]
    (job.output / "engine.plan").unlink()
    with pytest.raises(CancelledBuildError):
        TensorRtRtxBuilder().build(job, _Sink(stop_at=native))
    assert list(job.output.iterdir()) == []


def test_dimensions_that_an_exporter_names_alike_without_meaning_it_are_told_apart(
    write_convolution: Callable[..., Path], make_job: MakeJob
) -> None:
    model = write_convolution(("?", "?", "?"))
    job = make_job(model, (_image(),), (_OUT,), backend=Backend.TENSORRT_RTX, profiles=(_WIDE,))
    before = model.read_bytes()
    assert TensorRtRtxBuilder().build(job, _Sink()).files[0].read_bytes()[:4] == b"vtrt"
    assert model.read_bytes() == before


def test_dimensions_that_share_a_real_name_must_agree(
    write_convolution: Callable[..., Path], make_job: MakeJob
) -> None:
    model = write_convolution(("n", "side", "side"))
    job = make_job(
        model, (_image(("n", None, "side", "side")),), (_OUT,), backend=Backend.TENSORRT_RTX, profiles=(_WIDE,)
    )
    with pytest.raises(BuildError) as refusal:
        TensorRtRtxBuilder().build(job, _Sink())
    assert refusal.value.reason == "ProfileRefused"
    assert "of one name" in refusal.value.remedy


@pytest.mark.parametrize(
    ("shapes", "want_fragment"),
    [
        (
            ShapeRange(min=(1, 3, 8, 8), opt=(8, 3, 16, 16), max=(4, 3, 32, 32)),
            "optimization profiles for input tensors x",
        ),
        (ShapeRange(min=(1, 5, 8, 8), opt=(2, 5, 16, 16), max=(4, 5, 32, 32)), "Dimension mismatch for tensor x"),
        (ShapeRange(min=(1, 3, 8), opt=(2, 3, 8), max=(4, 3, 8)), "x"),
        (None, "input x"),
    ],
    ids=["opt beyond max", "another fixed dimension", "another rank", "no range"],
)
def test_a_profile_that_the_builder_refuses_is_named(
    shapes: ShapeRange | None, want_fragment: str, write_convolution: Callable[..., Path], make_job: MakeJob
) -> None:
    profile = Profile(name="wrong", inputs={} if shapes is None else {"x": shapes})
    job = make_job(
        write_convolution(("n", "h", "w")),
        (_image(("n", None, "h", "w")),),
        (_OUT,),
        backend=Backend.TENSORRT_RTX,
        profiles=(profile,),
    )
    with pytest.raises(BuildError) as refusal:
        TensorRtRtxBuilder().build(job, _Sink())
    assert refusal.value.reason == "ProfileRefused"
    assert want_fragment in str(refusal.value)


def test_the_engine_s_datatypes_are_the_network_s(write_convolution: Callable[..., Path], make_job: MakeJob) -> None:
    specs = (_image(("n", None, "h", "w")).model_copy(update={"dtype": DType.FP16}),)
    out = (_OUT.model_copy(update={"dtype": DType.FP16}),)
    job = make_job(
        write_convolution(("n", "h", "w"), np.float16), specs, out, backend=Backend.TENSORRT_RTX, profiles=(_WIDE,)
    )
    built = TensorRtRtxBuilder().build(job, _Sink())
    assert (built.inputs, built.outputs) == (specs, out)
    assert built.builder_seconds


def test_a_file_that_is_no_model_is_refused_by_the_parser(tmp_path: Path, make_job: MakeJob) -> None:
    model = tmp_path / "garbage.onnx"
    model.write_bytes(b"\x99" * 1000)
    static = TensorSpec(name="x", dtype=DType.FP32, shape=(1,))
    with pytest.raises(BuildError) as refusal:
        TensorRtRtxBuilder().build(make_job(model, (static,), (static,), backend=Backend.TENSORRT_RTX), _Sink())
    assert refusal.value.reason == "ParserRefused"


def test_an_input_whose_values_are_a_shape_needs_their_range(write_model: WriteModel, make_job: MakeJob) -> None:
    model = write_model(
        [helper.make_node("Reshape", ["x", "s"], ["y"])],
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4]),
            helper.make_tensor_value_info("s", TensorProto.INT64, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])],
    )
    inputs = (
        TensorSpec(name="x", dtype=DType.FP32, shape=(4, 4)),
        TensorSpec(name="s", dtype=DType.INT64, shape=(2,)),
    )
    outputs = (TensorSpec(name="y", dtype=DType.FP32, shape=(-1, -1)),)
    with pytest.raises(BuildError) as refusal:
        TensorRtRtxBuilder().build(make_job(model, inputs, outputs, backend=Backend.TENSORRT_RTX), _Sink())
    assert (refusal.value.reason, refusal.value.where) == ("MissingValues", "profile default, input s")


def test_a_loader_without_its_library_says_which_package_is_missing() -> None:
    with pytest.raises(EngineRefusedError) as refusal:
        NvInferLoader(TENSORRT_LIBRARY).version()
    assert refusal.value.reason == "ToolchainMissing"
    with pytest.raises(BuildError) as failure:
        TensorRtBuilder().version()
    assert failure.value.reason == "ToolchainMissing"


def test_a_loader_takes_no_options_that_it_does_not_know(
    write_convolution: Callable[..., Path], make_job: MakeJob, make_manifest: MakeManifest
) -> None:
    job = make_job(
        write_convolution(("n", "h", "w")), (_image(),), (_OUT,), backend=Backend.TENSORRT_RTX, profiles=(_WIDE,)
    )
    manifest = make_manifest(job, TensorRtRtxBuilder().build(job, _Sink()))
    with pytest.raises(SpecError) as refusal:
        NvInferLoader(RTX_LIBRARY).load(manifest, job.output, {"intraOpThreads": "2"})
    assert refusal.value.reason == "BackendOptionInvalid"
