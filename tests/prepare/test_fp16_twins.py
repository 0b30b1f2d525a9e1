"""Differences of results that the same layers make: FP16 must not round away how nearly equal ones differ."""

from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from tests.prepare.half_cases import Arrays, Make, cast_file, scalar

from enginesmith_runtime.onnx_graphs.emulation import emulation_of

F = TensorProto.FLOAT
node = helper.make_node
Array = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(5)
REASON = "results of the same layers are taken from each other"


class Net(NamedTuple):
    """Nodes from the inputs to the output `y`."""

    nodes: list[onnx.NodeProto]
    feed: Arrays
    weights: Arrays = MappingProxyType({})


def w(*shape: int, scale: float = 1.0) -> Array:
    fan = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
    return np.asarray(scale * RANDOM.standard_normal(shape) / np.sqrt(fan), np.float32)


def near(array: Array, apart: float = 1e-3) -> Array:
    return np.asarray(array + apart * RANDOM.standard_normal(array.shape), np.float32)


def encoder(source: str, target: str, first: str = "w1", second: str = "w2") -> list[onnx.NodeProto]:
    return [
        node("MatMul", [source, first], [f"{target}_1"]), node("Relu", [f"{target}_1"], [f"{target}_2"]),
        node("MatMul", [f"{target}_2", second], [target]),
    ]  # fmt: skip


A = RANDOM.random((4, 64)).astype(np.float32)
PAIR = {"a": A, "b": near(A)}
BOTH = [*encoder("a", "p"), *encoder("b", "q")]
WEIGHTS = {"w1": w(64, 80), "w2": w(80, 80), "w3": w(80, 32)}
HEAD = node("MatMul", ["d", "w3"], ["y"])
FRAMES = near(np.repeat(RANDOM.random((2, 1, 64)), 6, 1))
CUTS = {"0": np.array([0]), "1": np.array([1]), "5": np.array([5]), "6": np.array([6]), "last": np.array([-1])}
EARLIER = node("Slice", ["h", "0", "5", "1"], ["p"])
LATER = node("Slice", ["h", "1", "6", "1"], ["q"])
PICTURE = RANDOM.integers(0, 255, (2, 1, 12, 12)).astype(np.uint8)
BRIGHTER = PICTURE.copy()
BRIGHTER[:, :, 4:8, 4:8] += 1


def _picture(source: str, target: str) -> list[onnx.NodeProto]:
    return [
        node("Cast", [source], [f"{target}_0"], to=F),
        node("InstanceNormalization", [f"{target}_0", "one", "zero"], [f"{target}_1"]),
        node("Conv", [f"{target}_1", "k1"], [f"{target}_2"]), node("Relu", [f"{target}_2"], [f"{target}_3"]),
        node("Conv", [f"{target}_3", "k2"], [target]),
    ]  # fmt: skip


def _q(action: str, target: str) -> list[onnx.NodeProto]:
    return [
        node("MatMul", ["s", "ws"], [f"{target}_0"]), node("MatMul", [action, "wa"], [f"{target}_1"]),
        node("Add", [f"{target}_0", f"{target}_1"], [f"{target}_2"]), node("Relu", [f"{target}_2"], [f"{target}_3"]),
        node("MatMul", [f"{target}_3", "w2"], [target]),
    ]  # fmt: skip


ACTION = RANDOM.uniform(-1, 1, (4, 8)).astype(np.float32)
TABLE = RANDOM.standard_normal((2000, 64)).astype(np.float32)
TABLE[1::2] = near(TABLE[::2], 2e-3)
IDS = 2 * np.arange(100, 108)
SUM = node("ReduceSum", ["m", "last"], ["c"], keepdims=1)

