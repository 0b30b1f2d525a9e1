"""Small changes decide in FP32: differences of large inputs, denominators near 0, windows of one weight."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.prepare.half_cases import Arrays, Case, Make, assert_same_meaning, cast_case, f, scalar

F, I64 = TensorProto.FLOAT, TensorProto.INT64
node = helper.make_node


def _image(*values: float) -> Arrays:
    return {"x": f(*values).reshape(1, 1, 1, -1)}


def _kernel(*shape: int) -> np.ndarray[Any, Any]:
    """Return a kernel of zeros with a 1 in the centre of each output channel's own input channel."""
    kernel = np.zeros(shape, np.float32)
    for channel in range(shape[0]):
        kernel[channel, channel % shape[1], *(size // 2 for size in shape[2:])] = 1
    return kernel


CONV = node("Conv", ["x", "w"], ["a"])
CONV_3 = node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1])
FLOOR = [node("Floor", ["a"], ["b"]), node("Sub", ["b", "base"], ["y"])]
BASE = {"base": scalar(4096)}
CAST_E = node("Cast", ["e"], ["y"], to=F)
ONE = {"one": scalar(1)}
HALVES = {"x": f(0.5, 1e-6)[None]}
PRESSURE = {"x": f(1013.9, 990.1)[None]}


def _odds(*nodes: onnx.NodeProto, divide: onnx.NodeProto | None = None) -> list[onnx.NodeProto]:
    return [*nodes, node("Sub", ["one", "s"], ["q"]), divide or node("Div", ["s", "q"], ["y"])]


