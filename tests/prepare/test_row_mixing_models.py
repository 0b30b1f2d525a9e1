"""Networks as exporters write them are known to keep rows apart."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from enginesmith_runtime.prepare.model_file.row_mixing import find_mixing_nodes

node = helper.make_node
F = TensorProto.FLOAT
_HEADS, _WIDTH, _HIDDEN, _WORDS = 2, 4, 8, 30
Input = tuple[str, int, list[str | int]]


def _mixing(
    nodes: Sequence[onnx.NodeProto], inputs: Sequence[Input], weights: dict[str, list[int] | tuple[int, ...]]
) -> tuple[str, ...]:
    """Weights: integers as a list, the shape of floats as a tuple."""
    arrays = {
        name: np.zeros(one, np.float32) if isinstance(one, tuple) else np.array(one, np.int64)
        for name, one in weights.items()
    }
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info("y", F, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return find_mixing_nodes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), Path())


def test_a_perceptron_keeps_rows_apart() -> None:
    nodes = [node("Gemm", ["x", "w", "b"], ["h"], transB=1), node("Relu", ["h"], ["r"]),
             node("MatMul", ["r", "v"], ["o"]), node("Add", ["o", "c"], ["l"]),
             node("Softmax", ["l"], ["y"])]  # fmt: skip
    weights = {"w": (16, 8), "b": (16,), "v": (16, 3), "c": (3,)}
    assert _mixing(nodes, [("x", F, ["n", 8])], {**weights}) == ()


def test_a_residual_network_keeps_rows_apart() -> None:
    nodes = [
        node("Conv", ["x", "k0"], ["c0"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c0", "s", "s", "s", "s"], ["b0"]),
        node("Relu", ["b0"], ["r0"]),
        node("MaxPool", ["r0"], ["p0"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p0", "k1"], ["c1"], pads=[1, 1, 1, 1]),
        node("Add", ["c1", "p0"], ["sum"]),
        node("GlobalAveragePool", ["sum"], ["pool"]),
        node("Flatten", ["pool"], ["flat"]),
        node("Gemm", ["flat", "w", "b"], ["y"]),
    ]
    weights = {"k0": (8, 3, 3, 3), "k1": (8, 8, 3, 3), "s": (8,), "w": (8, 5), "b": (5,)}
    assert _mixing(nodes, [("x", F, ["n", 3, "h", "w"])], {**weights}) == ()


def _split(style: str, of: str, to: str) -> list[onnx.NodeProto]:
    """Return the nodes that cut [rows, tokens, hidden] into heads."""
    if style == "zeros":
        return [node("Reshape", [of, "zeros"], [to])]
    if style == "flat":
        return [node("Shape", [of], [f"{to}_s"]), node("Slice", [f"{to}_s", "zero", "two"], [f"{to}_b"]),
                node("Reshape", [of, "matrix"], [f"{to}_m"]), node("Relu", [f"{to}_m"], [f"{to}_r"]),
                node("Concat", [f"{to}_b", "heads"], [f"{to}_t"], axis=0),
                node("Reshape", [f"{to}_r", f"{to}_t"], [to])]  # fmt: skip
    return [node("Shape", [of], [f"{to}_s"]), node("Gather", [f"{to}_s", "scalar"], [f"{to}_g"]),
            node("Unsqueeze", [f"{to}_g", "zero"], [f"{to}_u"]),
            node("Concat", [f"{to}_u", "minus", "heads"], [f"{to}_t"], axis=0),
            node("Reshape", [of, f"{to}_t"], [to])]  # fmt: skip


@pytest.mark.parametrize("style", ["zeros", "flat", "shape"])
def test_a_transformer_keeps_rows_apart(style: str) -> None:
    nodes = [
        node("Gather", ["words", "ids"], ["e"]),
        node("LayerNormalization", ["e", "scale"], ["x0"]),
        *(node("MatMul", ["x0", f"w{one}"], [f"{one}0"]) for one in "qkv"),
        *(part for one in "qkv" for part in _split(style, f"{one}0", f"{one}1")),
        node("Transpose", ["q1"], ["q"], perm=[0, 2, 1, 3]),
        node("Transpose", ["k1"], ["k"], perm=[0, 2, 3, 1]),
        node("Transpose", ["v1"], ["v"], perm=[0, 2, 1, 3]),
        node("MatMul", ["q", "k"], ["qk"]),
        node("Unsqueeze", ["mask", "one_two"], ["m4"]),
        node("Shape", ["ids"], ["is"]),
        node("Slice", ["is", "zero", "one"], ["rows"]),
        node("Slice", ["is", "one", "two"], ["tokens"]),
        node("Concat", ["rows", "minus", "tokens", "tokens"], ["wanted"], axis=0),
        node("Equal", ["wanted", "minuses"], ["is_open"]),
        node("Shape", ["wanted"], ["rank"]),
        node("ConstantOfShape", ["rank"], ["ones"], value=numpy_helper.from_array(np.array([1], np.int64))),
        node("Where", ["is_open", "ones", "wanted"], ["to"]),
        node("Expand", ["m4", "to"], ["m"]),
        node("Add", ["qk", "m"], ["masked"]),
        node("Softmax", ["masked"], ["p"], axis=-1),
        node("MatMul", ["p", "v"], ["o"]),
        node("Transpose", ["o"], ["o1"], perm=[0, 2, 1, 3]),
        node("Reshape", ["o1", "joined"], ["o2"]),
        node("Add", ["o2", "x0"], ["x1"]),
        node("Gather", ["x1", "scalar"], ["first"], axis=1),
        node("Gemm", ["first", "w_out"], ["y"]),
    ]
    integers = {
        "zeros": [0, -1, _HEADS, _WIDTH], "matrix": [-1, _HIDDEN], "heads": [_HEADS, _WIDTH], "minus": [-1],
        "zero": [0], "one": [1], "two": [2], "one_two": [1, 2], "minuses": [-1] * 4, "joined": [0, -1, _HIDDEN],
    }  # fmt: skip
    floats = {"words": (_WORDS, _HIDDEN), "scale": (_HIDDEN,), "w_out": (_HIDDEN, 3)}
    floats |= {f"w{one}": (_HIDDEN, _HIDDEN) for one in "qkv"}
    nodes.insert(0, node("Constant", [], ["scalar"], value_int=0))
    inputs: list[Input] = [("ids", TensorProto.INT64, ["n", "t"]), ("mask", F, ["n", "t"])]
    assert _mixing(nodes, inputs, {**integers, **floats}) == ()


def test_a_function_is_seen_through() -> None:
    body = [node("ReduceMax", ["a"], ["b"], keepdims=0)]
    function = helper.make_function("own", "Most", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    graph = helper.make_graph(
        [node("Most", ["x"], ["m"], domain="own"), node("Add", ["x", "m"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", F, ["n", 4])],
        [helper.make_tensor_value_info("y", F, None)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    (found,) = find_mixing_nodes(helper.make_model(graph, functions=[function], opset_imports=opsets), Path())
    assert "(ReduceMax) works across rows" in found
