"""FP16 by rewriting the graph: it runs, it is near, and what FP16 cannot hold stays in FP32."""

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, checker, helper
from onnxruntime.transformers import float16
from tests.prepare.half_cases import Make, cast_file

from enginesmith_contract.preparation import Preparation

F = TensorProto.FLOAT
node = helper.make_node
# Weights as training makes them: nodes with such ones, and those between two of them, compute in FP16.
W = np.random.default_rng(0).standard_normal((80, 80), dtype=np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "shape"),
    [("cls", (3, 3, 48, 192)), ("rec", (2, 3, 48, 320))],
)
def test_a_real_model_in_fp16_is_valid_smaller_and_near(
    tmp_path: Path, ocr_models: Path, model: str, shape: tuple[int, ...]
) -> None:
    source = ocr_models / f"{model}.onnx"
    cast, _ = cast_file(source, tmp_path)
    checker.check_model(str(cast), full_check=True)
    feed = {"x": np.random.default_rng(0).random(shape, dtype=np.float32)}
    want, have = _run(source, feed)[0], _run(cast, feed)[0]
    assert have.dtype == np.float32
    assert np.max(np.abs(want - have)) / np.max(np.abs(want)) < 1e-2
    assert cast.stat().st_size < 0.6 * source.stat().st_size
    types = [tensor.data_type for tensor in onnx.load(cast).graph.initializer if len(tensor.dims) > 1]
    assert types.count(TensorProto.FLOAT16) > 0.9 * len(types)


@pytest.mark.slow
def test_a_real_detector_in_fp16_finds_the_same_strokes(tmp_path: Path, ocr_models: Path) -> None:
    cast, result = cast_file(ocr_models / "det.onnx", tmp_path)
    feed = {"x": _strokes(320)}
    want, have = _run(ocr_models / "det.onnx", feed)[0], _run(cast, feed)[0]
    assert want.max() > 0.99
    # Its last sigmoid is steep: single pixels on an edge move by percents, the picture does not.
    assert np.mean(np.abs(want - have)) < 1e-3
    # One of its normalisations has a variance above 65504, which a clipping cast turns into noise.
    assert "p2o.BatchNormalization.1" in result.kept


@pytest.mark.slow
def test_a_cast_that_clips_weights_would_turn_the_detector_into_noise(tmp_path: Path, ocr_models: Path) -> None:
    source = ocr_models / "det.onnx"
    clipped = tmp_path / "clipped.onnx"
    onnx.save(float16.convert_float_to_float16(onnx.load(source), keep_io_types=True), clipped)
    feed = {"x": _strokes(320)}
    assert np.max(np.abs(_run(source, feed)[0] - _run(clipped, feed)[0])) > 0.5


def test_values_beyond_the_range_in_a_reference_run_stay_in_fp32(
    prepare_model: Callable[..., Preparation], make_model: Make
) -> None:
    path = make_model(
        [
            node("MatMul", ["x", "v"], ["a"], name="large"),
            node("Mul", ["a", "k"], ["b"], name="back"),
            node("Tanh", ["b"], ["c"], name="rest"),
            node("MatMul", ["c", "w"], ["y"], name="last"),
        ],
        inputs={"x": (F, [1, 80])},
        outputs={"y": (F, [1, 80])},
        weights={"v": 5e4 * W, "w": W, "k": np.full(1, 1 / 64, np.float32)},
    )
    preparation = prepare_model(path, precision={"default": "fp16"})
    assert set(preparation.kept) == {"large", "back", "rest"}
    assert "FP16 ends at 65504" in preparation.kept["back"]
    assert any("FP16 ends at 65504" in warning for warning in preparation.warnings)


