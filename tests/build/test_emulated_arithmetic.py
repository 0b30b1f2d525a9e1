"""An engine of ONNX Runtime computes in the arithmetic that its graph says, and is verified in it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from enginesmith_contract.backends import Backend, Precision
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import BuildError, VerificationError
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.verification import VerificationPolicy, VerificationStatus
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.engines.registry import loader
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.store.interface import Store

PrepareModel = Callable[..., Preparation]
MakeRequest = Callable[..., BuildRequest]
Floats = np.ndarray[Any, Any]
F, HALF, BF16 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
node = helper.make_node
PROFILE = Profile(inputs={"x": ShapeRange(min=(1, 64), opt=(2, 64), max=(8, 64))})


def test_an_fp16_engine_answers_large_values_rightly(
    tmp_path: Path, work: Path, store: Store, prepare_model: PrepareModel, make_request: MakeRequest
) -> None:
    path = _write(tmp_path, _norm("x", "y"), weights={"ax": np.array([1], np.int64)})
    preparation = prepare_model(path, PROFILE, Precision.FP16)
    assert {"s", "t"} <= set(preparation.kept)
    answer = _answer(store, build(make_request(preparation), work, SilentReporter()), tmp_path, 100.0)
    np.testing.assert_allclose(answer, 800)


def test_an_fp16_engine_rounds_as_fp16_does_and_says_so(
    tmp_path: Path, work: Path, store: Store, prepare_model: PrepareModel, make_request: MakeRequest
) -> None:
    # Layers that hand their input on, with weights as training makes them.
    noise = np.random.default_rng(0).standard_normal((64, 80), dtype=np.float32)
    layer = np.eye(64, 80, dtype=np.float32) + np.float32(1e-6) * noise
    nodes = [
        node("MatMul", ["x", "v"], ["a"]),
        node("Add", ["a", "k"], ["b"]),
        node("Sub", ["b", "k"], ["c"]),
        node("MatMul", ["c", "w"], ["y"]),
    ]
    path = _write(
        tmp_path, nodes, weights={"k": np.tile(np.array([64, 0], np.float32), 40), "v": layer, "w": layer.T}, width=64
    )
    # With samples the preparation tries no other values, which would keep these layers in FP32.
    np.savez(tmp_path / "x.npz", x=np.full((8, 64), 0.51, np.float32))
    verification = VerificationPolicy.model_validate({"inputs": {"x": {"npz": str(tmp_path / "x.npz")}}, "limit": 1.0})
    preparation = prepare_model(path, PROFILE, Precision.FP16, verification)
    manifest = build(make_request(preparation, verification={"limit": 1.0}), work, SilentReporter())
    assert any("emulated FP16" in note for note in manifest.notes)
    # FP16 has steps of 1/16 between 64 and 128.
    np.testing.assert_allclose(_answer(store, manifest, tmp_path, 0.51)[:, ::2], 0.5, atol=1e-3)
    assert manifest.verification.differences[0].difference > 1e-2


def test_a_model_that_overflows_in_its_own_fp16_is_not_verified(
    tmp_path: Path, work: Path, prepare_model: PrepareModel, make_request: MakeRequest
) -> None:
    nodes = [
        node("Mul", ["x", "k"], ["z"]),
        node("Cast", ["z"], ["h"], to=HALF),
        *_norm("h", "u"),
        node("Cast", ["u"], ["y"], to=F),
    ]
    path = _write(tmp_path, nodes, weights={"ax": np.array([1], np.int64), "k": np.full(1, 300, np.float32)})
    preparation = prepare_model(path, PROFILE)
    assert preparation.own_precisions == (Precision.FP16,)
    with pytest.raises(VerificationError):
        build(make_request(preparation), work, SilentReporter())


def test_a_model_with_bf16_inside_is_served_and_held_to_bf16_s_limit(
    tmp_path: Path, work: Path, store: Store, prepare_model: PrepareModel, make_request: MakeRequest
) -> None:
    nodes = [node("Cast", ["x"], ["h"], to=BF16), *_norm("h", "u"), node("Cast", ["u"], ["y"], to=F)]
    preparation = prepare_model(_write(tmp_path, nodes, weights={"ax": np.array([1], np.int64)}), PROFILE)
    manifest = build(make_request(preparation), work, SilentReporter())
    assert manifest.verification.status is VerificationStatus.PASSED
    assert manifest.verification.limit == 8e-2
    assert any("emulated BF16" in note for note in manifest.notes)
    np.testing.assert_array_equal(_answer(store, manifest, tmp_path, 100.0), 800)


def test_a_model_with_bf16_inside_is_built_for_tensorrt_rtx(
    tmp_path: Path, work: Path, prepare_model: PrepareModel, make_request: MakeRequest
) -> None:
    nodes = [
        node("Cast", ["x"], ["h"], to=BF16),
        node("Add", ["h", "h"], ["u"]),
        node("Cast", ["u"], ["y"], to=F),
    ]
    preparation = prepare_model(_write(tmp_path, nodes, width=64), PROFILE)
    manifest = build(make_request(preparation, Backend.TENSORRT_RTX), work, SilentReporter())
    assert manifest.verification.limit == 8e-2


def test_a_model_is_prepared_in_bf16_and_built_for_tensorrt_rtx_alone(
    tmp_path: Path, work: Path, prepare_model: PrepareModel, make_request: MakeRequest
) -> None:
    layer = np.random.default_rng(0).standard_normal((64, 80), dtype=np.float32)
    nodes = [node("MatMul", ["x", "v"], ["a"]), node("Relu", ["a"], ["b"]), node("MatMul", ["b", "w"], ["y"])]
    path = _write(tmp_path, nodes, weights={"v": layer, "w": layer.T}, width=64)
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(1).random((8, 64), dtype=np.float32))
    verification = VerificationPolicy.model_validate({"inputs": {"x": {"npz": str(tmp_path / "x.npz")}}})
    preparation = prepare_model(path, PROFILE, Precision.BF16, verification)
    assert preparation.kept == {}
    (seen,) = preparation.facts.expected_differences or ()
    assert 1e-4 < seen.difference < seen.limit == 8e-2
    manifest = build(make_request(preparation, Backend.TENSORRT_RTX), work, SilentReporter())
    assert manifest.verification.limit == 8e-2
    assert manifest.inspector["networkLayers"] == {"ACTIVATION": 1, "CAST": 2, "CONSTANT": 2, "MATRIX_MULTIPLY": 2}
    with pytest.raises(BuildError) as refusal:
        build(make_request(preparation), work, SilentReporter())
    assert refusal.value.reason == "PrecisionNotAvailable"
    assert "backend: tensorrt or tensorrt-rtx" in refusal.value.remedy


def test_outputs_in_bf16_are_refused_by_onnx_runtime_with_a_reason(
    tmp_path: Path, work: Path, prepare_model: PrepareModel, make_request: MakeRequest
) -> None:
    path = _write(tmp_path, [node("Cast", ["x"], ["y"], to=BF16)], width=64, output=BF16)
    with pytest.raises(BuildError) as refusal:
        build(make_request(prepare_model(path, PROFILE)), work, SilentReporter())
    assert refusal.value.reason == "DTypeUnsupported"
    assert "keep the model's inputs and outputs in FP32" in refusal.value.remedy


def _norm(source: str, result: str) -> list[onnx.NodeProto]:
    return [
        node("Mul", [source, source], ["s"]),
        node("ReduceSum", ["s", "ax"], ["t"], keepdims=1),
        node("Sqrt", ["t"], [result]),
    ]


def _write(
    folder: Path,
    nodes: list[onnx.NodeProto],
    *,
    weights: Mapping[str, Floats] | None = None,
    width: int = 1,
    output: int = F,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", F, ["n", 64])],
        [helper.make_tensor_value_info("y", output, ["n", width])],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def _answer(store: Store, manifest: Manifest, folder: Path, value: float) -> Floats:
    files = folder / "loaded"
    files.mkdir()
    store.get_files(manifest.files, files)
    engine = loader(Backend.ONNXRUNTIME).load(manifest, files, {})
    try:
        with engine.open_instance() as instance:
            return np.asarray(
                instance.infer({"x": np.full((1, 64), value, np.float32)}, profile=0, outputs=("y",))["y"]
            )
    finally:
        engine.close()
