"""Values that fit a model's own weights leave FP16's range: templates, strong directions, ids that layers amplify."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from tests.prepare.half_cases import Arrays, Make, scalar
from tests.prepare.test_fp16_sweep import both, sweep_cast

from enginesmith_contract.verification import InputValues
from enginesmith_runtime.prepare.fp16.aligned import find_signs
from enginesmith_runtime.prepare.fp16.sweep_inputs import samples
from enginesmith_runtime.prepare.fp16.table_keys import keys_of_inputs
from enginesmith_runtime.prepare.jobs import Feed
from enginesmith_runtime.prepare.model_file.facts import facts_of
from enginesmith_runtime.prepare.model_file.index_bounds import find_index_bounds

F, I64, U8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8
node = helper.make_node
Array = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(11)
NORM = {"ones": np.ones(128, np.float32), "zeros": np.zeros(128, np.float32)}


class Fit(NamedTuple):
    """A model with the output `y`, the values that the user gives, and a request that fits the weights."""

    nodes: list[onnx.NodeProto]
    feed: Arrays
    weights: Arrays
    values: Mapping[str, InputValues] = MappingProxyType({})


def w(*shape: int, scale: float = 1.0) -> Array:
    fan = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
    return np.asarray(scale * RANDOM.standard_normal(shape) / np.sqrt(fan), np.float32)


def _sizes(count: int) -> Array:
    return np.abs(RANDOM.standard_normal(count))


def _layers(source: str, count: int) -> list[onnx.NodeProto]:
    """Return layers with Relu behind each, then LayerNormalization and a last layer."""
    nodes = []
    for number in range(count):
        before = source if not number else f"r{number - 1}"
        nodes += [node("MatMul", [before, f"w{number}"], [f"h{number}"]), node("Relu", [f"h{number}"], [f"r{number}"])]
    last = node("LayerNormalization", [f"r{count - 1}", "ones", "zeros"], ["n"])
    return [*nodes, last, node("MatMul", ["n", "wl"], ["y"])]


def _directed(width: int, first: Array, gains: tuple[float, ...]) -> dict[str, Array]:
    """Return weights that each enlarge what the one before makes of `first`."""
    weights: dict[str, Array] = {"wl": w(128, 16), **NORM}
    before = first
    for number, gain in enumerate(gains):
        after = _sizes(128)
        size = width if not number else 128
        weights[f"w{number}"] = (w(size, 128) + np.outer(before, after) * gain).astype(np.float32)
        before = after
    return weights


TEMPLATE = np.sign(RANDOM.standard_normal(1024)) - 0.0
PATTERNS = (RANDOM.standard_normal((1024, 32)) * 2).astype(np.float32)
FILTER = np.where(PATTERNS > 0, 230, 20).T[:2].astype(np.float32)
DIRECTION = np.sign(RANDOM.standard_normal(256))
ROWS = RANDOM.standard_normal((3000, 256)).astype(np.float32)
ROWS[1234] = DIRECTION
UNIT = {"x": InputValues(range=(-1, 1))}

FITS = {
    "a matched filter": Fit(
        [node("MatMul", ["x", "w0"], ["a"]), node("Relu", ["a"], ["b"]), node("MatMul", ["b", "w1"], ["y"])],
        {"x": FILTER}, {"w0": PATTERNS, "w1": w(32, 128)}, {"x": InputValues(range=(0, 255))},
    ),
    "a strong direction": Fit(
        _layers("x", 3), {"x": TEMPLATE[None].repeat(2, 0).astype(np.float32)},
        _directed(1024, TEMPLATE, (0.05, 0.3, 0.3)), UNIT,
    ),
    "a common mode": Fit(
        [node("MatMul", ["x", "w0"], ["a"]), node("LayerNormalization", ["a", "ones", "zeros"], ["n"]),
         node("MatMul", ["n", "wl"], ["y"])],
        {"x": (3 * TEMPLATE + RANDOM.standard_normal((2, 1024))).clip(-6, 6).astype(np.float32)},
        {
            "w0": (np.outer(TEMPLATE, np.ones(128)) * 0.1 + RANDOM.standard_normal((1024, 128)) * 0.01)
            .astype(np.float32), "wl": w(128, 16), **NORM,
        },
        {"x": InputValues(range=(-6, 6))},
    ),
    "ids that layers amplify": Fit(
        [node("Gather", ["t", "x"], ["e"]), *_layers("e", 3)], {"x": np.array([[1, 1234, 3], [4, 5, 6]])},
        {"t": ROWS, **_directed(256, DIRECTION, (0.3, 0.2, 0.2))},
    ),
    "ids that layers amplify behind a normalisation": Fit(
        [node("Gather", ["t", "x"], ["g"]), node("LayerNormalization", ["g", "o", "z"], ["e"]), *_layers("e", 3)],
        {"x": np.array([[1, 1234, 3], [4, 5, 6]])},
        {
            "t": ROWS, **_directed(256, DIRECTION, (0.3, 0.2, 0.2)), "o": np.ones(256, np.float32),
            "z": np.zeros(256, np.float32),
        },
    ),
}  # fmt: skip


def _write(make_model: Make, fit: Fit) -> Path:
    inputs = {key: (helper.np_dtype_to_tensor_dtype(array.dtype), list(array.shape)) for key, array in fit.feed.items()}
    return make_model(fit.nodes, inputs=inputs, outputs={"y": (F, None)}, weights=fit.weights)


@pytest.mark.parametrize("name", FITS)
def test_a_request_that_fits_the_weights_gets_the_answer_of_fp32(make_model: Make, tmp_path: Path, name: str) -> None:
    path = _write(make_model, FITS[name])
    cast, _, _ = sweep_cast(path, tmp_path, FITS[name].values)
    have, want = both(path, cast, FITS[name].feed)
    np.testing.assert_allclose(have, want, rtol=0, atol=0.02 * float(np.max(np.abs(want))))


SIGNED = {
    "a matrix": Fit([node("MatMul", ["x", "w"], ["y"])], {"x": np.zeros((2, 64), np.float32)}, {"w": w(64, 80)}),
    "a transposed Gemm": Fit(
        [node("Gemm", ["x", "w"], ["y"], transB=1)], {"x": np.zeros((2, 64), np.float32)}, {"w": w(80, 64)},
    ),
    "transposed weights": Fit(
        [node("Transpose", ["w"], ["v"]), node("MatMul", ["x", "v"], ["y"])], {"x": np.zeros((2, 64), np.float32)},
        {"w": w(80, 64)},
    ),
    "a moved input": Fit(
        [node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), node("Reshape", ["t", "s"], ["f"]),
         node("MatMul", ["f", "w"], ["y"])],
        {"x": np.zeros((2, 16, 20), np.float32)}, {"w": w(320, 80), "s": np.array([2, 320])},
    ),
    "a negated input": Fit(
        [node("Mul", ["x", "k"], ["m"]), node("Add", ["m", "b"], ["a"]), node("MatMul", ["a", "w"], ["y"])],
        {"x": np.zeros((2, 64), np.float32)}, {"w": w(64, 80), "k": scalar(-1), "b": np.full(64, 0.0, np.float32)},
    ),
    "a window": Fit(
        [node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])], {"x": np.zeros((2, 3, 12, 12), np.float32)},
        {"w": w(16, 3, 3, 3)},
    ),
    "a window with steps": Fit(
        [node("Conv", ["x", "w"], ["y"], strides=[4, 4])], {"x": np.zeros((1, 3, 16, 16), np.float32)},
        {"w": w(16, 3, 4, 4)},
    ),
    "windows in groups": Fit(
        [node("Conv", ["x", "w"], ["y"], group=4)], {"x": np.zeros((1, 8, 9), np.float32)}, {"w": w(16, 2, 3)},
    ),
    "pixels with channels last": Fit(
        [node("Cast", ["x"], ["f"], to=F), node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2]),
         node("Conv", ["t", "w"], ["y"])],
        {"x": np.zeros((1, 12, 12, 3), np.uint8)}, {"w": w(16, 3, 3, 3)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNED)
def test_the_signs_of_the_weights_make_the_largest_sum(make_model: Make, name: str) -> None:
    path = _write(make_model, SIGNED[name])
    feed = Feed(facts=facts_of(onnx.load(path), path).facts)
    signs = find_signs(path, feed, dict(SIGNED[name].feed), ("x",), by_direction=False)["x"]
    weights = SIGNED[name].weights["w"]
    axes = tuple(range(1, weights.ndim)) if weights.ndim > 2 or "transposed" in name else (0,)
    pixels = SIGNED[name].feed["x"].dtype == np.uint8
    values = (signs > 0).astype(np.uint8) if pixels else signs.astype(np.float32)
    made = ort.InferenceSession(path).run(None, {"x": values})[0]
    largest = np.maximum(weights, 0).sum(axes).max() if pixels else np.abs(weights).sum(axes).max()
    assert np.abs(made).max() >= 0.98 * largest * (0.7 if pixels else 1)


def test_rows_that_are_nearly_alike_are_found(make_model: Make) -> None:
    table = RANDOM.standard_normal((2000, 32)).astype(np.float32)
    table[777] = table[42] + 1e-3
    path = make_model(
        [node("Gather", ["t", "i"], ["y"])], inputs={"i": (I64, [4])}, outputs={"y": (F, None)}, weights={"t": table}
    )
    assert set(keys_of_inputs(path).alike["i"][0]) == {42, 777}


def _words(path: Path, values: Mapping[str, InputValues]) -> dict[str, dict[str, Array]]:
    model = onnx.load(path)
    facts = facts_of(model, path).facts
    feed = Feed(facts=facts, values=values, index_bounds=find_index_bounds(model.graph))
    shapes = {spec.name: spec.shape for spec in facts.inputs}
    return {each.words: each.inputs for each in samples(path, feed, shapes, "0-min")}


def test_a_given_range_keeps_lines_and_tones(make_model: Make) -> None:
    path = _write(make_model, SIGNED["a matrix"])
    tried = _words(path, {"x": InputValues(range=(10, 30))})
    for words in ("on a line from 10 to 30", "of a pure tone between 10 and 30"):
        assert (tried[words]["x"].min(), tried[words]["x"].max()) == (10, 30)


def test_nearly_equal_values_are_tried_in_inputs_frames_and_pixels(make_model: Make) -> None:
    path = make_model(
        [node("Concat", ["a", "b"], ["c"], axis=2), node("Cast", ["p"], ["q"], to=F), node("Add", ["c", "q"], ["y"])],
        inputs={"a": (F, [2, 6, 8]), "b": (F, [2, 6, 8]), "p": (U8, [2, 6, 16])}, outputs={"y": (F, None)},
    )  # fmt: skip
    tried = _words(path, {"a": InputValues(range=(0, 1))})["of nearly equal values in inputs and rows"]
    for one, other in ((tried["a"], tried["b"]), (tried["a"][:, 1:], tried["a"][:, :-1])):
        assert 0 < np.abs(one - other).max() < 0.02
    assert np.abs(tried["p"][0].astype(int) - tried["p"][1]).max() == 1


def test_a_large_bound_that_a_normalisation_shrinks_keeps_no_layer(make_model: Make) -> None:
    weights = {"m": scalar(128), "s": scalar(128), "w": w(4096, 64, scale=40)}
    path = make_model(
        [node("Sub", ["x", "m"], ["a"]), node("Div", ["a", "s"], ["b"]), node("MatMul", ["b", "w"], ["y"])],
        inputs={"x": (F, [1, 4096])}, outputs={"y": (F, None)}, weights=weights,
    )  # fmt: skip
    for limits, is_kept in (((0.0, 255.0), False), ((0.0, 25500.0), True)):
        values = {"x": InputValues(range=limits)}
        _, result, _ = sweep_cast(path, _folder(path, limits), values)
        assert is_kept == any("its weights can make" in reason for reason in result.kept.values())


def _folder(path: Path, limits: tuple[float, float]) -> Path:
    folder = path.parent / f"to{limits[1]:g}"
    folder.mkdir()
    return folder


def test_a_small_part_of_a_flat_output_is_held_to_its_own_size(make_model: Make, tmp_path: Path) -> None:
    large = RANDOM.standard_normal((80, 32))
    nodes = [
        node("MatMul", ["x", "v"], ["a"]), node("Relu", ["a"], ["h"]), node("MatMul", ["h", "b"], ["big"]),
        node("Concat", ["h", "h"], ["hh"], axis=1), node("MatMul", ["hh", "s"], ["small"]),
        node("Concat", ["big", "small"], ["c"], axis=1), node("Reshape", ["c", "list"], ["y"]),
    ]  # fmt: skip
    weights = {
        "v": w(64, 80), "b": w(80, 32, scale=1000), "list": np.array([-1]),
        "s": np.concatenate([large + 1e-3 * RANDOM.standard_normal((80, 32)), -large]).astype(np.float32),
    }  # fmt: skip
    path = make_model(nodes, inputs={"x": (F, [4, 64])}, outputs={"y": (F, None)}, weights=weights)
    cast, _, _ = sweep_cast(path, tmp_path, {"x": InputValues(range=(0, 1))})
    have, want = (each.reshape(4, 64)[:, 32:] for each in both(path, cast, {"x": RANDOM.random((4, 64), np.float32)}))
    np.testing.assert_allclose(have, want, rtol=0, atol=0.02 * float(np.max(np.abs(want))))
