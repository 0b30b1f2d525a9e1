"""Tensors of rank 0, as inputs and as outputs, of every datatype: prepared, built and answered as rank 0."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from enginesmith_contract.backends import Backend
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.verification import VerificationStatus
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.engines.interface import on_host
from enginesmith_runtime.engines.registry import loader
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.server.warm_up import warm_up
from enginesmith_runtime.store.interface import Store

PrepareModel = Callable[..., Preparation]
MakeRequest = Callable[..., BuildRequest]

_DTYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FLOAT16", "FLOAT", "DOUBLE",
    "STRING",
)  # fmt: skip


def _save(folder: Path, dtypes: tuple[str, ...]) -> Path:
    """Return a model that hands on a rank-0 tensor of each datatype, and gives the mean of `x` as rank 0."""
    nodes = [helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])]
    outputs = [helper.make_tensor_value_info("mean", TensorProto.FLOAT, [])]
    for dtype in dtypes:
        name, kind = dtype.lower(), TensorProto.DataType.Value(dtype)
        nodes.append(helper.make_node("Identity", [name], [f"{name}_out"]))
        inputs.append(helper.make_tensor_value_info(name, kind, []))
        outputs.append(helper.make_tensor_value_info(f"{name}_out", kind, []))
    graph = helper.make_graph(nodes, "scalars", inputs, outputs)
    path = folder / "scalars.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


_PROFILE = Profile(inputs={"x": ShapeRange(min=(1, 4), opt=(2, 4), max=(8, 4))})


def test_a_scalar_of_every_datatype_goes_in_and_comes_out_as_rank_0(
    prepare_model: PrepareModel, make_request: MakeRequest, store: Store, work: Path, tmp_path: Path
) -> None:
    preparation = prepare_model(_save(tmp_path, _DTYPES), _PROFILE)
    manifest = build(make_request(preparation), work, SilentReporter())
    assert manifest.verification.status is VerificationStatus.PASSED
    assert {spec.shape for spec in manifest.outputs} == {()}
    folder = work / "copy"
    store.get_files((*manifest.files, *(one.file for one in manifest.references)), folder)
    inputs = {
        spec.name: np.array(b"text", object) if spec.dtype == "BYTES" else np.ones((), spec.dtype.numpy)
        for spec in manifest.inputs
        if spec.name != "x"
    }
    with loader(Backend.ONNXRUNTIME).load(manifest, folder, {}).open_instance() as instance:
        warm_up(manifest, [instance], folder)
        warm_up(manifest.model_copy(update={"references": ()}), [instance], folder)
        given = {"x": np.array([[1, 2, 3, 4]], np.float32), **inputs}
        outputs = tuple(spec.name for spec in manifest.outputs)
        answers = on_host(instance.infer(given, profile=0, outputs=outputs))
    assert answers["mean"].item() == 2.5
    assert {answer.shape for answer in answers.values()} == {()}
    assert answers["string_out"].item() == b"text"


@pytest.mark.slow
def test_tensorrt_for_rtx_builds_a_model_with_scalars(
    prepare_model: PrepareModel, make_request: MakeRequest, work: Path, tmp_path: Path
) -> None:
    model = _save(tmp_path, ("FLOAT", "FLOAT16", "INT32", "INT64", "BOOL"))
    manifest = build(make_request(prepare_model(model, _PROFILE), Backend.TENSORRT_RTX), work, SilentReporter())
    assert {spec.shape for spec in (*manifest.inputs[1:], *manifest.outputs)} == {()}
