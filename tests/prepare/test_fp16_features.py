"""Between layers, FP16 is for features: what joins them with other values stays in FP32, and ordinary nets do not."""

from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.prepare.half_cases import Arrays, Case, Make, assert_same_meaning, scalar

F, I64 = TensorProto.FLOAT, TensorProto.INT64
node = helper.make_node
Array = np.ndarray[Any, Any]
ROWS, WIDTH = 3, 128


def _weights(seed: int, *shape: int) -> Array:
    fan = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
    return np.asarray(np.random.default_rng(seed).standard_normal(shape) / np.sqrt(fan), np.float32)


X = np.random.default_rng(1).standard_normal((ROWS, WIDTH)).astype(np.float32)
NORM = node("LayerNormalization", ["b", "ones"], ["c"], axis=-1)
SOFTMAX = node("Softmax", ["b"], ["c"])
TO_FLOAT = node("Cast", ["n"], ["f"], to=F)
OTHER = node("MatMul", ["x", "w3"], ["a2"])
MIX = [node("MatMul", ["b", "w3"], ["d"], name="mix"), node("Tanh", ["d"], ["c"])]
DIVIDE = node("Div", ["b", "k"], ["c"])


def _column(*values: float, dtype: type = np.float32) -> Array:
    return np.array(values, dtype)[:, None]


class Trap(NamedTuple):
    """Nodes from `a`, which the first layer makes of x, to `c`, which the last layer reads."""

    nodes: list[onnx.NodeProto]
    feed: Arrays = MappingProxyType({})
    weights: Arrays = MappingProxyType({})
    x: Array = X


