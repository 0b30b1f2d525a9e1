"""The rows about ONNX Runtime's CPU provider, held against ONNX Runtime itself."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from enginesmith_contract.backends import Precision
from enginesmith_contract.matrix.load import load_matrix

_FLOATS = {Precision.FP32: TensorProto.FLOAT, Precision.FP16: TensorProto.FLOAT16, Precision.BF16: TensorProto.BFLOAT16}
_QUANTISED = {Precision.INT8: TensorProto.INT8}


def _model(nodes: list[onnx.NodeProto], dtype: int, constants: list[onnx.TensorProto]) -> bytes:
    inputs = [helper.make_tensor_value_info("a", dtype, [2, 4]), helper.make_tensor_value_info("b", dtype, [4, 3])]
    outputs = [helper.make_tensor_value_info("out", dtype, [2, 3])]
    graph = helper.make_graph(nodes, "one", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())


def _matmul(precision: Precision) -> bytes:
    """Return a MatMul in this precision: typed so, or between Q/DQ pairs as the preparation inserts them."""
    if precision in _FLOATS:
        return _model([helper.make_node("MatMul", ["a", "b"], ["out"])], _FLOATS[precision], [])
    constants = [
        helper.make_tensor("scale", TensorProto.FLOAT, [], [0.1]),
        helper.make_tensor("zero", _QUANTISED[precision], [], [0]),
    ]
    nodes = [
        node
        for name in ("a", "b")
        for node in (
            helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}_quantised"]),
            helper.make_node("DequantizeLinear", [f"{name}_quantised", "scale", "zero"], [f"{name}_real"]),
        )
    ]
    return _model([*nodes, helper.make_node("MatMul", ["a_real", "b_real"], ["out"])], TensorProto.FLOAT, constants)


def _loads(model: bytes) -> bool:
    try:
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        return False
    return True


@pytest.mark.parametrize("precision", [*_FLOATS, *_QUANTISED])
def test_the_cpu_provider_runs_the_precisions_that_its_row_says(precision: Precision) -> None:
    row = next(row for row in load_matrix().provider_precisions if row.provider == "cpu")
    entry = next(entry for entry in row.precisions if entry.precision == precision)
    assert _loads(_matmul(precision)) is entry.runs


def test_fp8_is_refused_since_an_optimised_graph_loses_a_relu() -> None:
    row = next(row for row in load_matrix().provider_precisions if row.provider == "cpu")
    assert not next(entry for entry in row.precisions if entry.precision == Precision.FP8).runs
    constants = [
        helper.make_tensor("scale", TensorProto.FLOAT, [], [0.1]),
        helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], [0]),
    ]
    nodes = [
        helper.make_node("MatMul", ["a", "b"], ["product"]),
        helper.make_node("Relu", ["product"], ["positive"]),
        helper.make_node("QuantizeLinear", ["positive", "scale", "zero"], ["quantised"]),
        helper.make_node("DequantizeLinear", ["quantised", "scale", "zero"], ["out"]),
    ]
    model = _model(nodes, TensorProto.FLOAT, constants)
    feed = {"a": -np.ones((2, 4), np.float32), "b": np.ones((4, 3), np.float32)}
    levels = onnxruntime.GraphOptimizationLevel
    answers = {}
    for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_EXTENDED):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        answers[level] = onnxruntime.InferenceSession(model, options).run(None, feed)[0]
    assert np.all(answers[levels.ORT_DISABLE_ALL] == 0)
    assert np.all(answers[levels.ORT_ENABLE_EXTENDED] < 0)
