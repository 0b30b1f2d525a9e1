"""FP16 holds for values that no FP32 input has: integers, FP16, quantised numbers, and very small ones."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.prepare.half_cases import Arrays, Make, scalar
from tests.prepare.test_fp16_sweep import IMAGE, NORM, RANDOM, Array, Model, both, conv, mm, near, sweep_cast, w, write

from enginesmith_contract.verification import InputValues

F = TensorProto.FLOAT
node = helper.make_node


def _heavy_tail() -> Array:
    counts = RANDOM.integers(0, 200, (4, 64))
    counts[1, 5] = 30_000_000
    return counts


def _encoder(**keys: Any) -> onnx.NodeProto:
    values = np.geomspace(1, 1e7, 100).tolist()
    return node(
        "LabelEncoder", ["x"], ["f"], name="f", domain="ai.onnx.ml", values_floats=values, default_float=0.0, **keys,
    )  # fmt: skip


CITIES = [f"city {number}" for number in range(100)]
CAST = node("Cast", ["x"], ["c"], name="c", to=F)
OTHERS = {
    "lengths of integer places": Model(
        [CAST, node("ReduceL2", ["c"], ["f"], name="f", axes=[2], keepdims=0)],
        {"x": RANDOM.integers(-200_000, 200_000, (4, 64, 3)).astype(np.int32)},
    ),
    "wide quantised numbers": Model(
        [node("DequantizeLinear", ["x", "s"], ["f"], name="f")],
        {"x": RANDOM.integers(0, 400_000, (4, 64)).astype(np.int32)}, {"s": scalar(0.5)},
    ),
    "counts": Model(
        [CAST, node("BatchNormalization", ["c", "ones", "zeros", "mean", "spread"], ["f"], name="f")],
        {"x": _heavy_tail()},
        {"mean": np.full(64, 50, np.float32), "spread": np.full(64, 3e4, np.float32), **NORM},
    ),
    "pixels in FP16": Model(
        [
            CAST,
            *(conv(source, f"w{one}", f"c{one}", 1) for one, source in enumerate(("c", "c0", "c1", "c2", "c3"))),
            node("GlobalAveragePool", ["c4"], ["o"], name="o"), node("Flatten", ["o"], ["f"], name="f"),
        ],
        {"x": IMAGE.astype(np.float16)},
        {"w0": w(16, 3, 3, 3, scale=4.5), **{f"w{one}": w(16, 16, 3, 3, scale=4.5) for one in range(1, 5)}}, 16,
    ),
    "tiny signals": Model(
        [
            conv("x", "w0", "a", 1), node("Relu", ["a"], ["b"], name="b"), conv("b", "w1", "c", 1),
            node("GlobalAveragePool", ["c"], ["o"], name="o"), node("Flatten", ["o"], ["p"], name="p"),
            mm("p", "w2", "e"), node("LpNormalization", ["e"], ["f"], name="f", axis=-1),
        ],
        {"x": near(0, 1e-7, 2, 3, 16, 16)}, {"w0": w(16, 3, 3, 3), "w1": w(16, 16, 3, 3), "w2": w(16, 64)},
    ),
    "labels of cities": Model(
        [_encoder(keys_strings=CITIES)], {"x": np.array([CITIES[:64], CITIES[-64:]], object)},
    ),
    "labels of numbers": Model(
        [_encoder(keys_int64s=list(range(1000, 1100)))], {"x": np.array([range(1000, 1064), range(1036, 1100)])},
    ),
    "a table with one large row": Model(
        [node("Gather", ["t", "x"], ["f"], name="f")], {"x": np.array([range(64), range(936, 1000)])},
        {"t": np.append(np.linspace(1, 1000, 999), 3e7).astype(np.float32)},
    ),
    "a rare code": Model(
        [node("Equal", ["x", "code"], ["is"], name="is"), node("Where", ["is", "big", "low"], ["f"], name="f")],
        {"x": np.append(np.zeros(63, np.int64), 48271)[None]},
        {"code": np.array(48271), "big": scalar(1e7), "low": scalar(1.5)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_values_that_no_fp32_input_has_are_tried(make_model: Make, tmp_path: Path, name: str) -> None:
    path = write(make_model, OTHERS[name])
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    onnx.save(model, path)
    cast, _, _ = sweep_cast(path, tmp_path)
    have, want = both(path, cast, OTHERS[name].feed)
    np.testing.assert_allclose(have, want, rtol=0, atol=5e-3 * float(np.max(np.abs(want))))


def test_tiny_values_of_a_given_range_are_tried(make_model: Make, tmp_path: Path) -> None:
    model = OTHERS["tiny signals"]
    path = write(make_model, model)
    cast, _, _ = sweep_cast(path, tmp_path, {"x": InputValues(range=(-1, 1))})
    have, want = both(path, cast, model.feed)
    np.testing.assert_allclose(have, want, rtol=0, atol=5e-3 * float(np.max(np.abs(want))))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32])
def test_the_ends_of_a_range_of_integers_are_tried(make_model: Make, tmp_path: Path, dtype: type) -> None:
    nodes = [CAST, node("Mul", ["c", "k"], ["d"], name="d"), mm("d", "w", "f")]
    feed: Arrays = {"x": np.full((4, 64), 400_000, dtype)}
    path = write(make_model, Model(nodes, feed, {"k": scalar(1), "w": w(64, 64, scale=4)}))
    cast, _, _ = sweep_cast(path, tmp_path, {"x": InputValues(range=(0, 400_000))})
    have, want = both(path, cast, feed)
    np.testing.assert_allclose(have, want, rtol=0, atol=5e-3 * float(np.max(np.abs(want))))


def test_a_language_model_still_computes_in_fp16(make_model: Make, tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    nodes = [
        node("Gather", ["t", "ids"], ["e0"], name="e0"), node("Gather", ["types", "kinds"], ["e1"], name="e1"),
        node("Add", ["e0", "e1"], ["e"], name="e"), node("LayerNormalization", ["e", "ones", "zeros"], ["n"], name="n"),
        *(mm("n", f"w{one}", one) for one in "qkv"), node("Transpose", ["k"], ["kt"], name="kt", perm=[0, 2, 1]),
        mm("q", "kt", "s"), node("Mul", ["s", "root"], ["scaled"], name="scaled"),
        node("Cast", ["mask"], ["seen"], name="seen", to=F), node("Sub", ["one", "seen"], ["hidden"], name="hidden"),
        node("Mul", ["hidden", "far"], ["shift"], name="shift"),
        node("Unsqueeze", ["shift", "middle"], ["shifts"], name="shifts"),
        node("Add", ["scaled", "shifts"], ["masked"], name="masked"),
        node("Softmax", ["masked"], ["p"], name="p"), mm("p", "v", "a"), mm("a", "wo", "o"),
        node("Add", ["o", "n"], ["r"], name="r"), node("LayerNormalization", ["r", "ones", "zeros"], ["m"], name="m"),
        mm("m", "w1", "h"), node("Relu", ["h"], ["g"], name="g"), mm("g", "w2", "y"),
    ]  # fmt: skip
    weights = {
        "t": w(200, 64, random=random), "types": w(2, 64, random=random), "one": scalar(1), "far": scalar(-1e4),
        "root": scalar(0.125), "middle": np.array([1]), **NORM,
        **{f"w{one}": w(64, 64, random=random) for one in "qkvo12"},
    }  # fmt: skip
    inputs = {name: (TensorProto.INT64, [2, 16]) for name in ("ids", "kinds", "mask")}
    path = make_model(nodes, inputs=inputs, outputs={"y": (F, None)}, weights=weights)
    _, result, _ = sweep_cast(path, tmp_path)
    assert not {"q", "k", "v", "kt", "s", "a", "o", "h", "g", "y"} & result.kept.keys()