TRAPS = {
    # Additive masks, each row masked throughout.
    "a mask of a table": Trap(
        [node("Gather", ["t", "i"], ["m"]), node("Add", ["a", "m"], ["b"]), SOFTMAX],
        {"i": np.zeros((ROWS, WIDTH), np.int64)}, {"t": np.array([-10_000, 0], np.float32)},
    ),
    "a mask of Where": Trap(
        [node("Where", ["g", "zero", "k"], ["m"]), node("Add", ["a", "m"], ["b"]), SOFTMAX],
        {"g": np.zeros((ROWS, WIDTH), np.bool_)}, {"zero": scalar(0), "k": scalar(-10_000)},
    ),
    "a mask of Cast": Trap(
        [
            TO_FLOAT, node("Sub", ["one", "f"], ["o"]), node("Mul", ["o", "k"], ["m"]), node("Add", ["a", "m"], ["b"]),
            SOFTMAX,
        ],
        {"n": np.zeros((ROWS, WIDTH), np.int64)}, {"one": scalar(1), "k": scalar(-10_000)},
    ),
    "a mask that is an input": Trap(
        [node("Add", ["a", "m"], ["b"]), SOFTMAX], {"m": np.full((ROWS, WIDTH), np.finfo(np.float32).min)},
    ),
    # Integers meet features.
    **{
        f"integers in {name}": Trap(
            [TO_FLOAT, *nodes], {"n": _column(100_000, 99_999, 5, dtype=np.int64)}, {"k": scalar(1000)},
        )
        for name, nodes in {
            "Mul": [node("Mul", ["a", "f"], ["b"]), DIVIDE],
            "Add": [node("Add", ["a", "f"], ["b"]), node("Sub", ["b", "f"], ["c"])],
            "Max": [node("Max", ["a", "f"], ["b"]), DIVIDE],
            "Where": [
                node("Greater", ["a", "k"], ["g"]), node("Not", ["g"], ["h"]), node("Where", ["h", "f", "a"], ["b"]),
                DIVIDE,
            ],
        }.items()
    },
    "integers in Concat": Trap(
        [
            TO_FLOAT, node("Concat", ["a", "f"], ["b"], axis=1), node("MatMul", ["b", "wide"], ["d"], name="mix"),
            node("Tanh", ["d"], ["c"]),
        ],
        {"n": _column(100_000, 99_999, 5, dtype=np.int64)},
        {"wide": np.concatenate([_weights(3, WIDTH, WIDTH), 1e-5 * _weights(4, 1, WIDTH)]).astype(np.float32)},
    ),
    "a table of integers": Trap(
        [node("Gather", ["t", "i"], ["f"]), node("Mul", ["a", "f"], ["b"]), DIVIDE],
        {"i": np.array([1, 1500, 1999])},
        {"t": 10 * np.arange(2000, dtype=np.float32)[:, None], "k": scalar(1e4)}, 30 * X,
    ),
    # Large values that are taken away again.
    "a shift that is an input": Trap([node("Add", ["a", "t"], ["b"]), NORM], {"t": _column(1000, 999, 998.5)}),
    "a shift of Where": Trap(
        [
            node("Less", ["t", "zero"], ["g"]), node("Where", ["g", "k", "zero"], ["s"]),
            node("Add", ["a", "s"], ["b"]),
            NORM,
        ],
        {"t": _column(1, -1, 1)}, {"zero": scalar(0), "k": scalar(3000)},
    ),
    "a depth": Trap([node("Add", ["a", "t"], ["b"]), node("Sub", ["b", "t"], ["c"])], {"t": _column(1e4, 1000, 1)}),
    "Sum with constants": Trap(
        [node("Sum", ["a", "k", "k"], ["b"]), node("Sum", ["b", "l"], ["c"])],
        weights={"k": scalar(750), "l": scalar(-1500)},
    ),
    "Mean with a constant": Trap(
        [node("Mean", ["a", "k"], ["b"]), node("Sub", ["b", "l"], ["c"])],
        weights={"k": scalar(3000), "l": scalar(1500)},
    ),
    "a large bias": Trap(
        [node("Gemm", ["a", "w3", "k"], ["b"]), node("Sub", ["b", "k"], ["c"])],
        weights={"k": np.linspace(500, 1000, WIDTH, dtype=np.float32)},
    ),
    # Products.
    "a product of features": Trap([OTHER, node("Mul", ["a", "a2"], ["b"]), NORM], x=300 * X),
    "a product of small features": Trap([OTHER, node("Mul", ["a", "a2"], ["b"]), NORM], x=np.float32(1e-3) * X),
    "SwiGLU": Trap(
        [
            OTHER, node("Sigmoid", ["a2"], ["s"]), node("Mul", ["a2", "s"], ["sw"]), node("Mul", ["a", "sw"], ["g"]),
            node("MatMul", ["g", "w3"], ["b"], name="mix"), NORM,
        ],
        x=300 * X,
    ),
    "a noise level": Trap(
        [
            node("Mul", ["a", "t"], ["b"]), node("Mul", ["t", "t"], ["q"]), node("Add", ["q", "one"], ["r"]),
            node("Div", ["b", "r"], ["c"]),
        ],
        {"t": _column(1000, 80, 1)}, {"one": scalar(1)}, 100 * X,
    ),
    "a style": Trap(
        [
            node("Mul", ["a", "t"], ["b"]), node("Mul", ["b", "b"], ["q"]), node("ReduceMean", ["q"], ["v"], axes=[1]),
            node("Add", ["v", "e"], ["w"]), node("Sqrt", ["w"], ["r"]), node("Div", ["b", "r"], ["c"]),
        ],
        {"t": _column(1000, 1, 0.1)}, {"e": scalar(1e-8)}, 100 * X,
    ),
    # Values near one, and what lies next to a node that stays in FP32.
    "a logarithm behind Erf": Trap(
        [node("Erf", ["a"], ["e"]), node("Sub", ["one", "e"], ["d"]), node("Log", ["d"], ["c"])],
        weights={"one": scalar(1)}, x=np.float32(1.1) * X,
    ),
    "a logarithm behind a square of Tanh": Trap(
        [
            node("Tanh", ["a"], ["e"]), node("Mul", ["e", "e"], ["q"]), node("Sub", ["one", "q"], ["d"]),
            node("Log", ["d"], ["c"]),
        ],
        weights={"one": scalar(1)}, x=2 * X,
    ),
    "a large factor before a layer": Trap(
        [node("Mul", ["a", "k"], ["e"]), node("MatMul", ["e", "w3"], ["b"], name="mix"), NORM],
        weights={"k": scalar(1000)}, x=60 * X,
    ),
    "a logarithm behind Softsign": Trap(
        [node("Softsign", ["a"], ["e"]), node("Sub", ["one", "e"], ["d"]), node("Log", ["d"], ["c"])],
        weights={"one": scalar(1)}, x=300 * X,
    ),
    "a square that a layer reads": Trap([node("Mul", ["a", "a"], ["b"]), *MIX], x=150 * X),
    "three factors": Trap(
        [
            node("Mul", ["a", "k"], ["d"]), node("Mul", ["d", "k"], ["e"]), node("Mul", ["e", "k"], ["b"]),
            node("Mul", ["b", "l"], ["c"]),
        ],
        weights={"k": scalar(30), "l": scalar(1 / 27_000)}, x=1500 * X,
    ),
    "a difference behind a root": Trap(
        [
            node("Mul", ["a", "a"], ["q"]), node("Add", ["q", "one"], ["r"]), node("Sqrt", ["r"], ["s"]),
            node("Sub", ["s", "one"], ["d"]), node("Mul", ["d", "k"], ["c"]),
        ],
        weights={"one": scalar(1), "k": scalar(30)}, x=np.float32(0.02) * X,
    ),
    "a sum by ScatterElements": Trap(
        [
            node("Abs", ["a"], ["p"]), node("ScatterElements", ["zeros", "i", "p"], ["b"], axis=1, reduction="add"),
            node("Div", ["b", "k"], ["c"]),
        ],
        weights={
            "zeros": np.zeros((ROWS, WIDTH), np.float32), "i": np.zeros((ROWS, WIDTH), np.int64), "k": scalar(128),
        },
        x=1000 * X,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAPS)
def test_what_features_meet_between_two_layers_means_what_it_meant(make_model: Make, tmp_path: Path, name: str) -> None:
    trap = TRAPS[name]
    nodes = [node("MatMul", ["x", "w1"], ["a"], name="first"), *trap.nodes]
    nodes += [node("MatMul", ["c", "w2"], ["y"], name="last")]
    weights = {"w1": _weights(7, WIDTH, WIDTH), "w2": _weights(8, WIDTH, 64), "w3": _weights(9, WIDTH, WIDTH)}
    weights |= {"ones": np.ones(WIDTH, np.float32), **trap.weights}
    used = {name: value for name, value in weights.items() if any(name in one.input for one in nodes)}
    case = Case(nodes, {"x": trap.x, **trap.feed}, used)
    result = assert_same_meaning(make_model, tmp_path, case, 3e-3)
    assert "first" not in result.kept
    assert len(result.warnings) <= len(result.kept)


def _conv(source: str, target: str, weight: str, **attributes: Any) -> onnx.NodeProto:
    return node("Conv", [source, weight], [target], name=target, **attributes)


SAME = {"pads": [1, 1, 1, 1]}
IMAGE = np.random.default_rng(2).random((1, 3, 16, 16), dtype=np.float32)
NETS = {
    "a block of ResNet": (
        Case(
            [
                _conv("x", "a", "w0", **SAME), node("BatchNormalization", ["a", "s", "b", "m", "v"], ["n"], name="n"),
                node("Relu", ["n"], ["r"], name="r"),
                node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
                _conv("p", "c", "w1", **SAME), node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n2"], name="n2"),
                node("Add", ["n2", "p"], ["e"]), node("Relu", ["e"], ["f"]), node("GlobalAveragePool", ["f"], ["g"]),
                node("Flatten", ["g"], ["h"]), node("Gemm", ["h", "w2", "b2"], ["y"]),
            ],
            {"x": IMAGE},
            {
                "w0": _weights(1, 16, 3, 3, 3), "w1": _weights(2, 16, 16, 3, 3), "w2": _weights(3, 16, 10),
                "b2": _weights(4, 10), "s": 1 + _weights(5, 16) / 4, "b": _weights(6, 16), "m": _weights(7, 16),
                "v": 1 + np.abs(_weights(8, 16)),
            },
        ),
        set(),
    ),
    "a block of MobileNetV3": (
        Case(
            [
                _conv("x", "a", "w0", **SAME), node("Add", ["a", "three"], ["p"]),
                node("Clip", ["p", "zero", "six"], ["q"]),
                node("Mul", ["a", "q"], ["r"]), node("Div", ["r", "six"], ["h"]),
                _conv("h", "d", "w1", group=16, **SAME), node("GlobalAveragePool", ["d"], ["g"]),
                _conv("g", "s1", "w2"), node("Relu", ["s1"], ["s2"]), _conv("s2", "s3", "w3"),
                node("HardSigmoid", ["s3"], ["s4"]), node("Mul", ["d", "s4"], ["e"]), node("HardSwish", ["e"], ["f"]),
                _conv("f", "i", "w4"), node("Add", ["i", "h"], ["j"]), node("Resize", ["j", "", "sizes"], ["k"]),
                _conv("k", "y", "w4"),
            ],
            {"x": IMAGE},
            {
                "w0": _weights(1, 16, 3, 3, 3), "w1": _weights(2, 16, 1, 3, 3), "w2": _weights(3, 2, 16, 1, 1),
                "w3": _weights(4, 16, 2, 1, 1), "w4": _weights(5, 16, 16, 1, 1), "three": scalar(3), "zero": scalar(0),
                "six": scalar(6), "sizes": np.array([1, 1, 2, 2], np.float32),
            },
        ),
        set(),
    ),
    "a block of ViT": (
        Case(
            [
                node("MatMul", ["x", "w0"], ["e0"]), node("Add", ["e0", "position"], ["e"]),
                node("LayerNormalization", ["e", "g", "b"], ["n"]),
                *(node("MatMul", ["n", f"w{one}"], [one]) for one in "qkv"),
                node("Transpose", ["k"], ["t"], perm=[1, 0]),
                node("MatMul", ["q", "t"], ["s0"]), node("Mul", ["s0", "scale"], ["s"]), node("Softmax", ["s"], ["p"]),
                node("MatMul", ["p", "v"], ["o"]), node("Add", ["o", "e"], ["r"]),
                node("LayerNormalization", ["r", "g", "b"], ["n2"]), node("MatMul", ["n2", "w1"], ["h"]),
                node("Div", ["h", "root"], ["h1"]), node("Erf", ["h1"], ["h2"]), node("Add", ["h2", "one"], ["h3"]),
                node("Mul", ["h", "h3"], ["h4"]), node("Mul", ["h4", "half"], ["h5"]),
                node("MatMul", ["h5", "w2"], ["m"]),
                node("Add", ["m", "r"], ["u"]), node("MatMul", ["u", "w0"], ["y"]),
            ],
            {"x": X},
            {
                **{f"w{one}": _weights(index, WIDTH, WIDTH) for index, one in enumerate("012qkv")},
                "g": 1 + _weights(9, WIDTH), "b": _weights(10, WIDTH), "position": _weights(11, ROWS, WIDTH),
                "scale": scalar(1 / np.sqrt(WIDTH)), "root": scalar(np.sqrt(2)), "one": scalar(1), "half": scalar(0.5),
            },
        ),
        {"LayerNormalization", "Softmax"},
    ),
    "a classifier of products with biases": (
        Case(
            [
                node("Gemm", ["x", "w0", "b0"], ["a"]), node("Relu", ["a"], ["r"]),
                node("Gemm", ["r", "w1", "b1"], ["c"]), node("Softmax", ["c"], ["y"]),
            ],
            {"x": X},
            {"w0": _weights(1, WIDTH, 128), "b0": _weights(2, 128), "w1": _weights(3, 128, 10), "b1": _weights(4, 10)},
        ),
        {"Softmax"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_ordinary_nets_compute_in_fp16(make_model: Make, tmp_path: Path, name: str) -> None:
    case, want = NETS[name]
    kept = assert_same_meaning(make_model, tmp_path, case, 1e-2).kept
    operators = {one.name or one.output[0]: one.op_type for one in case.nodes}
    assert {operators[name] for name in kept} == want