NETS = {
    "two inputs": Net([*BOTH, node("Sub", ["p", "q"], ["d"]), HEAD], PAIR, WEIGHTS),
    "the sum with a negative": Net(
        [*BOTH, node("Neg", ["q"], ["n"]), node("Add", ["p", "n"], ["d"]), HEAD], PAIR, WEIGHTS,
    ),
    "the sum with minus one times": Net(
        [*BOTH, node("Mul", ["q", "minus"], ["n"]), node("Sum", ["p", "n"], ["d"]), HEAD], PAIR,
        {**WEIGHTS, "minus": scalar(-1)},
    ),
    "copies of the weights": Net(
        [*encoder("a", "p"), *encoder("b", "q", "v1", "v2"), node("Sub", ["p", "q"], ["d"]), HEAD], PAIR,
        {**WEIGHTS, "v1": WEIGHTS["w1"].copy(), "v2": WEIGHTS["w2"].copy()},
    ),
    "a network that follows another": Net(
        [*encoder("a", "p"), *encoder("a", "q", "v1", "v2"), node("Sub", ["p", "q"], ["d"]), HEAD], {"a": A},
        {**WEIGHTS, "v1": near(WEIGHTS["w1"], 1e-4), "v2": near(WEIGHTS["w2"], 1e-4)},
    ),
    "an absolute difference": Net(
        [*BOTH, node("Sub", ["p", "q"], ["e"]), node("Abs", ["e"], ["d"]), HEAD], PAIR, WEIGHTS,
    ),
    "a distance": Net(
        [*BOTH, node("Sub", ["p", "q"], ["e"]), node("Mul", ["e", "e"], ["m"]), SUM, node("Sqrt", ["c"], ["y"])],
        PAIR, {**WEIGHTS, **CUTS},
    ),
    "a distance by three products": Net(
        [
            *BOTH, node("Mul", ["p", "p"], ["pp"]), node("Mul", ["q", "q"], ["qq"]), node("Mul", ["p", "q"], ["m"]),
            SUM, node("ReduceSum", ["pp", "last"], ["sp"]), node("ReduceSum", ["qq", "last"], ["sq"]),
            node("Add", ["sp", "sq"], ["s"]), node("Mul", ["c", "two"], ["t"]), node("Sub", ["s", "t"], ["y"]),
        ],
        {"a": A, "b": near(A, 0.015)}, {**WEIGHTS, **CUTS, "two": scalar(2)},
    ),
    "a cosine distance": Net(
        [
            *BOTH, node("LpNormalization", ["p"], ["np"]), node("LpNormalization", ["q"], ["nq"]),
            node("Mul", ["np", "nq"], ["m"]), SUM, node("Sub", ["one", "c"], ["y"]),
        ],
        {"a": A, "b": near(A, 0.02)}, {**WEIGHTS, **CUTS, "one": scalar(1)},
    ),
    "neighbouring frames": Net(
        [*encoder("x", "h"), EARLIER, LATER, node("Sub", ["q", "p"], ["d"]), HEAD], {"x": FRAMES},
        {**WEIGHTS, **CUTS},
    ),
    "frames that are split": Net(
        [*encoder("x", "h"), node("Split", ["h"], [f"p{one}" for one in range(6)], axis=1),
         node("Sub", ["p3", "p4"], ["d"]), HEAD],
        {"x": FRAMES}, WEIGHTS,
    ),
    "the first frame": Net(
        [*encoder("x", "h"), node("Gather", ["h", "0"], ["p"], axis=1), node("Sub", ["h", "p"], ["d"]), HEAD],
        {"x": FRAMES}, {**WEIGHTS, **CUTS},
    ),
    "frames in a batch": Net(
        [
            node("Reshape", ["x", "flat"], ["f"]), *encoder("f", "g"), node("Reshape", ["g", "frames"], ["h"]),
            EARLIER, LATER, node("Sub", ["q", "p"], ["d"]), HEAD,
        ],
        {"x": FRAMES}, {**WEIGHTS, **CUTS, "flat": np.array([-1, 64]), "frames": np.array([-1, 6, 80])},
    ),
    "rows of a batch": Net(
        [*encoder("x", "h"), node("Gather", ["h", "even"], ["p"]), node("Gather", ["h", "odd"], ["q"]),
         node("Sub", ["p", "q"], ["d"]), HEAD],
        {"x": near(np.repeat(A, 2, 0))},
        {**WEIGHTS, "even": np.arange(0, 8, 2), "odd": np.arange(1, 8, 2)},
    ),
    "each row and each other": Net(
        [*encoder("x", "h"), node("Unsqueeze", ["h", "0"], ["p"]), node("Unsqueeze", ["h", "1"], ["q"]),
         node("Sub", ["p", "q"], ["d"]), HEAD],
        {"x": near(np.repeat(A[:1], 4, 0))}, {**WEIGHTS, **CUTS},
    ),
    "cosines of all rows": Net(
        [*encoder("x", "h"), node("LpNormalization", ["h"], ["n"]), node("Transpose", ["n"], ["t"], perm=[1, 0]),
         node("MatMul", ["n", "t"], ["c"]), node("Sub", ["one", "c"], ["y"])],
        {"x": near(np.repeat(A[:1], 4, 0), 0.02)}, {**WEIGHTS, "one": scalar(1)},
    ),
    "a part of a flat list": Net(
        [*BOTH, node("Sub", ["p", "q"], ["d"]), node("MatMul", ["d", "w3"], ["e"]), node("MatMul", ["p", "w4"], ["f"]),
         node("Concat", ["f", "e"], ["g"], axis=1), node("Reshape", ["g", "last"], ["y"])],
        PAIR, {**WEIGHTS, **CUTS, "w4": w(80, 32, scale=300)},
    ),
    "two actions": Net(
        [*_q("a", "p"), *_q("b", "q"), node("Sub", ["p", "q"], ["y"])],
        {"s": 3 * A, "a": ACTION, "b": near(ACTION, 0.01)}, {"ws": w(64, 80), "wa": w(8, 80, scale=0.3), **WEIGHTS},
    ),
    "two pictures": Net(
        [*_picture("a", "p"), *_picture("b", "q"), node("Sub", ["p", "q"], ["d"]), node("Conv", ["d", "k3"], ["y"])],
        {"a": PICTURE, "b": BRIGHTER},
        {"one": np.ones(1, np.float32), "zero": np.zeros(1, np.float32), "k1": w(16, 1, 3, 3), "k2": w(16, 16, 3, 3),
         "k3": w(8, 16, 3, 3)},
    ),
    "two rows of a table": Net(
        [node("Gather", ["t", "i"], ["a"]), node("Gather", ["t", "j"], ["b"]), *BOTH, node("Sub", ["p", "q"], ["d"]),
         HEAD],
        {"i": IDS, "j": IDS + 1}, {**WEIGHTS, "t": TABLE},
    ),
    "a divergence": Net(
        [
            *encoder("a", "p"), *encoder("a", "q", "w1", "v2"), node("Mul", ["q", "g"], ["n"]),
            node("Add", ["p", "n"], ["r"]), node("LogSoftmax", ["p"], ["lp"], axis=1),
            node("LogSoftmax", ["r"], ["lr"], axis=1), node("Exp", ["lp"], ["e"]), node("Sub", ["lp", "lr"], ["d"]),
            node("Mul", ["e", "d"], ["m"]), node("ReduceSum", ["m", "last"], ["y"]),
        ],
        {"a": A, "g": np.full((4, 1), 0.01, np.float32)}, {**WEIGHTS, **CUTS, "v2": w(80, 80)},
    ),
}  # fmt: skip


