"""Distances by their three terms: near a centre, what is left of large terms must be right in FP16."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from tests.prepare.half_cases import Make, run_emulated
from tests.prepare.test_fp16_sweep import sweep_cast

from enginesmith_contract.verification import InputValues

F = TensorProto.FLOAT
node = helper.make_node
RANDOM = np.random.default_rng(11)
CENTRES = (3 * RANDOM.standard_normal((200, 32))).astype(np.float32)
NEAR = (CENTRES[:24] + 0.02 * RANDOM.standard_normal((24, 32))).astype(np.float32)
SQUARES = (CENTRES**2).sum(1).astype(np.float32)
WEIGHTS = {
    "c": CENTRES, "ct": CENTRES.T.copy(), "cs": SQUARES, "last": np.array([1]), "m2": np.array(-2, np.float32),
    "w": RANDOM.standard_normal((200, 20)).astype(np.float32), "two": np.array(2, np.float32),
}  # fmt: skip
MUL = [node("Mul", ["x", "x"], ["x2"]), node("ReduceSum", ["x2", "last"], ["xs"])]
POW = [node("Pow", ["x", "two"], ["x2"]), node("ReduceSum", ["x2", "last"], ["xs"])]
RBF = [node("Neg", ["d"], ["n"]), node("Exp", ["n"], ["e"]), node("MatMul", ["e", "w"], ["y"])]
NEAREST = [node("ReduceMin", ["d"], ["y"], axes=[1], keepdims=1)]
TERMS = {
    "a product, a factor, two sums": [
        node("MatMul", ["x", "ct"], ["xc"]), node("Mul", ["xc", "m2"], ["t"]), node("Add", ["xs", "t"], ["p"]),
        node("Add", ["p", "cs"], ["d"]),
    ],
    "one Gemm": [node("Gemm", ["x", "c", "cs"], ["q"], alpha=-2.0, transB=1), node("Add", ["q", "xs"], ["d"])],
    "a difference": [
        node("Add", ["xs", "cs"], ["p"]), node("MatMul", ["x", "ct"], ["xc"]), node("Mul", ["xc", "two"], ["t"]),
        node("Sub", ["p", "t"], ["d"]),
    ],
}  # fmt: skip


@pytest.mark.parametrize("squares", [MUL, POW], ids=["Mul", "Pow"])
@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("last", [RBF, NEAREST], ids=["RBF network", "nearest prototype"])
def test_a_distance_near_a_centre_means_what_it_meant(
    make_model: Make, tmp_path: Path, squares: list[onnx.NodeProto], terms: str, last: list[onnx.NodeProto]
) -> None:
    path = make_model(
        [*squares, *TERMS[terms], *last], inputs={"x": (F, [24, 32])}, outputs={"y": (F, [24, None])},
        weights=WEIGHTS, opset=17,
    )  # fmt: skip
    cast, result, _ = _cast(path, tmp_path)
    want = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": NEAR})[0]
    have = run_emulated(cast, {"x": NEAR})
    np.testing.assert_allclose(have, want, rtol=0, atol=1e-2 * float(np.max(np.abs(want))))
    assert [line for line in result.warnings if "squares and products of the same values" in line]


def test_a_sum_of_a_square_and_another_layer_stays_in_fp16(make_model: Make, tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "ct"], ["h"]), node("Relu", ["h"], ["r"]), node("MatMul", ["r", "w"], ["a"]),
        node("MatMul", ["x", "v"], ["b"]), node("Relu", ["b"], ["s"]), node("Add", ["a", "s"], ["y"]),
    ]  # fmt: skip
    weights = {**WEIGHTS, "v": RANDOM.standard_normal((32, 20)).astype(np.float32)}
    path = make_model(nodes, inputs={"x": (F, [24, 32])}, outputs={"y": (F, [24, 20])}, weights=weights, opset=17)
    _, result, _ = _cast(path, tmp_path)
    assert not [line for line in result.warnings if "squares and products of the same values" in line]


def _cast(path: Path, folder: Path) -> Any:
    return sweep_cast(path, folder, {"x": InputValues(range=(-12, 12))})