@pytest.mark.slow
def test_nodes_that_break_in_emulated_fp16_stay_in_fp32(
    prepare_model: Callable[..., Preparation], make_model: Make
) -> None:
    path = make_model(
        [
            node("MatMul", ["x", "w"], ["a"], name="small"),
            node("MatMul", ["a", "w"], ["b"], name="smaller"),
            node("Div", ["b", "b"], ["y"], name="quotient"),
        ],
        inputs={"x": (F, [1, 80])},
        outputs={"y": (F, [1, 80])},
        weights={"w": W * np.where(np.arange(80), 1, 1e-9).astype(np.float32)},
    )
    preparation = prepare_model(path, precision={"default": "fp16"})
    assert {"smaller", "quotient"} <= set(preparation.kept)
    assert "NaN or infinity" in preparation.kept["smaller"]
    assert not any("has NaN" in warning for warning in preparation.warnings)


@pytest.mark.slow
def test_an_fp16_model_that_differs_on_the_reference_inputs_is_warned_of(
    prepare_model: Callable[..., Preparation], make_model: Make
) -> None:
    path = make_model(
        [
            node("MatMul", ["x", "w"], ["a"]),
            node("MatMul", ["x", "v"], ["b"]),
            node("Sub", ["a", "b"], ["c"]),
            node("MatMul", ["c", "w"], ["y"]),
        ],
        inputs={"x": (F, [1, 80])},
        outputs={"y": (F, [1, 80])},
        weights={"w": W, "v": W + np.float32(0.04) * W[::-1]},
    )
    known = {"inputs": {"x": {"constant": 0.5}}}  # nothing else is tried
    warnings = prepare_model(path, precision={"default": "fp16"}, verification=known).warnings
    assert any("output 'y' in FP16 differs by" in warning for warning in warnings)


@pytest.mark.slow
def test_auto_keep_finds_values_that_are_too_small(prepare_model: Callable[..., Preparation], make_model: Make) -> None:
    path = make_model(
        [
            node("MatMul", ["x", "v"], ["a"], name="first"),
            node("Mul", ["a", "k"], ["b"], name="once"),
            node("Mul", ["b", "k"], ["c"], name="twice"),
            node("MatMul", ["c", "w"], ["y"], name="last"),
        ],
        inputs={"x": (F, [1, 80])},
        outputs={"y": (F, [1, 80])},
        weights={"v": np.float32(0.1) * W, "w": W, "k": np.full(1, 1 / 256, np.float32)},
    )
    values = {"inputs": {"x": {"range": [0, 1]}}}
    kept = prepare_model(path, precision={"default": "fp16", "autoKeep": True}, verification=values).kept
    assert set(kept) == {"twice", "last"}
    assert prepare_model(path, precision={"default": "fp16"}, verification=values).kept == {}


@pytest.mark.parametrize("pattern", ["Mat*", "second"])
def test_a_node_on_the_keep_list_stays_in_fp32_with_its_weight(make_model: Make, tmp_path: Path, pattern: str) -> None:
    path = make_model(
        [
            node("Gemm", ["x", "v"], ["a"], name="first"),
            node("Relu", ["a"], ["b"], name="between"),
            node("MatMul", ["b", "w"], ["y"], name="second"),
        ],
        inputs={"x": (F, ["n", 80])},
        outputs={"y": (F, ["n", 80])},
        weights={"v": W, "w": 2 * W},
    )
    cast, result = cast_file(path, tmp_path, keep=(pattern,))
    assert result.kept == {"second": f"precision.keep names it ({pattern})"}
    assert [tensor.data_type for tensor in onnx.load(cast).graph.initializer] == [TensorProto.FLOAT16, F]


def test_values_between_kept_nodes_never_pass_through_fp16(make_model: Make, tmp_path: Path) -> None:
    path = make_model(
        [
            node("Mul", ["x", "big"], ["huge"], name="grow"),
            node("Div", ["huge", "big"], ["back"], name="shrink"),
            node("Relu", ["back"], ["y"], name="rest"),
        ],
        inputs={"x": (F, ["n", 4])},
        outputs={"y": (F, ["n", 4])},
        weights={"big": np.full(4, 60000, np.float32)},
    )
    cast, _ = cast_file(path, tmp_path, keep=("grow", "shrink"))
    feed = {"x": np.full((1, 4), 50, np.float32)}
    np.testing.assert_allclose(_run(cast, feed)[0], 50)
    pairs = itertools.pairwise(onnx.load(cast).graph.node)
    assert not any(a.op_type == b.op_type == "Cast" for a, b in pairs)


