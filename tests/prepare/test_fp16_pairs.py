"""A source with QuantizeLinear and DequantizeLinear of its own, cast: no Cast hides a pair from its operator."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, checker, numpy_helper
from tests.prepare.half_cases import cast_file
from tests.prepare.quantised_cases import operators, place_all, residual_case, run, sqnr

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_runtime.prepare.fp16.cast import cast_model
from enginesmith_runtime.prepare.jobs import CastJob
from enginesmith_runtime.prepare.quantize.placement_rules import check_rules

_X = np.random.default_rng(1).standard_normal((2, 3, 16, 16)).astype(np.float32)


def _quantised_source(folder: Path, opset: int = 21) -> Path:
    model = place_all(residual_case(), _X)
    model.opset_import[0].version = opset
    path = folder / "quantised.onnx"
    onnx.save(model, path)
    return path


def _scales(model: onnx.ModelProto) -> dict[str, int]:
    """Return the types of scales by the node that reads them."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    pairs = (*operators(model, of="QuantizeLinear"), *operators(model, of="DequantizeLinear"))
    return {node.name: types[node.input[1]] for node in pairs}


def test_pairs_between_fp16_nodes_have_fp16_scales_and_no_cast_around_them(tmp_path: Path) -> None:
    source = _quantised_source(tmp_path)
    path, result = cast_file(source, tmp_path)
    model = onnx.load(path)
    checker.check_model(model, full_check=True)
    assert check_rules(model) == ()
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in operators(model, of="Conv"):
        assert [makers[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
    scales = _scales(model)
    ends = {"x_quantized_node", "c5_dequantized_node"}  # the model's input and its last Add are FP32
    assert {name for name, dtype in scales.items() if dtype == TensorProto.FLOAT} == ends
    assert ends <= set(result.kept)
    assert not [name for name in result.kept if name in scales.keys() - ends]
    before, after = run(onnx.load(source), _X)["y"], run(model, _X)["y"]
    assert sqnr(before, after) > 30


def test_before_opset_19_scales_are_fp32_as_the_operators_demand(tmp_path: Path) -> None:
    path, result = cast_file(_quantised_source(tmp_path, opset=17), tmp_path)
    model = onnx.load(path)
    checker.check_model(model, full_check=True)
    assert set(_scales(model).values()) == {TensorProto.FLOAT}
    assert set(_scales(model)) <= set(result.kept)


def test_a_scale_that_is_too_small_for_fp16_stays_and_its_neighbours_do_not(tmp_path: Path) -> None:
    source = _quantised_source(tmp_path)
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        if tensor.name == "w2_scale":
            array = numpy_helper.to_array(tensor).copy()
            array[1] = 1e-6
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(model, source)
    path, result = cast_file(source, tmp_path)
    cast = onnx.load(path)
    checker.check_model(cast, full_check=True)
    scales = _scales(cast)
    assert scales["w2_dequantized_node"] == TensorProto.FLOAT
    assert scales["w1_dequantized_node"] == TensorProto.FLOAT16
    assert "w2_dequantized_node" in result.kept


def test_scales_in_a_file_of_their_own_are_read_from_there(tmp_path: Path) -> None:
    model = onnx.load(_quantised_source(tmp_path))
    source = tmp_path / "large.onnx"
    want = run(model, _X)["y"]
    onnx.save(model, source, save_as_external_data=True, location="large.bin", size_threshold=0)
    path, _ = cast_file(source, tmp_path)
    cast = onnx.load(path)
    checker.check_model(cast, full_check=True)
    assert check_rules(cast) == ()
    assert sqnr(want, run(cast, _X)["y"]) > 30


@pytest.mark.parametrize("kept", ["conv3", "relu3"])
def test_a_node_that_stays_in_fp32_has_fp32_pairs_and_the_others_fp16(tmp_path: Path, kept: str) -> None:
    source = _quantised_source(tmp_path)
    path, _ = cast_file(source, tmp_path, keep=(kept,))
    model = onnx.load(path)
    checker.check_model(model, full_check=True)
    assert sqnr(run(onnx.load(source), _X)["y"], run(model, _X)["y"]) > 30
    assert TensorProto.FLOAT in _scales(model).values()
    assert TensorProto.FLOAT16 in _scales(model).values()


def test_bf16_scales_follow_too(tmp_path: Path) -> None:
    output = tmp_path / "cast"
    output.mkdir()
    source = _quantised_source(tmp_path)
    job = CastJob(model=str(source), output=str(output), policy=PrecisionPolicy(default=Precision.BF16))
    model = onnx.load(output / cast_model(job).files[0])
    checker.check_model(model, full_check=True)
    assert check_rules(model) == ()
    assert TensorProto.BFLOAT16 in _scales(model).values()
