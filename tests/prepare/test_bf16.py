"""BF16 by rewriting the graph: as FP16 with FP32's range, fewer digits, and operators that TensorRT lacks kept."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, checker, helper
from onnx.reference import ReferenceEvaluator
from tests.prepare.half_cases import Make, cast_file, run_emulated
from tests.prepare.test_fp16_sweep import sweep_cast

from enginesmith_contract.backends import Precision
from enginesmith_contract.errors import ModelError
from enginesmith_contract.verification import InputValues
from enginesmith_runtime.onnx_graphs.graph import opset_of

F = TensorProto.FLOAT
node = helper.make_node
RANDOM = np.random.default_rng(0)
W = RANDOM.standard_normal((80, 80), dtype=np.float32)
WINDOW = RANDOM.standard_normal((8, 8, 3, 3), dtype=np.float32)
IMAGE = {"x": (F, ["n", 8, 16, 16])}


def _types(path: Path) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in onnx.load(path, load_external_data=False).graph.initializer}


@pytest.mark.parametrize("opset", [11, 17, 22])
def test_layers_compute_in_bf16_at_an_opset_that_has_it(make_model: Make, tmp_path: Path, opset: int) -> None:
    path = make_model(
        [
            node("Conv", ["x", "v"], ["a"], pads=[1, 1, 1, 1]),
            node("Relu", ["a"], ["b"]),
            node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Conv", ["c", "w"], ["y"], pads=[1, 1, 1, 1]),
        ],
        inputs=IMAGE,
        outputs={"y": (F, ["n", 8, 8, 8])},
        weights={"v": WINDOW, "w": 2 * WINDOW},
        opset=opset,
    )
    cast, result = cast_file(path, tmp_path, precision=Precision.BF16)
    checker.check_model(str(cast), full_check=True)
    assert result.kept == {}
    assert opset_of(onnx.load(cast)) == 22
    assert set(_types(cast).values()) == {TensorProto.BFLOAT16}
    feed = {"x": RANDOM.random((2, 8, 16, 16), dtype=np.float32)}
    want = ort.InferenceSession(path).run(None, feed)[0]
    have = run_emulated(cast, feed)
    np.testing.assert_allclose(have, want, atol=8e-2 * np.max(np.abs(want)))
    exact: Any = ReferenceEvaluator(str(cast)).run(None, feed)
    np.testing.assert_allclose(have, exact[0], atol=1e-2 * np.max(np.abs(want)))
    assert np.max(np.abs(have - want)) > 1e-3 * np.max(np.abs(want))  # FP32 would be nearer


def test_operators_that_tensorrt_has_no_bf16_form_of_stay_in_fp32(make_model: Make, tmp_path: Path) -> None:
    path = make_model(
        [
            node("Conv", ["x", "v"], ["a"], name="first", pads=[1, 1, 1, 1]),
            node("HardSwish", ["a"], ["b"], name="swish"),
            node("Conv", ["b", "v"], ["c"], name="second", pads=[1, 1, 1, 1]),
            node("ConvTranspose", ["c", "w"], ["d"], name="up", strides=[2, 2]),
            node("Conv", ["d", "v"], ["y"], name="last"),
        ],
        inputs=IMAGE,
        outputs={"y": (F, ["n", 8, "h", "w"])},
        weights={"v": WINDOW, "w": 2 * WINDOW},
    )
    _, result = cast_file(path, tmp_path, precision=Precision.BF16)
    assert result.kept == dict.fromkeys(("swish", "up"), "TensorRT has no BF16 form of it")


def test_values_beyond_fp16_need_no_fp32(make_model: Make, tmp_path: Path) -> None:
    path = make_model(
        [
            node("MatMul", ["x", "v"], ["a"], name="large"),
            node("Relu", ["a"], ["b"], name="between"),
            node("MatMul", ["b", "w"], ["y"], name="last"),
        ],
        inputs={"x": (F, [1, 80])},
        outputs={"y": (F, [1, 80])},
        weights={"v": 1e5 * W, "w": W},
    )
    (tmp_path / "bf16").mkdir()
    cast, result = cast_file(path, tmp_path / "bf16", precision=Precision.BF16)
    assert result.kept == {}
    feed = {"x": RANDOM.random((1, 80), dtype=np.float32)}
    want = ort.InferenceSession(path).run(None, feed)[0]
    np.testing.assert_allclose(run_emulated(cast, feed), want, atol=8e-2 * np.max(np.abs(want)))
    assert "large" in cast_file(path, tmp_path)[1].kept


def test_integers_that_bf16_does_not_hold_stay_exact_and_the_reason_says_so(make_model: Make, tmp_path: Path) -> None:
    path = make_model(
        [
            node("Cast", ["ids"], ["a"], to=F),
            node("Sub", ["a", "k"], ["b"], name="shifted"),
            node("Equal", ["b", "zero"], ["c"], name="same"),
            node("Cast", ["c"], ["d"], to=F),
            node("MatMul", ["d", "w"], ["e"], name="layer"),
            node("MatMul", ["e", "w"], ["y"], name="last"),
        ],
        inputs={"ids": (TensorProto.INT64, [1, 80])},
        outputs={"y": (F, [1, 80])},
        weights={"k": np.full(1, 300, np.float32), "zero": np.zeros(1, np.float32), "w": W},
    )
    cast, result = cast_file(path, tmp_path, precision=Precision.BF16)
    assert {"shifted", "same"} <= set(result.kept)
    assert "BF16 holds integers up to 256 only" in result.kept["same"]
    assert not any("FP16" in reason for reason in (*result.kept.values(), *result.warnings))
    ids = {"ids": np.arange(260, 340)[None]}
    want = ort.InferenceSession(path).run(None, ids)[0]
    np.testing.assert_allclose(run_emulated(cast, ids), want, atol=8e-2 * np.max(np.abs(want)))


def test_weights_in_other_files_are_converted_there(make_model: Make, tmp_path: Path) -> None:
    path = make_model(
        [node("MatMul", ["x", "w"], ["a"], name="m"), node("MatMul", ["a", "k"], ["y"], name="kept")],
        inputs={"x": (F, ["n", 80])},
        outputs={"y": (F, ["n", 80])},
        weights={"w": W, "k": 2 * W},
    )
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    cast, result = cast_file(path, tmp_path, keep=("kept",), precision=Precision.BF16)
    assert len(result.files) == 2
    feed = {"x": RANDOM.random((2, 80), dtype=np.float32)}
    want = ort.InferenceSession(path).run(None, feed)[0]
    np.testing.assert_allclose(run_emulated(cast, feed), want, atol=8e-2 * np.max(np.abs(want)))
    assert sorted(_types(cast).values()) == [F, TensorProto.BFLOAT16]


@pytest.mark.parametrize("function", [True, False])
def test_a_model_that_cannot_have_the_opset_of_bf16_is_refused(
    make_model: Make, tmp_path: Path, *, function: bool
) -> None:
    path = make_model(
        [node("Relu" if function else "Affine", ["x"], ["a"]), node("Conv", ["a", "v"], ["y"])],
        inputs=IMAGE,
        outputs={"y": (F, ["n", 8, "h", "w"])},
        weights={"v": WINDOW},
        opset=8,
    )
    if function:
        model = onnx.load(path)
        model.functions.append(helper.make_function("own", "F", ["a"], ["b"], [node("Relu", ["a"], ["b"])], []))
        onnx.save(model, path)
    with pytest.raises(ModelError) as refusal:
        cast_file(path, tmp_path, precision=Precision.BF16)
    assert refusal.value.reason == "PrecisionNotAvailable"
    assert "with opset 22" in refusal.value.remedy


def test_nodes_at_fault_in_emulated_bf16_stay_in_fp32(make_model: Make, tmp_path: Path) -> None:
    path = make_model(
        [
            node("MatMul", ["x", "v"], ["a"], name="first"),
            node("Gemm", ["x", "w"], ["b"], name="second"),  # no twin of the first
            node("Sub", ["a", "b"], ["c"], name="difference"),
            node("MatMul", ["c", "w"], ["y"], name="last"),
        ],
        inputs={"x": (F, [1, 80])},
        outputs={"y": (F, [1, 80])},
        weights={"w": W, "v": W + np.float32(3e-3) * W[::-1]},
    )
    cast, result, found = sweep_cast(path, tmp_path, {"x": InputValues(range=(0, 1))}, precision=Precision.BF16)
    assert {"first", "second", "difference"} <= set(result.kept)
    said = " ".join((*result.kept.values(), *result.warnings, *found.warnings))
    assert "in BF16 differs by" in said
    assert "FP16" not in said
    feed = {"x": RANDOM.random((1, 80), dtype=np.float32)}
    want = ort.InferenceSession(path).run(None, feed)[0]
    np.testing.assert_allclose(run_emulated(cast, feed), want, atol=8e-2 * np.max(np.abs(want)))