def _cast(make_model: Make, folder: Path, net: Net) -> tuple[Array, Array, Any]:
    inputs = {key: (helper.np_dtype_to_tensor_dtype(array.dtype), list(array.shape)) for key, array in net.feed.items()}
    path = make_model(net.nodes, inputs=inputs, outputs={"y": (F, None)}, weights=net.weights)
    want = np.asarray(ort.InferenceSession(path).run(None, dict(net.feed))[0])
    cast, result = cast_file(path, folder)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    emulation = emulation_of(cast)
    session = ort.InferenceSession(cast, options) if emulation is None else emulation.open(ort, cast, options)
    return np.asarray(session.run(None, dict(net.feed))[0]), want, result


@pytest.mark.parametrize("name", NETS)
def test_a_difference_of_nearly_equal_results_means_what_it_meant(make_model: Make, tmp_path: Path, name: str) -> None:
    have, want, result = _cast(make_model, tmp_path, NETS[name])
    part = slice(32, 64) if name == "a part of a flat list" else slice(None)
    scale = float(np.max(np.abs(want[part])))
    np.testing.assert_allclose(have[part], want[part], rtol=0, atol=5e-3 * scale)
    assert [line for line in result.warnings if REASON in line]


HALVES = [node("Split", ["h"], ["p", "q"], axis=1)]
HALF_HEAD = node("MatMul", ["d", "w4"], ["y"])
OTHERS = {
    # Columns of one layer are different features.
    "the two halves of a layer": Net([*encoder("x", "h"), *HALVES, node("Sub", ["p", "q"], ["d"]), HALF_HEAD],
        {"x": A}),
    "a rotation": Net(
        [
            *encoder("x", "h"), node("Reshape", ["h", "heads"], ["r"]), node("Split", ["r"], ["p", "q"], axis=2),
            node("Split", ["turns"], ["u", "v"], axis=1), node("Mul", ["p", "u"], ["m"]),
            node("Mul", ["q", "v"], ["n"]), node("Sub", ["m", "n"], ["e"]), node("Reshape", ["e", "flat"], ["d"]),
            HALF_HEAD,
        ],
        {"x": A, "turns": RANDOM.random((1, 10)).astype(np.float32)},
        {"heads": np.array([-1, 8, 10]), "flat": np.array([-1, 40])},
    ),
    "a product of complex numbers": Net(
        [*encoder("x", "p"), *encoder("z", "q", "v1", "v2"), *encoder("x", "r", "v1", "w2"),
         *encoder("z", "s", "w1", "v2"), node("Mul", ["p", "q"], ["m"]), node("Mul", ["r", "s"], ["n"]),
         node("Sub", ["m", "n"], ["d"]), HEAD],
        {"x": A, "z": near(A, 0.3)}, {"v1": w(64, 80), "v2": w(80, 80)},
    ),
    "a mean that is taken away": Net(
        [*encoder("x", "h"), node("ReduceMean", ["h"], ["m"], axes=[1]), node("Sub", ["h", "m"], ["d"]), HEAD], {"x": A}
    ),
    "a residual": Net(
        [*encoder("x", "h"), node("MatMul", ["h", "w2"], ["g"]), node("Sub", ["h", "g"], ["d"]), HEAD], {"x": A}
    ),
    "different layers": Net(
        [*BOTH, node("MatMul", ["q", "w2"], ["r"]), node("Sub", ["p", "r"], ["d"]), HEAD], PAIR,
    ),
    # Next to other features, the error of a difference is small.
    "a difference among features": Net(
        [*BOTH, node("Sub", ["p", "q"], ["e"]), node("Add", ["e", "p"], ["d"]), HEAD], PAIR,
    ),
    "a gate made of a difference": Net(
        [*BOTH, node("Sub", ["p", "q"], ["e"]), node("Sigmoid", ["e"], ["g"]), node("Mul", ["g", "p"], ["d"]), HEAD],
        PAIR,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_differences_stay_in_fp16(make_model: Make, tmp_path: Path, name: str) -> None:
    net = OTHERS[name]
    weights = {**WEIGHTS, "w4": w(40, 32), **net.weights}
    _, _, result = _cast(make_model, tmp_path, net._replace(weights=weights))
    assert not [line for line in result.warnings if REASON in line]
