"""Sums of 8-bit products that do not fit 16 bits, where x86 CPUs without VNNI cut them off.

On a CPU with VNNI these tests pass without the option as well.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from enginesmith_runtime.engines.onnxruntime.options import session_options
from enginesmith_runtime.onnx_graphs.integer_kernels import has_integer_kernels
from enginesmith_runtime.prepare.runs.reference_runs import exact_options

_CHANNELS = 32


def _convolution() -> onnx.ModelProto:
    """Return a QLinearConv whose largest sum is 255 * 127 * 32, with the result in steps of its scale."""
    arrays = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "w": np.full((4, _CHANNELS, 1, 1), 127, np.int8),
        "none": np.int8(0),
        "step": np.float32(4081),
    }
    nodes = [
        helper.make_node("QLinearConv", ["x", "one", "zero", "w", "one", "none", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sums",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, _CHANNELS, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("use", ["reference", "engine", "stored engine"])
def test_large_sums_of_8_bit_products_are_exact(use: str, tmp_path: Path) -> None:
    model = _convolution()
    assert has_integer_kernels(model)
    file = tmp_path / "model.onnx"
    onnx.save(model, file)
    options = exact_options(has_integers=True) if use == "reference" else session_options(ort, {})
    if use == "stored engine":
        writing = ort.SessionOptions()
        writing.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        file = tmp_path / "engine.onnx"
        writing.optimized_model_filepath = str(file)
        ort.InferenceSession(model.SerializeToString(), writing, providers=["CPUExecutionProvider"])
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    x = np.full((1, _CHANNELS, 8, 8), 255, np.uint8)
    (y,) = session.run(None, {"x": x})
    want = round(255 * 127 * _CHANNELS / 4081)
    assert np.array_equal(y, np.full((1, 4, 8, 8), want, np.float32))
