"""The rules of TensorRT for a quantised graph: each is broken once, and the sentence names the node."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.prepare.quantised_cases import make_case, operators, place_all

from enginesmith_contract.backends import Precision
from enginesmith_runtime.prepare.quantize.placement_rules import check_rules

_X = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
_CONV = [
    helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv"),
    helper.make_node("Relu", ["c"], ["y"], name="relu"),
]
_PRODUCT = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
_CHANNELS = {"w": (5, 3, 3, 3), "b": (5,)}
Break = Callable[[onnx.ModelProto], None]


def _quantised(kind: Precision = Precision.INT8) -> onnx.ModelProto:
    return place_all(make_case(_CONV, ["n", 3, 8, 8], _CHANNELS), _X, kind)


def _put(model: onnx.ModelProto, name: str, array: np.ndarray[Any, Any]) -> None:
    (tensor,) = [one for one in model.graph.initializer if one.name == name]
    tensor.CopyFrom(numpy_helper.from_array(array, name))


def _get(model: onnx.ModelProto, name: str) -> np.ndarray[Any, Any]:
    (tensor,) = [one for one in model.graph.initializer if one.name == name]
    return numpy_helper.to_array(tensor)


def _retype(model: onnx.ModelProto, name: str, dtype: int) -> None:
    numpy_type = helper.tensor_dtype_to_np_dtype(dtype)
    _put(model, name, _get(model, name).astype(numpy_type))


def _uint8_values(model: onnx.ModelProto) -> None:
    _retype(model, "x_zero_point", TensorProto.UINT8)


def _uint8_by_default(model: onnx.ModelProto) -> None:
    for node in (*operators(model, of="QuantizeLinear"), *operators(model, of="DequantizeLinear")):
        if node.input[2] == "x_zero_point":
            del node.input[2]


def _uint8_by_attribute(model: onnx.ModelProto) -> None:
    _uint8_by_default(model)
    (node,) = operators(model, of="QuantizeLinear")
    node.attribute.append(helper.make_attribute("output_dtype", TensorProto.UINT8))


def _uint8_weights(model: onnx.ModelProto) -> None:
    for name in ("w_quantized", "w_zero_point"):
        _put(model, name, np.abs(_get(model, name)).astype(np.uint8))


def _int16_values(model: onnx.ModelProto) -> None:
    _retype(model, "x_zero_point", TensorProto.INT16)


def _e5m2_values(model: onnx.ModelProto) -> None:
    _retype(model, "x_zero_point", TensorProto.FLOAT8E5M2)


def _shifted_values(model: onnx.ModelProto) -> None:
    _put(model, "x_zero_point", np.array(3, np.int8))


def _shifted_weight(model: onnx.ModelProto) -> None:
    _put(model, "w_zero_point", np.array([0, 0, 0, 0, 1], np.int8))


def _computed_scale(model: onnx.ModelProto) -> None:
    node = helper.make_node("Abs", ["x_scale"], ["computed"], name="abs")
    model.graph.node.insert(0, node)
    (quantize,) = operators(model, of="QuantizeLinear")
    quantize.input[1] = "computed"


def _scale(value: float) -> Break:
    def change(model: onnx.ModelProto) -> None:
        _put(model, "x_scale", np.array(value, np.float32))
        scales = _get(model, "w_scale").copy()
        scales[3] = value
        _put(model, "w_scale", scales)

    return change


def _small_fp16_scale(model: onnx.ModelProto) -> None:
    _put(model, "x_scale", np.array(3e-5, np.float16))


def _bias_in_int32(model: onnx.ModelProto) -> None:
    (conv,) = operators(model, of="Conv")
    model.graph.initializer.append(numpy_helper.from_array(np.ones(5, np.int32), "b_int32"))
    node = helper.make_node("DequantizeLinear", ["b_int32", "w_scale"], ["b_float"], name="bias", axis=0)
    model.graph.node.insert(0, node)
    conv.input[2] = "b_float"


def _one_scale_for_a_weight(model: onnx.ModelProto) -> None:
    _put(model, "w_scale", np.array(0.1, np.float32))
    _put(model, "w_zero_point", np.array(0, np.int8))


def _wrong_axis(model: onnx.ModelProto) -> None:
    (node,) = [one for one in operators(model, of="DequantizeLinear") if one.input[0] == "w_quantized"]
    node.attribute[0].i = 1


def _scales_for_channels_of_a_value(model: onnx.ModelProto) -> None:
    _put(model, "x_scale", np.array([0.1, 0.2, 0.1], np.float32))
    _put(model, "x_zero_point", np.zeros(3, np.int8))


def _cast_behind(model: onnx.ModelProto) -> None:
    (conv,) = operators(model, of="Conv")
    index = list(model.graph.node).index(conv)
    model.graph.node.insert(
        index, helper.make_node("Cast", [conv.input[0]], ["cast"], name="cast", to=TensorProto.FLOAT)
    )
    (conv,) = operators(model, of="Conv")
    conv.input[0] = "cast"


def _domain_of_onnx_runtime(model: onnx.ModelProto) -> None:
    (node,) = operators(model, of="QuantizeLinear")
    node.domain = "com.microsoft"


def _wrong_axis_of_a_weight_in_float(model: onnx.ModelProto) -> None:
    (dequantize,) = [one for one in operators(model, of="DequantizeLinear") if one.input[0] == "w_quantized"]
    values = _get(model, "w_quantized").astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(values, "w_float"))
    inputs = ["w_float", *dequantize.input[1:]]
    model.graph.node.insert(0, helper.make_node("QuantizeLinear", inputs, ["w_made"], name="made", axis=1))
    dequantize.input[0] = "w_made"
    dequantize.attribute[0].i = 1


def _unsorted(model: onnx.ModelProto) -> None:
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))


def _fp8_weights_of_int8_values(model: onnx.ModelProto) -> None:
    other = _quantised(Precision.FP8)
    for name in ("w_quantized", "w_scale", "w_zero_point"):
        (old,) = [one for one in model.graph.initializer if one.name == name]
        old.CopyFrom(next(one for one in other.graph.initializer if one.name == name))


def _old_opset(version: int) -> Break:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = version

    return change


def _fp16_scale_in_opset_17(model: onnx.ModelProto) -> None:
    _put(model, "x_scale", np.array(0.5, np.float16))
    _old_opset(17)(model)


def _one_name_for_two_sizes(model: onnx.ModelProto) -> None:
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "?"


@pytest.mark.parametrize(
    ("change", "wants"),
    [
        (_uint8_values, ("x_quantized_node", "UINT8")),
        (_uint8_by_default, ("x_quantized_node", "UINT8")),
        (_uint8_by_attribute, ("x_quantized_node", "UINT8")),
        (_uint8_weights, ("w_dequantized_node", "UINT8")),
        (_int16_values, ("x_quantized_node", "INT16")),
        (_e5m2_values, ("x_quantized_node", "FLOAT8E5M2")),
        (_shifted_values, ("x_quantized_node", "zero point other than 0")),
        (_shifted_weight, ("w_dequantized_node", "zero point other than 0")),
        (_computed_scale, ("x_quantized_node", "computes its scale")),
        (_scale(0.0), ("x_quantized_node", "w_dequantized_node", "scale of 0")),
        (_scale(-0.1), ("x_quantized_node", "w_dequantized_node", "scale of -0.1")),
        (_scale(float("nan")), ("x_quantized_node", "w_dequantized_node", "scale of nan")),
        (_scale(float("inf")), ("x_quantized_node", "w_dequantized_node", "scale of inf")),
        (_small_fp16_scale, ("x_quantized_node", "2^-14")),
        (_bias_in_int32, ("bias", "INT32", "leave a bias in float")),
        (_one_scale_for_a_weight, ("conv", "one scale for its whole weight")),
        (_wrong_axis, ("conv", "axis 1", "axis 0")),
        (_wrong_axis_of_a_weight_in_float, ("conv", "axis 1", "axis 0")),
        (_domain_of_onnx_runtime, ("x_quantized_node", "com.microsoft")),
        (_scales_for_channels_of_a_value, ("x_quantized_node", "a scale for each channel of a value")),
        (_cast_behind, ("cast", "after DequantizeLinear x_dequantized_node")),
        (_unsorted, ("is before", "sort the nodes")),
        (_fp8_weights_of_int8_values, ("conv", "FLOAT8E4M3FN weights and INT8 values")),
        (_old_opset(12), ("w_dequantized_node", "needs opset 13")),
        (_fp16_scale_in_opset_17, ("x_quantized_node", "needs opset 19")),
        (_one_name_for_two_sizes, ("x has several dimensions named '?'",)),
    ],
)
def test_each_broken_rule_is_named(change: Break, wants: tuple[str, ...]) -> None:
    model = _quantised()
    assert check_rules(model) == ()
    change(model)
    sentences = "\n".join(check_rules(model))
    assert all(word in sentences for word in wants), sentences


def test_a_product_s_scales_lie_along_its_columns() -> None:
    x = np.random.default_rng(2).standard_normal((4, 6)).astype(np.float32)
    model = place_all(make_case(_PRODUCT, ["n", 6], {"w": (6, 6)}), x)
    _wrong_axis_of_product = next(
        one for one in operators(model, of="DequantizeLinear") if one.input[0] == "w_quantized"
    )
    _wrong_axis_of_product.attribute[0].i = 0
    (sentence,) = check_rules(model)
    assert all(word in sentence for word in ("product", "axis 0", "axis 1"))


def test_fp8_needs_opset_19() -> None:
    model = _quantised(Precision.FP8)
    assert check_rules(model) == ()
    model.opset_import[0].version = 17
    assert "needs opset 19" in check_rules(model)[0]


def test_weights_in_float_with_a_pair_of_their_own_and_weights_in_int4_are_taken() -> None:
    weight = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)
    pair = [
        helper.make_node("QuantizeLinear", ["w", "s", "z"], ["q"], name="q", axis=1),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="d", axis=1),
        helper.make_node("MatMul", ["x", "d"], ["y"], name="product"),
    ]
    scales = {"s": np.full(8, 0.02, np.float32), "z": np.zeros(8, np.int8)}
    assert check_rules(make_case(pair, ["n", 16], {"w": weight, **scales}, opset=21)) == ()
    blocks = make_case(
        [helper.make_node("DequantizeLinear", ["w", "s"], ["d"], name="d", axis=0, block_size=16), pair[2]],
        ["n", 32],
        {"s": np.full((2, 8), 0.02, np.float32)},
        opset=21,
    )
    blocks.graph.initializer.append(helper.make_tensor("w", TensorProto.INT4, [32, 8], np.ones(256, np.int8)))
    assert check_rules(blocks) == ()
    blocks.opset_import[0].version = 20
    assert "needs opset 21" in check_rules(blocks)[0]
