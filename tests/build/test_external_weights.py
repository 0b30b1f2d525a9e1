"""Models whose weights are outside the ONNX file: every file and place of a weight reaches the engine."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from enginesmith_contract.backends import Backend, Precision
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.verification import VerificationStatus
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.engines.interface import on_host
from enginesmith_runtime.engines.registry import loader
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.store.interface import Store

PrepareModel = Callable[..., Preparation]
MakeRequest = Callable[..., BuildRequest]

_PROFILE = Profile(inputs={"x": ShapeRange(min=(1, 2), opt=(2, 2), max=(8, 2))})


def _outside(folder: Path, file: str, name: str, array: np.ndarray, *, length: bool = True) -> TensorProto:
    """Return a weight that is at the end of a file; without a length, its shape says how long it is."""
    tensor = numpy_helper.from_array(array, name)
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    offset = path.stat().st_size if path.exists() else 0
    with path.open("ab") as stream:
        stream.write(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    place = {"location": file, "offset": str(offset)} | ({"length": str(array.nbytes)} if length else {})
    for key, value in place.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def _save(folder: Path, nodes: list[onnx.NodeProto], weights: list[TensorProto]) -> Path:
    graph = helper.make_graph(
        nodes,
        "beside",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1000])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = folder / "beside.onnx"
    path.write_bytes(model.SerializeToString())
    return path


_W = np.arange(2000, dtype=np.float32).reshape(2, 1000)
_ONE = np.ones(1000, np.float32)


def _one_file(folder: Path) -> Path:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return _save(folder, nodes, [_outside(folder, "beside.onnx.data", "w", _W)])


def _several_files(folder: Path) -> Path:
    """Return a model with files in folders, names with spaces and letters outside ASCII, and lengths left out."""
    weights = [
        _outside(folder, "part one/Gewichte ü.bin", "unused", np.zeros(3, np.float32)),
        _outside(folder, "part one/Gewichte ü.bin", "w", _W, length=False),
        _outside(folder, "part one/Gewichte ü.bin", "b", _ONE, length=False),
        _outside(folder, "prepared-weights.bin", "shape", np.array([-1, 1000], np.int64), length=False),
        _outside(folder, "prepared-weights.bin", "c", _ONE),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["a"]),
        helper.make_node("Reshape", ["a", "shape"], ["r"]),
        helper.make_node("Sub", ["r", "c"], ["y"]),
    ]
    return _save(folder, nodes, weights)


def _inner_graphs_and_nodes(folder: Path) -> Path:
    def branch(name: str, value: float) -> onnx.GraphProto:
        weight = _outside(folder, "branches.bin", f"{name}_w", np.full(1000, value, np.float32))
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node("Add", ["a", weight.name], [name])], name, [], [output], [weight])

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Constant", [], ["k"], value=_outside(folder, "constant.bin", "k", _ONE)),
        helper.make_node("Add", ["m", "k"], ["a"]),
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Less", ["most", "zero"], ["is_negative"]),
        helper.make_node("If", ["is_negative"], ["y"], then_branch=branch("t", 7), else_branch=branch("e", -1)),
    ]
    weights = [_outside(folder, "beside.data", "w", _W), numpy_helper.from_array(np.array(0, np.float32), "zero")]
    return _save(folder, nodes, weights)


_MODELS: Mapping[str, Callable[[Path], Path]] = {
    "one file": _one_file,
    "several files": _several_files,
    "inner graphs and nodes": _inner_graphs_and_nodes,
}


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
@pytest.mark.parametrize("case", _MODELS)
def test_an_engine_for_the_cpu_has_all_weights_of_a_model_with_weight_files(
    case: str,
    precision: Precision,
    prepare_model: PrepareModel,
    make_request: MakeRequest,
    store: Store,
    work: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "in").mkdir()
    model = _MODELS[case](tmp_path / "in")
    manifest = build(make_request(prepare_model(model, _PROFILE, precision)), work, SilentReporter())
    (tmp_path / "in").rename(tmp_path / "gone")
    store.get_files(manifest.files, work / "copy")
    with loader(Backend.ONNXRUNTIME).load(manifest, work / "copy", {}).open_instance() as instance:
        answers = on_host(instance.infer({"x": np.ones((1, 2), np.float32)}, profile=0, outputs=("y",)))
    assert manifest.verification.status is VerificationStatus.PASSED
    np.testing.assert_allclose(answers["y"][0, :3].astype(np.float32), [1000, 1002, 1004], rtol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
@pytest.mark.parametrize("case", _MODELS)
def test_tensorrt_for_rtx_builds_a_model_with_weight_files(
    case: str, precision: Precision, prepare_model: PrepareModel, make_request: MakeRequest, work: Path, tmp_path: Path
) -> None:
    preparation = prepare_model(_MODELS[case](tmp_path), _PROFILE, precision)
    manifest = build(make_request(preparation, Backend.TENSORRT_RTX), work, SilentReporter())
    assert manifest.verification.status is VerificationStatus.NOT_RUN
