"""Files that are no usable model: each is refused with a reason, its place and what to do, before anything runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from enginesmith_contract.errors import EnginesmithError, ModelError, SpecError
from enginesmith_contract.tensors import DType
from enginesmith_runtime.prepare.model_file.check import inspect
from enginesmith_runtime.prepare.model_file.facts import inspect_model

Make = Callable[..., Path]
Prepare = Callable[..., object]
F = TensorProto.FLOAT


@pytest.mark.parametrize(
    ("content", "want_fragment"),
    [
        pytest.param(b"", "empty", id="an empty file"),
        pytest.param(b"<html><body>404</body></html>", "web page", id="a web page"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\noid x\n", "Git LFS", id="a Git LFS pointer"),
        pytest.param(b"PK\x03\x04rest", "zip", id="a PyTorch checkpoint"),
        pytest.param(b"\x08\x09\x12\xff\xff", "damaged", id="a damaged file"),
    ],
)
def test_a_file_that_is_no_model_says_what_it_is(tmp_path: Path, content: bytes, want_fragment: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        inspect(path)
    assert caught.value.reason == "NotOnnx"
    assert want_fragment in str(caught.value)
    assert "model.onnx" in str(caught.value)


def test_a_real_model_that_was_cut_short_is_refused(tmp_path: Path, ocr_models: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes((ocr_models / "cls.onnx").read_bytes()[:200_000])
    with pytest.raises(ModelError) as caught:
        inspect(path)
    assert caught.value.reason == "NotOnnx"
    assert "200000 bytes" in str(caught.value)


def test_every_unknown_operator_is_listed_by_node_and_operator(make_model: Make) -> None:
    path = make_model(
        [
            helper.make_node("FooBar", ["x"], ["a"], name="first"),
            helper.make_node("Relu", ["a"], ["b"], name="fine"),
            helper.make_node("Frobnicate", ["b"], ["y"]),
        ],
        inputs={"x": (F, [1, 4])},
        outputs={"y": (F, [1, 4])},
    )
    with pytest.raises(ModelError) as caught:
        inspect(path)
    assert caught.value.reason == "OperatorsUnknown"
    assert "first (FooBar)" in str(caught.value)
    assert "y (Frobnicate)" in str(caught.value)
    assert "fine" not in str(caught.value)


def test_an_operator_of_another_domain_needs_a_plugin_and_is_no_error(make_model: Make) -> None:
    path = make_model(
        [helper.make_node("MyOp", ["x"], ["y"], name="mine", domain="acme")],
        inputs={"x": (F, [1, 4])},
        outputs={"y": (F, [1, 4])},
        domains=["acme"],
    )
    assert inspect(path).warnings == ("node mine uses acme::MyOp, which needs a plugin library in build.plugins",)


def test_unknown_operators_inside_branches_are_found(make_model: Make) -> None:
    def branch(op: str, output: str) -> onnx.GraphProto:
        node = helper.make_node(op, ["x"], [output], name=f"in_{op}")
        return helper.make_graph([node], op, [], [helper.make_tensor_value_info(output, F, [1, 4])])

    path = make_model(
        [helper.make_node("If", ["c"], ["y"], then_branch=branch("Relu", "t"), else_branch=branch("Nope", "e"))],
        inputs={"x": (F, [1, 4]), "c": (TensorProto.BOOL, [])},
        outputs={"y": (F, [1, 4])},
    )
    with pytest.raises(ModelError, match=r"in_Nope \(Nope\)"):
        inspect(path)


@pytest.mark.parametrize(
    ("change", "want_reason", "want_fragment"),
    [
        pytest.param({"opset": 99}, "ModelTooNew", "opset 99", id="an opset from the future"),
        pytest.param({"opset": 6}, "OpsetTooOld", "opset 6", id="an opset that no runtime reads"),
    ],
)
def test_operator_sets_have_a_range(
    make_model: Make, change: dict[str, Any], want_reason: str, want_fragment: str
) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    path = make_model(nodes, inputs={"x": (F, [1])}, outputs={"y": (F, [1])}, **change)
    with pytest.raises(ModelError) as caught:
        inspect(path)
    assert caught.value.reason == want_reason
    assert want_fragment in str(caught.value)


def test_missing_weight_files_are_all_named(make_model: Make) -> None:
    path = _with_external_weight(make_model)
    (path.parent / "weights.bin").unlink()
    with pytest.raises(ModelError) as caught:
        inspect(path)
    assert caught.value.reason == "ExternalDataMissing"
    assert "weights.bin" in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "want_fragment"),
    [
        pytest.param(TensorProto.COMPLEX64, "x: dtype complex64", id="complex"),
        pytest.param(TensorProto.FLOAT8E4M3FN, "x: dtype float8e4m3fn", id="float8"),
    ],
)
def test_a_dtype_that_cannot_be_served_is_named(make_model: Make, dtype: int, want_fragment: str) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    path = make_model(nodes, inputs={"x": (dtype, [1])}, outputs={"y": (dtype, [1])}, opset=19)
    with pytest.raises(ModelError) as caught:
        inspect_model(path)
    assert caught.value.reason == "TensorTypeUnsupported"
    assert want_fragment in str(caught.value)


def test_a_sequence_as_output_is_named(make_model: Make) -> None:
    nodes = [helper.make_node("SplitToSequence", ["x"], ["parts"])]
    path = make_model(nodes, inputs={"x": (F, [4, 2])}, outputs={"parts": (F, [2])})
    model = onnx.load(path)
    sequence = helper.make_tensor_sequence_value_info("parts", F, None)
    model.graph.output[0].CopyFrom(sequence)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="parts: sequence") as caught:
        inspect_model(path)
    assert caught.value.reason == "TensorTypeUnsupported"


def test_strings_are_taken_with_a_warning(make_model: Make) -> None:
    nodes = [helper.make_node("Identity", ["s"], ["t"])]
    path = make_model(nodes, inputs={"s": (TensorProto.STRING, [2])}, outputs={"t": (TensorProto.STRING, [2])})
    inspection = inspect(path)
    assert inspection.facts.inputs[0].dtype is DType.BYTES
    assert "or use the backend onnxruntime" in inspection.warnings[0]


def test_weights_are_no_inputs_and_question_marks_are_no_names(make_model: Make, ocr_models: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    path = make_model(
        nodes,
        inputs={"x": (F, ["batch", 4]), "w": (F, [4])},
        outputs={"y": (F, ["batch", 4])},
        weights={"w": np.ones(4, np.float32)},
    )
    facts = inspect_model(path)
    assert [(spec.name, spec.shape, spec.symbols) for spec in facts.inputs] == [("x", (-1, 4), ("batch", None))]
    recognise = inspect_model(ocr_models / "rec.onnx").inputs[0]
    assert recognise.shape == (-1, 3, -1, -1)
    assert recognise.symbols[2] is None
    classify = inspect_model(ocr_models / "cls.onnx").inputs[0]
    assert (classify.shape, set(classify.symbols)) == ((-1, 3, -1, -1), {None})


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_a_quantised_precision_without_samples_is_refused(prepare_model: Prepare, precision: str) -> None:
    with pytest.raises(EnginesmithError) as caught:
        prepare_model(Path("no-such-model.onnx"), precision={"default": precision})
    assert caught.value.reason == "CalibrationDataMissing"
    assert "set precision.calibration" in str(caught.value).lower()


def test_values_for_an_input_that_there_is_not_are_refused(prepare_model: Prepare, make_model: Make) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    path = make_model(nodes, inputs={"x": (F, [1, 4])}, outputs={"y": (F, [1, 4])})
    with pytest.raises(SpecError, match="it has x") as caught:
        prepare_model(path, verification={"inputs": {"z": {"constant": 1}}})
    assert caught.value.reason == "UnknownInput"


def _with_external_weight(make_model: Make) -> Path:
    path = make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        inputs={"x": (F, ["n", 64])},
        outputs={"y": (F, ["n", 64])},
        weights={"w": np.eye(64, dtype=np.float32)},
    )
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path