SIGMOID = node("Sigmoid", ["x"], ["s"])
CASES = {
    # Convolutions that hand their input on.
    "Conv of one weight before Floor": Case([CONV, *FLOOR], _image(4097, 3001), {**BASE, "w": _kernel(1, 1, 1, 1)}),
    "Conv of one weight before Cast": Case(
        [CONV, node("Cast", ["a"], ["i"], to=I64), node("Cast", ["i"], ["y"], to=F)],
        _image(4097, 3001), {"w": _kernel(1, 1, 1, 1)},
    ),
    "Conv of one weight before Equal": Case(
        [CONV, node("Equal", ["a", "v"], ["e"]), CAST_E],
        _image(4097, 4096), {"w": _kernel(1, 1, 1, 1), "v": scalar(4096)},
    ),
    "Conv with an identity kernel": Case([CONV_3, *FLOOR], _image(4097, 3001), {**BASE, "w": _kernel(1, 1, 3, 3)}),
    "Conv of many channels with an identity kernel": Case(
        [CONV_3, *FLOOR], {"x": np.full((1, 32, 2, 2), 4097, np.float32)}, {**BASE, "w": _kernel(32, 32, 3, 3)},
    ),
    "Conv of neighbours": Case(
        [CONV, *FLOOR], _image(4097, 4096, 4096), {**BASE, "w": f(1, -1).reshape(1, 1, 1, 2)},
    ),
    "ConvTranspose of one weight": Case(
        [node("ConvTranspose", ["x", "w"], ["a"]), *FLOOR], _image(4097, 3001), {**BASE, "w": _kernel(1, 1, 1, 1)},
    ),
    # Offsets of inputs.
    "a pressure above the normal one": Case(
        [node("Sub", ["x", "m"], ["a"]), node("Div", ["a", "s"], ["y"])], PRESSURE,
        {"m": scalar(1013.25), "s": scalar(5)},
    ),
    "the normal pressure above one": Case(
        [node("Sub", ["m", "x"], ["a"]), node("Div", ["a", "s"], ["y"])], PRESSURE,
        {"m": scalar(1013.25), "s": scalar(5)},
    ),
    "a negative offset that is added": Case(
        [node("Transpose", ["x"], ["t"]), node("Add", ["m", "t"], ["y"])], PRESSURE, {"m": scalar(-1013.25)},
    ),
    "an offset that FP16 holds": Case([node("Sub", ["x", "m"], ["y"])], {"x": f(1000.4)[None]}, {"m": scalar(1000)}),
    "a temperature": Case([node("Sub", ["x", "m"], ["y"])], {"x": f(273.3)[None]}, {"m": scalar(273.15)}),
    "offsets of features": Case(
        [node("Sub", ["x", "m"], ["y"])], {"x": f(0.5, 1013.9)[None]}, {"m": f(0.4, 1013.25)},
    ),
    "a mean that BatchNormalization subtracts": Case(
        [node("BatchNormalization", ["x", "g", "b", "m", "v"], ["y"])],
        {"x": np.full((1, 1, 2), 1013.9, np.float32)},
        {"g": f(1), "b": f(0), "m": f(1013.25), "v": f(1)},
    ),
    # Denominators near 0.
    "odds of Sigmoid": Case(_odds(SIGMOID), {"x": f(9, 8, 0)[None]}, ONE),
    "odds of Sigmoid, the one subtracted": Case(
        [SIGMOID, node("Sub", ["s", "one"], ["q"]), node("Div", ["s", "q"], ["y"])], {"x": f(9, 0)[None]}, ONE,
    ),
    "odds of Softmax": Case(_odds(node("Softmax", ["x"], ["s"])), {"x": f(9, 0, -1)[None]}, ONE),
    "one over one minus Tanh": Case(
        _odds(node("Tanh", ["x"], ["s"]), divide=node("Reciprocal", ["q"], ["y"])), {"x": f(5, 0)[None]}, ONE,
    ),
    "one over one plus Tanh": Case(
        [node("Tanh", ["x"], ["s"]), node("Add", ["s", "one"], ["q"]), node("Reciprocal", ["q"], ["y"])],
        {"x": f(-5, 0)[None]}, ONE,
    ),
    "odds after a move": Case(
        _odds(node("Sigmoid", ["x"], ["p"]), node("Unsqueeze", ["p", "ax"], ["s"])),
        {"x": f(9, 0)[None]}, {**ONE, "ax": np.array([0], np.int64)},
    ),
    "odds that are scaled": Case(
        [*_odds(SIGMOID, divide=node("Div", ["s", "q"], ["o"])), node("Mul", ["o", "k"], ["y"])],
        {"x": f(10, 0)[None]}, {**ONE, "k": scalar(10)},
    ),
    "Reciprocal of a small input": Case(
        [node("Reciprocal", ["x"], ["r"]), node("Mul", ["r", "k"], ["y"])], HALVES, {"k": scalar(0.01)},
    ),
    "division by a small input": Case(
        [node("Div", ["k", "x"], ["r"]), node("Mul", ["r", "k"], ["y"])], HALVES, {"k": scalar(0.01)},
    ),
    "division by a small input after moves": Case(
        [
            node("Transpose", ["x"], ["t"]), node("Neg", ["t"], ["n"]), node("Reciprocal", ["n"], ["r"]),
            node("Mul", ["r", "k"], ["y"]),
        ],
        HALVES, {"k": scalar(0.01)},
    ),
    "division by a large input": Case(
        [node("Div", ["x", "z"], ["y"])], {"x": f(50_000)[None], "z": f(100_000)[None]},
    ),
    "Pow(-1) of a small input": Case(
        [node("Pow", ["x", "minus"], ["r"]), node("Mul", ["r", "k"], ["y"])],
        HALVES, {"k": scalar(0.01), "minus": scalar(-1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_cast_model_means_what_the_source_means(make_model: Make, tmp_path: Path, name: str) -> None:
    result = assert_same_meaning(make_model, tmp_path, CASES[name])
    assert [line for line in result.warnings if "layer" not in line]


MASKS = {
    "Where with -inf": Case(
        [node("Where", ["c", "x", "m"], ["y"])], {"x": f(1, 2)[None], "c": np.array([[True, False]])},
        {"m": scalar(-np.inf)},
    ),
    "Add with -inf": Case([node("Add", ["x", "m"], ["y"])], {"x": f(1, 2)[None]}, {"m": f(0, -np.inf)}),
    "Where with -10000": Case(
        [node("Where", ["c", "x", "m"], ["y"])], {"x": f(1, 2)[None], "c": np.array([[True, False]])},
        {"m": scalar(-10_000)},
    ),
    "Add with -10000": Case([node("Add", ["x", "m"], ["y"])], {"x": f(1, 2)[None]}, {"m": f(0, -10_000)}),
    "Clip to 10000": Case(
        [node("Clip", ["x", "low", "high"], ["a"]), node("Tanh", ["a"], ["y"])], {"x": f(1, 2)[None]},
        {"low": scalar(0), "high": scalar(10_000)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_that_fp16_holds_is_no_large_number(make_model: Make, tmp_path: Path, name: str) -> None:
    assert not [line for line in cast_case(make_model, tmp_path, MASKS[name]).warnings if "above 2" in line]


def test_numbers_above_2048_that_are_no_mask_keep_their_node(make_model: Make, tmp_path: Path) -> None:
    case = Case([node("Sub", ["x", "m"], ["a"]), node("Relu", ["a"], ["y"])], {"x": f(1, 2)}, {"m": scalar(4096)})
    warnings = cast_case(make_model, tmp_path, case).warnings
    assert [line for line in warnings if "above 2048" in line]
