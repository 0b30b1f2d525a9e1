"""What FP16 cannot hold stays in FP32 in a model without layers, and between two layers with weights as well."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.prepare.half_cases import Case, Make, assert_same_meaning, cast_case, scalar

F = TensorProto.FLOAT
WIDTH = 128
node = helper.make_node
Array = np.ndarray[Any, Any]
_RANDOM = np.random.default_rng(3)
BASE: Array = _RANDOM.standard_normal((2, WIDTH)).astype(np.float32)
# A layer that only turns its input, so that a test can say what comes out of it.
TURN: Array = np.linalg.qr(_RANDOM.standard_normal((WIDTH, WIDTH)))[0].astype(np.float32)
LAST: Array = _RANDOM.standard_normal((WIDTH, 32)).astype(np.float32) / 12


class Trap(NamedTuple):
    """Nodes from `x` [2, 128] to `y`, and the values of x that show what FP16 makes of them."""

    nodes: list[onnx.NodeProto]
    x: Array
    weights: Mapping[str, Array]


def _trap(*nodes: onnx.NodeProto, x: Array, **weights: float | list[int] | Array) -> Trap:
    """Return a trap; floats are FP32 scalars, integers and lists are axes or shapes."""
    arrays = {
        key: np.array(value, np.int64) if isinstance(value, list | int) else np.asarray(value, np.float32)
        for key, value in weights.items()
    }
    return Trap(list(nodes), x.astype(np.float32), arrays)


ZEROS = np.zeros((2, WIDTH))
LARGE = 1000 * np.abs(BASE)
ALIKE = np.full((2, WIDTH), 900.0)
SMALL = 1e-4 * BASE
DIVIDE = node("Div", ["x", "t"], ["y"])
EPS = [node("Add", ["x", "e"], ["t"]), DIVIDE]
ROOT = [node("ReduceMean", ["q"], ["m"], axes=[1]), node("Sqrt", ["m"], ["t"]), DIVIDE]
SHARE = [node("ReduceMax", ["g"], ["t"]), DIVIDE]
COLUMN = [node("Unsqueeze", ["s", "ax"], ["t"]), DIVIDE]


def _total(*nodes: onnx.NodeProto) -> list[onnx.NodeProto]:
    return [node("ReduceSum", ["x", "ax"], ["s"], keepdims=1), *nodes]


TRAPS = {
    # Epsilons that nodes compute.
    "an epsilon that is a product": _trap(
        node("Mul", ["a", "b"], ["p"]), node("Shape", ["x"], ["sh"]), node("Expand", ["p", "sh"], ["e"]),
        node("Add", ["x", "e"], ["t"]), node("Log", ["t"], ["y"]), x=ZEROS, a=1e-4, b=1e-5,
    ),
    "an epsilon that is a power": _trap(node("Pow", ["a", "b"], ["e"]), *EPS, x=ZEROS, a=10.0, b=-9.0),
    "an epsilon that is an exponential": _trap(node("Exp", ["a"], ["e"]), *EPS, x=ZEROS, a=-23.0),
    "an epsilon that is a difference": _trap(node("Sub", ["a", "b"], ["e"]), *EPS, x=ZEROS, a=1.0000001, b=1.0),
    "an epsilon out of Range": _trap(
        node("Range", ["zero", "b", "a"], ["r"]), node("ReduceMax", ["r"], ["e"], keepdims=0), *EPS,
        x=ZEROS, zero=0.0, a=3e-10, b=1e-9,
    ),
    "an epsilon of ConstantOfShape": _trap(
        node("Shape", ["x"], ["sh"]),
        node("ConstantOfShape", ["sh"], ["e"], value=numpy_helper.from_array(np.array([1e-10], np.float32))),
        node("Add", ["x", "e"], ["t"]), node("Log", ["t"], ["y"]), x=ZEROS,
    ),
    "an epsilon that is moved": _trap(
        node("Identity", ["a"], ["b"]), node("Reshape", ["b", "ax"], ["c"]), node("Concat", ["c", "c"], ["d"], axis=0),
        node("ReduceMax", ["d"], ["e"], keepdims=0), node("Max", ["x", "e"], ["t"]), DIVIDE, x=ZEROS, a=1e-10, ax=[1],
    ),
    "an epsilon of Where": _trap(
        node("Equal", ["x", "zero"], ["c"]), node("Where", ["c", "e", "x"], ["t"]), DIVIDE, x=ZEROS, zero=0.0, e=1e-9,
    ),
    # Squares and powers.
    "a square by Einsum": _trap(
        node("Einsum", ["x", "x"], ["q"], equation="ni,ni->n"), node("Sqrt", ["q"], ["s"]), *COLUMN, x=LARGE, ax=[1],
    ),
    "an outer square by Einsum": _trap(
        node("Einsum", ["x", "x"], ["q"], equation="ni,nj->ij"),
        node("Einsum", ["x", "q"], ["r"], equation="ni,ij->nj"),
        node("ReduceMax", ["q"], ["m"], keepdims=0), node("Div", ["r", "m"], ["y"]), x=LARGE,
    ),
    "a Gram matrix by MatMul": _trap(
        node("Transpose", ["x"], ["v"]), node("MatMul", ["x", "v"], ["g"]), *SHARE, x=LARGE,
    ),
    "a Gram matrix by Gemm": _trap(node("Gemm", ["x", "x"], ["g"], transB=1), *SHARE, x=LARGE),
    "a square that is scaled": _trap(
        node("Mul", ["x", "h"], ["a"]), node("Mul", ["a", "x"], ["q"]), *ROOT, x=LARGE, h=0.5,
    ),
    "a square of a negative": _trap(
        node("Neg", ["x"], ["a"]), node("Mul", ["a", "x"], ["b"]), node("Neg", ["b"], ["q"]), *ROOT, x=LARGE,
    ),
    "a square behind Relu": _trap(node("Relu", ["x"], ["a"]), node("Mul", ["a", "x"], ["q"]), *ROOT, x=LARGE),
    "a square behind a gate": _trap(
        node("Sigmoid", ["x"], ["g"]), node("Mul", ["g", "x"], ["a"]), node("Mul", ["a", "x"], ["q"]), *ROOT, x=LARGE,
    ),
    "a cube by Mul": _trap(
        node("Mul", ["x", "x"], ["q"]), node("Mul", ["q", "x"], ["c"]), node("Mul", ["c", "k"], ["d"]),
        node("Add", ["x", "d"], ["y"]), x=100 * BASE, k=1e-6,
    ),
    "a mean of squares by AveragePool": _trap(
        node("Mul", ["x", "x"], ["q"]), node("Unsqueeze", ["q", "ax"], ["u"]),
        node("AveragePool", ["u"], ["g"], kernel_shape=[WIDTH]), node("Sqrt", ["g"], ["h"]),
        node("Squeeze", ["h", "ax"], ["t"]), DIVIDE, x=300 * BASE, ax=[1],
    ),
    "a variance by two means": _trap(
        node("Mul", ["x", "x"], ["q"]), node("ReduceMean", ["q"], ["e2"], axes=[1]),
        node("ReduceMean", ["x"], ["m"], axes=[1]), node("Mul", ["m", "m"], ["mm"]), node("Sub", ["e2", "mm"], ["v"]),
        node("Add", ["v", "e"], ["w"]), node("Sqrt", ["w"], ["t"]), node("Sub", ["x", "m"], ["c"]),
        node("Div", ["c", "t"], ["y"]), x=5 + BASE, e=1e-5,
    ),
    "a LayerNorm of large values": _trap(
        node("ReduceMean", ["x"], ["m"], axes=[1]), node("Sub", ["x", "m"], ["c"]), node("Mul", ["c", "c"], ["q"]),
        node("ReduceMean", ["q"], ["v"], axes=[1]), node("Add", ["v", "e"], ["w"]), node("Sqrt", ["w"], ["t"]),
        node("Div", ["c", "t"], ["y"]), x=LARGE, e=1e-12,
    ),
    "an RMSNorm of small values": _trap(
        node("Pow", ["x", "two"], ["q"]), node("ReduceMean", ["q"], ["v"], axes=[1]), node("Add", ["v", "e"], ["w"]),
        node("Sqrt", ["w"], ["r"]), node("Reciprocal", ["r"], ["i"]), node("Mul", ["x", "i"], ["y"]),
        x=SMALL, two=2.0, e=1e-9,
    ),
    "a product of products": _trap(
        node("Elu", ["x"], ["a"]), node("Add", ["a", "one"], ["q"]), node("Transpose", ["q"], ["k"]),
        node("MatMul", ["k", "x"], ["kv"]), node("MatMul", ["q", "kv"], ["o"]),
        node("ReduceSum", ["q", "ax"], ["t"], keepdims=1), node("Div", ["o", "t"], ["y"]), x=30 * BASE, one=1.0, ax=[1],
    ),
    # Sums.
    "a sum that divides": _trap(*_total(node("Div", ["x", "s"], ["y"])), x=ALIKE, ax=[1]),
    "a sum that divides behind Clip": _trap(*_total(node("Clip", ["s", "e"], ["t"]), DIVIDE), x=ALIKE, ax=[1], e=1e-6),
    "an L1 norm that divides": _trap(
        node("ReduceL1", ["x"], ["s"], axes=[1]), node("Max", ["s", "e"], ["t"]), DIVIDE, x=ALIKE, e=1e-12,
    ),
    "a sum in two steps": _trap(
        node("Reshape", ["x", "g"], ["r"]), node("ReduceSum", ["r", "two"], ["a"], keepdims=0),
        node("ReduceSum", ["a", "ax"], ["t"], keepdims=1), DIVIDE, x=ALIKE, g=[0, 2, 64], two=[2], ax=[1],
    ),
    "a sum by a matrix of ones": _trap(node("MatMul", ["x", "w"], ["t"]), DIVIDE, x=ALIKE, w=np.ones((WIDTH, 1))),
    "a sum by a window of ones": _trap(
        node("Unsqueeze", ["x", "ax"], ["u"]), node("Conv", ["u", "w"], ["g"]), node("Squeeze", ["g", "ax"], ["t"]),
        DIVIDE, x=ALIKE, ax=[1], w=np.ones((1, 1, WIDTH)),
    ),
    "a sum by Einsum": _trap(node("Einsum", ["x"], ["s"], equation="ni->n"), *COLUMN, x=ALIKE, ax=[1]),
    "a mean times its count": _trap(
        node("ReduceMean", ["x"], ["m"], axes=[1]), node("Mul", ["m", "k"], ["t"]), DIVIDE, x=ALIKE, k=float(WIDTH),
    ),
    "a value that is added to itself": _trap(
        node("Sum", ["x"] * 8, ["a"]), node("Sum", ["a"] * 8, ["t"]), DIVIDE, x=2 * ALIKE,
    ),
    "a running sum": _trap(
        node("CumSum", ["x", "one"], ["g"]), node("ReduceMax", ["g"], ["t"], axes=[1]), DIVIDE,
        x=ALIKE, one=1,
    ),
    # Factors, shifts, quotients.
    "two factors": _trap(
        node("Mul", ["x", "k"], ["a"]), node("Mul", ["a", "k"], ["b"]), node("Div", ["b", "k"], ["c"]),
        node("Div", ["c", "k"], ["y"]), x=3 + BASE, k=200.0,
    ),
    "two small factors": _trap(
        node("Mul", ["x", "k"], ["a"]), node("Mul", ["a", "k"], ["b"]), node("Div", ["b", "k"], ["c"]),
        node("Div", ["c", "k"], ["y"]), x=3 + BASE, k=1e-4,
    ),
    "a shift that is taken back": _trap(
        node("Add", ["x", "k"], ["a"]), node("Relu", ["a"], ["b"]), node("Sub", ["b", "k"], ["y"]), x=BASE, k=4096.0,
    ),
    "a small quotient": _trap(
        node("Reciprocal", ["x"], ["r"]), node("Mul", ["r", "k"], ["y"]), x=np.full((2, WIDTH), 1e-5), k=1e-4,
    ),
    "one minus Sigmoid, enlarged": _trap(
        node("Sigmoid", ["x"], ["p"]), node("Sub", ["one", "p"], ["d"]), node("Mul", ["d", "k"], ["y"]),
        x=8 + 0 * BASE, one=1.0, k=1000.0,
    ),
    "a logarithm of one and a small value": _trap(
        node("Add", ["x", "one"], ["a"]), node("Log", ["a"], ["y"]), x=1e-3 * np.abs(BASE) + 1e-4, one=1.0,
    ),
    "an entropy": _trap(
        node("Softmax", ["x"], ["p"]), node("Add", ["p", "e"], ["a"]), node("Log", ["a"], ["l"]),
        node("Mul", ["p", "l"], ["m"]), node("ReduceMean", ["m"], ["y"], axes=[1]), x=3 * BASE, e=1e-10,
    ),
    "a Softmax by hand": _trap(
        node("Exp", ["x"], ["e"]), node("ReduceSum", ["e", "ax"], ["t"], keepdims=1), node("Div", ["e", "t"], ["y"]),
        x=6 * BASE, ax=[1],
    ),
    "a geometric mean": _trap(
        node("Add", ["x", "e"], ["a"]), node("Log", ["a"], ["l"]), node("ReduceMean", ["l"], ["m"], axes=[1]),
        node("Exp", ["m"], ["t"]), DIVIDE, x=np.abs(BASE), e=1e-8,
    ),
    "weights that are normalised": _trap(
        node("ReduceL2", ["w"], ["n"], axes=[0]), node("Div", ["w", "n"], ["d"]), node("MatMul", ["x", "d"], ["y"]),
        x=BASE, w=np.float32(1e-6) * TURN,
    ),
}  # fmt: skip


# The layer that reads such a result stays in FP32.
MAY_BE_LARGE = {
    "a cube by Mul", "a small quotient", "one minus Sigmoid, enlarged", "two factors", "two small factors",
}  # fmt: skip


@pytest.mark.parametrize("name", TRAPS)
def test_a_model_without_layers_means_what_it_meant(make_model: Make, tmp_path: Path, name: str) -> None:
    trap = TRAPS[name]
    assert assert_same_meaning(make_model, tmp_path, Case(trap.nodes, {"x": trap.x}, trap.weights)).kept


@pytest.mark.parametrize("name", TRAPS)
def test_what_lies_between_two_layers_means_what_it_meant(make_model: Make, tmp_path: Path, name: str) -> None:
    result = assert_same_meaning(make_model, tmp_path, _between(TRAPS[name]), 2e-2)
    assert {"first", "last"} & set(result.kept) == ({"last"} if name in MAY_BE_LARGE else set())


def _between(trap: Trap) -> Case:
    nodes = [node("MatMul", ["input", "turn"], ["x"], name="first"), *trap.nodes]
    nodes += [node("Reshape", ["y", "rows"], ["flat"]), node("Mul", ["flat", "ones"], ["wide"])]
    nodes += [node("MatMul", ["wide", "back"], ["z"], name="last")]
    renamed = [onnx.NodeProto.FromString(each.SerializeToString()) for each in nodes]
    for each in renamed:
        names = {"y": "inner", "z": "y"}
        each.input[:] = [names.get(name, name) for name in each.input]
        each.output[:] = [names.get(name, name) for name in each.output]
    more = {"turn": TURN, "back": LAST, "ones": np.ones((1, WIDTH), np.float32), "rows": np.array([2, -1])}
    before = (trap.x.astype(np.float64) @ TURN.T.astype(np.float64)).astype(np.float32)
    return Case(renamed, {"input": before}, {**trap.weights, **more})


def test_positions_that_are_sampled_stay_in_fp32(make_model: Make, tmp_path: Path) -> None:
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 8), np.linspace(-1, 1, 8)), -1)[None].astype(np.float32)
    nodes = [
        node("MatMul", ["x", "turn"], ["a"], name="first"),
        node("Reshape", ["a", "image"], ["i"]),
        node("Add", ["grid", "half"], ["g"], name="shift"),
        node("GridSample", ["i", "g"], ["s"], name="sample"),
        node("Reshape", ["s", "row"], ["r"], name="between"),
        node("MatMul", ["r", "back"], ["y"], name="last"),
    ]
    weights = {
        "turn": TURN, "image": np.array([1, 1, 8, 16]), "half": scalar(0.5), "row": np.array([1, 64]),
        "back": np.concatenate([LAST[:64]] * 4, axis=1),
    }  # fmt: skip
    result = cast_case(make_model, tmp_path, Case(nodes, {"x": BASE[:1], "grid": grid}, weights))
    assert set(result.kept) == {"sample", "shift"}


def test_ordinary_features_compute_in_fp16(make_model: Make, tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "turn"], ["a"]), node("Add", ["a", "bias"], ["b"]), node("Sigmoid", ["b"], ["g"]),
        node("Mul", ["b", "g"], ["c"]), node("MatMul", ["c", "turn"], ["d"]), node("Add", ["d", "a"], ["e"]),
        node("LayerNormalization", ["e", "bias"], ["n"]), node("Gelu", ["n"], ["o"]),
        node("MatMul", ["o", "turn"], ["p"]), node("Add", ["p", "bias"], ["q"]), node("Relu", ["q"], ["y"]),
    ]  # fmt: skip
    case = Case(nodes, {"x": BASE}, {"turn": TURN, "bias": BASE[0]}, 20)
    assert set(assert_same_meaning(make_model, tmp_path, case).kept) == {"n"}


def test_quantised_layers_are_layers(make_model: Make, tmp_path: Path) -> None:
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["a"]), node("DequantizeLinear", ["a", "s", "z"], ["b"]),
        node("DequantizeLinear", ["w", "s", "z"], ["v"]), node("MatMul", ["b", "v"], ["c"]),
        node("Sigmoid", ["c"], ["d"]), node("QuantizeLinear", ["d", "s", "z"], ["e"]),
        node("DequantizeLinear", ["e", "s", "z"], ["g"]), node("MatMul", ["g", "v"], ["y"]),
    ]  # fmt: skip
    weights = {"s": scalar(0.01), "z": np.array(0, np.int8), "w": np.round(TURN * 400).astype(np.int8)}
    result = cast_case(make_model, tmp_path, Case(nodes, {"x": BASE}, weights))
    assert set(result.kept) == {"a", "b", "v", "e", "g"}
