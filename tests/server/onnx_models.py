"""The models that the server's tests serve."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from enginesmith_contract.tensors import DType

_MATRIX = [256, 256]

DTYPES = {
    TensorProto.FLOAT: DType.FP32,
    TensorProto.FLOAT16: DType.FP16,
    TensorProto.DOUBLE: DType.FP64,
    TensorProto.BOOL: DType.BOOL,
    TensorProto.STRING: DType.BYTES,
    **{getattr(TensorProto, name): DType[name] for name in ("INT8", "INT16", "INT32", "INT64")},
    **{getattr(TensorProto, name): DType[name] for name in ("UINT8", "UINT16", "UINT32", "UINT64")},
}


def adder_model() -> onnx.ModelProto:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 4]) for name in ("a", "b")]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 4]) for name in ("sum", "difference")]
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    return _model(helper.make_graph(nodes, "adder", tensors, outputs))


def echo_model() -> onnx.ModelProto:
    nodes, inputs, outputs = [], [], []
    for onnx_type, dtype in DTYPES.items():
        name = dtype.value.lower()
        inputs.append(helper.make_tensor_value_info(name, onnx_type, [f"n_{name}"]))
        outputs.append(helper.make_tensor_value_info(f"out_{name}", onnx_type, [f"n_{name}"]))
        nodes.append(helper.make_node("Identity", [name], [f"out_{name}"]))
    return _model(helper.make_graph(nodes, "echo", inputs, outputs))


def integers_model() -> onnx.ModelProto:
    """Every datatype that travels in a wider field of typed contents, and BOOL."""
    nodes, inputs, outputs = [], [], []
    for name in ("INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "BOOL"):
        values = (name.lower(), getattr(TensorProto, name), [f"n_{name}"])
        inputs.append(helper.make_tensor_value_info(*values))
        outputs.append(helper.make_tensor_value_info(f"out_{values[0]}", *values[1:]))
        nodes.append(helper.make_node("Identity", [values[0]], [outputs[-1].name]))
    return _model(helper.make_graph(nodes, "integers", inputs, outputs))


def slow_model() -> onnx.ModelProto:
    body = _step()
    start = helper.make_tensor("start", TensorProto.FLOAT, _MATRIX, np.full(_MATRIX, 0.01, np.float32))
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    graph = helper.make_graph(
        [
            helper.make_node("Squeeze", ["steps"], ["count"]),
            helper.make_node("Loop", ["count", "yes", "start"], ["last"], body=body),
            helper.make_node("ReduceMean", ["last"], ["mean"], keepdims=0),
        ],
        "slow",
        [helper.make_tensor_value_info("steps", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, [])],
        initializer=[start, yes],
    )
    return _model(graph)


def patient_model() -> onnx.ModelProto:
    """Doubles each row after as many steps as the largest that any row asks for: rows change nothing but the time."""
    body = _step()
    start = helper.make_tensor("start", TensorProto.FLOAT, _MATRIX, np.zeros(_MATRIX, np.float32))
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["steps"], ["count"], keepdims=0),
            helper.make_node("Loop", ["count", "yes", "start"], ["last"], body=body),
            helper.make_node("ReduceMean", ["last"], ["nothing"], keepdims=0),
            helper.make_node("Add", ["x", "x"], ["twice"]),
            helper.make_node("Add", ["twice", "nothing"], ["doubled"]),
        ],
        "patient",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("steps", TensorProto.INT64, ["n"]),
        ],
        [helper.make_tensor_value_info("doubled", TensorProto.FLOAT, ["n", 4])],
        initializer=[start, yes],
    )
    return _model(graph)


def doubler_model() -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info("command", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("data", TensorProto.FLOAT, ["n"]),
    ]
    outputs = [helper.make_tensor_value_info("doubled", TensorProto.FLOAT, ["n"])]
    return _model(
        helper.make_graph([helper.make_node("Add", ["data", "data"], ["doubled"])], "doubler", inputs, outputs)
    )


def _step() -> onnx.GraphProto:
    """Return one step of a loop that takes a few hundred microseconds."""
    matrix = helper.make_tensor_value_info("matrix", TensorProto.FLOAT, _MATRIX)
    return helper.make_graph(
        [
            helper.make_node("MatMul", ["matrix", "matrix"], ["product"]),
            helper.make_node("Tanh", ["product"], ["next_matrix"]),
            helper.make_node("Identity", ["go_on"], ["go_on_still"]),
        ],
        "step",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            matrix,
        ],
        [
            helper.make_tensor_value_info("go_on_still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_matrix", TensorProto.FLOAT, _MATRIX),
        ],
    )


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
