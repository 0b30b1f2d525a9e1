"""What FP16 cannot hold stays in FP32: the cast model answers rightly, emulated and in onnx's own evaluator."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.prepare.half_cases import Case, Make, assert_same_meaning, f, scalar

F, I64 = TensorProto.FLOAT, TensorProto.INT64
node = helper.make_node


def constant(name: str, **value: Any) -> onnx.NodeProto:
    return node("Constant", [], [name], **value)


def axes(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)


ZEROS = {"x": np.zeros((1, 8), np.float32)}
SMALL = {"x": np.full((1, 8), 1e-4, np.float32) * np.arange(8, dtype=np.float32)}
LARGE = {"x": np.full((1, 64), 100, np.float32)}
IDS = {"x": f(4097, 4096, 1, 2)[None]}
CAST_E = node("Cast", ["e"], ["y"], to=F)
EPS = {"eps": scalar(1e-12)}


def _normalise(*before_division: onnx.NodeProto) -> list[onnx.NodeProto]:
    return [
        node("Mul", ["x", "x"], ["s"]),
        node("ReduceSum", ["s", "ax"], ["t"], keepdims=1),
        *before_division,
        node("Div", ["x", "d"], ["y"]),
    ]


def _layer_norm(square: onnx.NodeProto) -> list[onnx.NodeProto]:
    return [
        node("ReduceMean", ["x"], ["m"], axes=[1]),
        node("Sub", ["x", "m"], ["c"]),
        square,
        node("ReduceMean", ["q"], ["v"], axes=[1]),
        node("Add", ["v", "eps"], ["w"]),
        node("Sqrt", ["w"], ["r"]),
        node("Div", ["c", "r"], ["y"]),
    ]


def _branch(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), name, [], [helper.make_tensor_value_info(nodes[-1].output[0], F, None)])


AX = {"ax": axes(1)}
CASES = {
    # Epsilons that become 0.
    "eps by Clip": Case(
        [node("ReduceL2", ["x"], ["n"], axes=[1]), node("Clip", ["n", "eps"], ["c"]), node("Div", ["x", "c"], ["y"])],
        ZEROS, EPS,
    ),
    "eps by Clip's attribute": Case(
        [
            node("ReduceL2", ["x"], ["n"], axes=[1]), node("Clip", ["n"], ["c"], min=1e-12),
            node("Div", ["x", "c"], ["y"]),
        ],
        ZEROS, opset=10,
    ),
    "eps by Max": Case(
        [node("ReduceL1", ["x"], ["n"], axes=[1]), node("Max", ["n", "eps"], ["c"]), node("Div", ["x", "c"], ["y"])],
        ZEROS, {"eps": scalar(1e-9)},
    ),
    "eps by Where": Case(
        [
            node("ReduceL1", ["x"], ["n"], axes=[1]), node("Greater", ["n", "zero"], ["g"]),
            node("Where", ["g", "n", "eps"], ["c"]), node("Div", ["x", "c"], ["y"]),
        ],
        ZEROS, {**EPS, "zero": scalar(0)},
    ),
    "eps before Sqrt": Case(
        _normalise(node("Add", ["t", "eps"], ["u"]), node("Sqrt", ["u"], ["d"])), ZEROS, {**AX, **EPS},
    ),
    "eps before Sqrt, small values": Case(
        _normalise(node("Add", ["t", "eps"], ["u"]), node("Sqrt", ["u"], ["d"])), SMALL, {**AX, **EPS},
    ),
    "eps after Sqrt": Case(
        _normalise(node("Sqrt", ["t"], ["u"]), node("Add", ["eps", "u"], ["d"])), ZEROS, {**AX, **EPS}, 13,
    ),
    "eps as a Constant node": Case(
        [*_normalise(constant("eps", value_float=1e-12), node("Add", ["t", "eps"], ["u"]), node("Sqrt", ["u"], ["d"]))],
        ZEROS, AX,
    ),
    "eps as FP64 cast down": Case(
        _normalise(
            constant("e64", value=numpy_helper.from_array(np.array(1e-12))), node("Cast", ["e64"], ["eps"], to=F),
            node("Add", ["t", "eps"], ["u"]), node("Sqrt", ["u"], ["d"]),
        ),
        ZEROS, AX,
    ),
    "eps expanded": Case(
        _normalise(
            node("Shape", ["t"], ["sh"]), node("Expand", ["eps", "sh"], ["e"]), node("Max", ["t", "e"], ["u"]),
            node("Sqrt", ["u"], ["d"]),
        ),
        ZEROS, {**AX, **EPS}, 21,
    ),
    "eps moved after it was added": Case(
        _normalise(
            node("Add", ["t", "eps"], ["u"]), node("Transpose", ["u"], ["v"]), node("Transpose", ["v"], ["w"]),
            node("Sqrt", ["w"], ["d"]),
        ),
        ZEROS, {**AX, **EPS},
    ),
    "eps before Reciprocal": Case(
        [
            *_normalise()[:2], node("Add", ["t", "eps"], ["u"]), node("Sqrt", ["u"], ["v"]),
            node("Reciprocal", ["v"], ["d"]), node("Mul", ["x", "d"], ["y"]),
        ],
        SMALL, {**AX, **EPS},
    ),
    "eps before Pow(-0.5)": Case(
        [
            *_normalise()[:2], node("Add", ["t", "eps"], ["u"]), node("Pow", ["u", "h"], ["d"]),
            node("Mul", ["x", "d"], ["y"]),
        ],
        SMALL, {**AX, **EPS, "h": scalar(-0.5)},
    ),
    "eps before Log": Case([node("Add", ["x", "eps"], ["a"]), node("Log", ["a"], ["y"])], ZEROS, EPS),
    "log of a Softmax": Case(
        [node("Softmax", ["x"], ["p"]), node("Add", ["p", "eps"], ["a"]), node("Log", ["a"], ["y"])],
        {"x": f(0, 5, 20, 1)[None]}, EPS,
    ),
    "log of a Softmax without eps": Case(
        [node("Softmax", ["x"], ["p"]), node("Log", ["p"], ["y"])], {"x": f(0, 5, 25, 1)[None]},
    ),
    "logit": Case(
        [
            node("Sigmoid", ["x"], ["p"]), node("Clip", ["p", "low", "high"], ["c"]), node("Sub", ["one", "c"], ["q"]),
            node("Div", ["c", "q"], ["o"]), node("Log", ["o"], ["y"]),
        ],
        {"x": f(-12, 12, 9, 0)[None]}, {"low": scalar(1e-6), "high": scalar(1 - 1e-6), "one": scalar(1)},
    ),
    "one over one minus": Case(
        [node("Min", ["x", "high"], ["c"]), node("Sub", ["one", "c"], ["q"]), node("Mul", ["q", "big"], ["y"])],
        {"x": f(0.5, 2)[None]}, {"high": scalar(0.9999), "one": scalar(1), "big": scalar(1e4)},
    ),
    "LayerNormalization's epsilon": Case(
        [node("LayerNormalization", ["x", "g"], ["y"], epsilon=1e-12)], ZEROS, {"g": np.ones(8, np.float32)},
    ),
    "InstanceNormalization's epsilon": Case(
        [node("InstanceNormalization", ["x", "g", "b"], ["y"], epsilon=1e-12)],
        {"x": np.zeros((1, 2, 4), np.float32)}, {"g": f(1, 1), "b": f(0, 0)},
    ),
    "BatchNormalization's epsilon and variance": Case(
        [node("BatchNormalization", ["x", "g", "b", "b", "v"], ["y"], epsilon=1e-9)],
        {"x": np.full((1, 2, 4), 1e-4, np.float32)}, {"g": f(1, 1), "b": f(0, 0), "v": f(1, 1e-8)},
    ),
    "a factor that becomes 0": Case([node("Mul", ["x", "k"], ["y"])], LARGE, {"k": scalar(1e-9)}),
    "a factor that becomes 0, and its inverse": Case(
        [node("Mul", ["x", "k"], ["a"]), node("Relu", ["a"], ["r"]), node("Div", ["r", "k"], ["y"])],
        LARGE, {"k": scalar(1e-9)},
    ),
    "a divisor that becomes infinite": Case(
        [node("Div", ["x", "k"], ["a"]), node("Mul", ["a", "k"], ["y"])], LARGE, {"k": scalar(1e6)},
    ),
    # Squares, exponentials, sums.
    "L2 norm of large values": Case([*_normalise()[:2], node("Sqrt", ["t"], ["y"])], LARGE, AX),
    "L2 norm of small values": Case([*_normalise()[:2], node("Sqrt", ["t"], ["y"])], SMALL, AX),
    "LayerNorm by Pow": Case(
        _layer_norm(node("Pow", ["c", "two"], ["q"])),
        {"x": f(900, -900, 800, 10)[None]}, {"two": scalar(2), "eps": scalar(1e-5)},
    ),
    "LayerNorm by Mul, opset 11": Case(
        _layer_norm(node("Mul", ["c", "c"], ["q"])), {"x": f(900, -900, 800, 10)[None]}, {"eps": scalar(1e-5)}, 11,
    ),
    "ReduceSumSquare": Case(
        [node("ReduceSumSquare", ["x"], ["t"], axes=[1]), node("Sqrt", ["t"], ["y"])], LARGE,
    ),
    "a sum of squares by MatMul": Case(
        [node("Mul", ["x", "x"], ["s"]), node("MatMul", ["s", "ones"], ["t"]), node("Sqrt", ["t"], ["y"])],
        LARGE, {"ones": np.ones((64, 1), np.float32)},
    ),
    "a Gram matrix": Case(
        [node("Transpose", ["x"], ["t"]), node("MatMul", ["x", "t"], ["g"]), node("Sqrt", ["g"], ["y"])], LARGE,
    ),
    "a large weight that becomes 0": Case(
        [node("MatMul", ["x", "w"], ["a"]), node("Mul", ["a", "k"], ["y"])],
        {"x": np.ones((1, 300), np.float32)}, {"w": np.full((300, 300), 1e-8, np.float32), "k": scalar(1e6)},
    ),
    "Pow(3)": Case(
        [node("Pow", ["x", "three"], ["c"]), node("Mul", ["c", "k"], ["d"]), node("Tanh", ["d"], ["y"])],
        LARGE, {"three": scalar(3), "k": scalar(1e-6)},
    ),
    "Softmax by hand": Case(
        [node("Exp", ["x"], ["e"]), node("ReduceSum", ["e", "ax"], ["t"], keepdims=1), node("Div", ["e", "t"], ["y"])],
        {"x": f(20, 19, 0, -3)[None]}, AX,
    ),
    "a log-sum-exp": Case([node("ReduceLogSumExp", ["x"], ["y"], axes=[1])], {"x": f(20, 19, 0, -3)[None]}),
    "a sum of 200,000": Case(
        [node("ReduceSum", ["x", "ax"], ["t"], keepdims=1), node("Div", ["t", "n"], ["y"])],
        {"x": np.full((1, 200_000), 0.75, np.float32)}, {**AX, "n": scalar(200_000)},
    ),
    "a mean of a million": Case(
        [node("ReduceMean", ["x"], ["y"], axes=[1])], {"x": np.full((1, 1_000_000), 0.75, np.float32)}, fixed=True,
    ),
    "a large mask": Case(
        [node("Where", ["c", "x", "m"], ["w"]), node("Softmax", ["w"], ["y"])],
        {"x": f(1, 2, 3)[None], "c": np.zeros((1, 3), bool)}, {"m": scalar(-1e9)},
    ),
    "a mask by Mul and Add": Case(
        [
            node("Cast", ["i"], ["k"], to=F), node("Sub", ["one", "k"], ["o"]), node("Mul", ["o", "m"], ["a"]),
            node("Add", ["x", "a"], ["s"]), node("Softmax", ["s"], ["y"]),
        ],
        {"x": f(1, 2, 3)[None], "i": np.zeros((1, 3), np.int64)}, {"m": scalar(-1e9), "one": scalar(1)},
    ),
    # Integers above 2048.
    "Equal with a sentinel": Case([node("Equal", ["x", "v"], ["e"]), CAST_E], IDS, {"v": scalar(4097)}),
    "Equal with a Constant node": Case(
        [constant("v", value_float=4097.0), node("Equal", ["x", "v"], ["e"]), CAST_E], IDS,
    ),
    "Equal with another input": Case(
        [node("Equal", ["x", "z"], ["e"]), CAST_E], {**IDS, "z": f(4096, 4096, 1, 2)[None]},
    ),
    "Less after moves": Case(
        [
            node("Transpose", ["x"], ["a"]), node("Unsqueeze", ["a", "ax"], ["b"]), node("Add", ["b", "one"], ["c"]),
            node("Less", ["c", "v"], ["e"]), CAST_E,
        ],
        IDS, {**AX, "one": scalar(1), "v": scalar(4098)},
    ),
    "identifiers that index": Case(
        [node("Add", ["x", "one"], ["a"]), node("Cast", ["a"], ["i"], to=I64), node("Gather", ["w", "i"], ["y"])],
        {"x": f(4097, 3001)}, {"one": scalar(1), "w": np.arange(5000, dtype=np.float32) % 7},
    ),
    "positions by Range": Case(
        [
            node("Range", ["zero", "n", "one"], ["r"]), node("Mul", ["r", "one"], ["a"]),
            node("Greater", ["a", "v"], ["e"]), node("Cast", ["e"], ["g"], to=F), node("Mul", ["g", "x"], ["y"]),
        ],
        {"x": np.ones(5000, np.float32)}, {"zero": scalar(0), "n": scalar(5000), "one": scalar(1), "v": scalar(4096)},
    ),
    "positions by CumSum": Case(
        [node("CumSum", ["x", "ax0"], ["c"]), node("Mod", ["c", "m"], ["y"], fmod=1)],
        {"x": np.ones(5000, np.float32)}, {"ax0": np.array(0, np.int64), "m": scalar(10)},
    ),
    "Floor of a large number": Case(
        [node("Div", ["x", "two"], ["a"]), node("Floor", ["a"], ["b"]), node("Mul", ["b", "two"], ["c"]),
         node("Sub", ["x", "c"], ["y"])],
        {"x": f(4097, 4096, 3001)[None]}, {"two": scalar(2)},
    ),
    "ArgMax of positions": Case([node("ArgMax", ["x"], ["i"], axis=1), node("Cast", ["i"], ["y"], to=F)],
                                {"x": f(4096, 4097, 1)[None]}),
    "integers that become floats": Case(
        [node("Cast", ["i"], ["a"], to=F), node("Sub", ["a", "m"], ["b"]), node("Relu", ["b"], ["y"])],
        {"i": np.array([[100_001, 4097]], np.int64)}, {"m": scalar(4096)},
    ),
    "angles of positions": Case(
        [node("Cast", ["i"], ["a"], to=F), node("MatMul", ["a", "w"], ["b"]), node("Cos", ["b"], ["y"])],
        {"i": np.array([[4001], [3]], np.int64)}, {"w": f(1, 0.1)[None]},
    ),
    "angles of times": Case(
        [node("Mul", ["x", "w"], ["b"]), node("Sin", ["b"], ["y"])], {"x": f(999.3, 77)}, {"w": scalar(1)},
    ),
    "a Softmax over large inputs": Case([node("Softmax", ["x"], ["y"])], {"x": f(1e5, 1e5 - 1, 3)[None]}),
    "a Softmax over logits at a low temperature": Case(
        [node("MatMul", ["x", "w"], ["a"]), node("Mul", ["a", "k"], ["b"]), node("Softmax", ["b"], ["y"])],
        {"x": f(99.9, 3)[None]}, {"w": np.eye(2, dtype=np.float32), "k": scalar(1000)},
    ),
    "large inputs that are normalised": Case(
        [node("Sub", ["x", "m"], ["a"]), node("Div", ["a", "s"], ["b"]), node("Tanh", ["b"], ["y"])],
        {"x": f(52000.5, 70000)[:, None]}, {"m": scalar(51234.7), "s": scalar(2000.5)},
    ),
    # Powers, sums and inverses by other operators.
    "Pow(1.9)": Case([node("Pow", ["x", "k"], ["y"])], {"x": f(1000)[None]}, {"k": scalar(1.9)}),
    "Pow(-2)": Case([node("Pow", ["x", "k"], ["y"])], {"x": f(300)[None]}, {"k": scalar(-2)}),
    "a sum by ReduceL1": Case([node("ReduceL1", ["x"], ["y"], axes=[1])], {"x": np.full((1, 2000), 99, np.float32)}),
    "a square of what is computed twice": Case(
        [node("Sub", ["x", "m"], ["b"]), node("Sub", ["x", "m"], ["c"]), node("Mul", ["b", "c"], ["y"])],
        {"x": f(300, 2)[None]}, {"m": scalar(0.5)},
    ),
    "an angle of a cosine": Case([node("Acos", ["x"], ["y"])], {"x": f(0.9999, 0.9998)[None]}),
    "Atanh near 1": Case([node("Atanh", ["x"], ["y"])], {"x": f(0.9999)[None]}),
    # Numbers that are compared or counted after other operators.
    "Floor behind LeakyRelu": Case(
        [node("LeakyRelu", ["x"], ["a"]), node("Floor", ["a"], ["y"])], {"x": f(4097, 70001)},
    ),
    "a mean that is compared": Case(
        [node("ReduceMean", ["x"], ["m"], axes=[1]), node("Greater", ["m", "v"], ["e"]), CAST_E],
        {"x": f(3001, 3001)[None]}, {"v": scalar(3000)},
    ),
    "a product that becomes an index": Case(
        [node("MatMul", ["x", "w"], ["a"]), node("Cast", ["a"], ["i"], to=I64), node("Cast", ["i"], ["y"], to=F)],
        {"x": f(64, 33)[None]}, {"w": f(64, 1)[:, None]},
    ),
    "a table of identifiers": Case(
        [node("Gather", ["w", "i"], ["a"]), node("Equal", ["a", "v"], ["e"]), CAST_E],
        {"i": np.array([4001, 4000])}, {"w": np.arange(5000, dtype=np.float32), "v": scalar(4000)},
    ),
    "differences of times": Case([node("Sub", ["x", "z"], ["y"])], {"x": f(100_001)[None], "z": f(100_000)[None]}),
    "an epsilon out of a branch": Case(
        [
            node("If", ["c"], ["e"], then_branch=_branch("then", constant("t", value_float=1e-12)),
                 else_branch=_branch("else", constant("u", value_float=1e-9))),
            node("ReduceL1", ["x"], ["n"], axes=[1]), node("Add", ["n", "e"], ["d"]), node("Div", ["x", "d"], ["y"]),
        ],
        {**ZEROS, "c": np.array(True)},
    ),
    "a sentinel in the output": Case(
        [node("Where", ["c", "x", "v"], ["w"]), node("Transpose", ["w"], ["y"])],
        {"x": f(1, 2)[None], "c": np.array([[True, False]])}, {"v": scalar(9999)},
    ),
    "identifiers that are handed on": Case([node("Transpose", ["x"], ["t"]), node("Identity", ["t"], ["y"])], IDS),
    "a comparison inside a branch": Case(
        [
            node("Add", ["x", "one"], ["a"]),
            node("If", ["c"], ["y"],
                 then_branch=_branch("then", constant("v", value_float=4098.0), node("Equal", ["a", "v"], ["q"]),
                                     node("Cast", ["q"], ["t"], to=F)),
                 else_branch=_branch("else", node("Neg", ["a"], ["u"]))),
        ],
        {**IDS, "c": np.array(True)}, {"one": scalar(1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_cast_model_means_what_the_source_means(make_model: Make, tmp_path: Path, name: str) -> None:
    assert assert_same_meaning(make_model, tmp_path, CASES[name]).warnings