def test_a_weight_beyond_the_range_keeps_its_node_and_says_so(make_model: Make, tmp_path: Path) -> None:
    path = make_model(
        [node("Mul", ["x", "big"], ["a"], name="grow"), node("Relu", ["a"], ["y"], name="rest")],
        inputs={"x": (F, ["n", 4])},
        outputs={"y": (F, ["n", 4])},
        weights={"big": np.array([1, 2, 3, 1e6], np.float32)},
    )
    cast, result = cast_file(path, tmp_path)
    assert "grow" in result.kept
    assert "its constant 1e+06 is inf in FP16" in result.warnings[0]
    np.testing.assert_allclose(_run(cast, {"x": np.full((1, 4), 1e-3, np.float32)})[0][0, 3], 1e3, rtol=1e-2)


def test_shape_arithmetic_stays_exact(make_model: Make, tmp_path: Path) -> None:
    path = make_model(
        [
            node("Shape", ["x"], ["s"]),
            node("Cast", ["s"], ["sf"], to=F),
            node("Mul", ["sf", "one"], ["sm"]),
            node("Cast", ["sm"], ["back"], to=TensorProto.INT64),
            node("Reshape", ["x", "back"], ["y"]),
        ],
        inputs={"x": (F, ["n", 4])},
        outputs={"y": (F, [None, None])},
        weights={"one": np.ones(1, np.float32)},
    )
    cast, _ = cast_file(path, tmp_path)
    assert _run(cast, {"x": np.zeros((4099, 4), np.float32)})[0].shape == (4099, 4)


def test_inner_graphs_read_their_outer_values_in_fp32(make_model: Make, tmp_path: Path) -> None:
    def branch(op: str, output: str) -> onnx.GraphProto:
        graph_node = node(op, ["a"], [output])
        return helper.make_graph([graph_node], op, [], [helper.make_tensor_value_info(output, F, ["n", 4])])

    path = make_model(
        [
            node("Mul", ["x", "two"], ["a"]),
            node("If", ["c"], ["b"], then_branch=branch("Relu", "t"), else_branch=branch("Neg", "e")),
            node("Add", ["b", "a"], ["y"]),
        ],
        inputs={"x": (F, ["n", 4]), "c": (TensorProto.BOOL, [])},
        outputs={"y": (F, ["n", 4])},
        weights={"two": np.full(1, 2, np.float32)},
    )
    cast, _ = cast_file(path, tmp_path)
    checker.check_model(str(cast), full_check=True)
    feed = {"x": np.ones((1, 4), np.float32), "c": np.array(True)}
    np.testing.assert_allclose(_run(cast, feed)[0], 4)


def test_external_weights_are_converted_beside_the_model(make_model: Make, tmp_path: Path) -> None:
    path = make_model(
        [node("MatMul", ["x", "w"], ["a"], name="m"), node("MatMul", ["a", "k"], ["y"], name="kept")],
        inputs={"x": (F, ["n", 80])},
        outputs={"y": (F, ["n", 80])},
        weights={"w": W, "k": 2 * W},
    )
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    cast, result = cast_file(path, tmp_path, keep=("kept",))
    assert len(result.files) == 2
    feed = {"x": np.random.default_rng(0).random((2, 80), dtype=np.float32)}
    np.testing.assert_allclose(_run(cast, feed)[0], _run(path, feed)[0], atol=0.1)


def _strokes(size: int) -> np.ndarray:
    """Return a white page with rows of dark strokes, normalised as the detector was trained: [1, 3, size, size]."""
    page = np.ones((size, size), np.float32)
    for row, column in itertools.product(range(30, size - 20, 60), range(20, size - 20, 12)):
        page[row : row + 20, column : column + 3] = 0
        page[row + column % 3 * 8 : row + column % 3 * 8 + 3, column : column + 9] = 0
    return np.repeat(((page - 0.45) / 0.226)[None, None], 3, axis=1).astype(np.float32)


def _run(path: Path, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    answers: list[np.ndarray] = session.run(None, dict(feed))
    return answers
