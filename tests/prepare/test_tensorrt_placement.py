"""QuantizeLinear and DequantizeLinear where TensorRT fuses them: around weights, inputs and residual shortcuts."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, checker, helper, numpy_helper
from tests.prepare.quantised_cases import (
    Array,
    cast_to_half,
    make_case,
    normalise,
    operators,
    place_all,
    ranges_of,
    residual_case,
    run,
    sqnr,
)

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.errors import ModelError
from enginesmith_runtime.prepare.fp16.cast import cast_model
from enginesmith_runtime.prepare.jobs import CastJob
from enginesmith_runtime.prepare.quantize.placement_rules import check_rules
from enginesmith_runtime.prepare.quantize.tensorrt_placement import place, tensors_to_watch

_RANDOM = np.random.default_rng(1)
_IMAGES = _RANDOM.standard_normal((2, 3, 16, 16)).astype(np.float32)


def _values(model: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _makers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def _sources(model: onnx.ModelProto, node: str) -> list[str]:
    """Return what each input of a node is: `Q(value)` behind a pair, or the operator that makes it."""
    makers = _makers(model)
    (found,) = [one for one in model.graph.node if one.name == node]
    made = [makers.get(name) for name in found.input]
    quantised = [
        makers.get(one.input[0]) if one is not None and one.op_type == "DequantizeLinear" else None for one in made
    ]
    return [
        f"Q({pair.input[0]})" if pair is not None else one.op_type if one is not None else name
        for pair, one, name in zip(quantised, made, found.input, strict=True)
    ]


def test_inputs_and_weights_of_weighted_nodes_and_shortcuts_are_quantised_and_nothing_else() -> None:
    normal = normalise(residual_case()).model
    placed = place(normal, ranges_of(normal, _IMAGES))
    checker.check_model(placed, full_check=True)
    assert check_rules(placed) == ()
    assert _sources(placed, "conv0") == ["Q(x)", "DequantizeLinear", "b0"]
    assert _sources(placed, "conv2") == ["Q(r1)", "DequantizeLinear"]
    assert _sources(placed, "identity") == ["Conv", "Q(r0)"]
    # The projection has the shorter way from the input: it is the shortcut, on whichever side of the Add it stands.
    assert _sources(placed, "projection") == ["Q(c5)", "Conv"]
    assert len(operators(placed, of="QuantizeLinear")) == 6  # r0 and r2 have one pair for all who read them
    assert tensors_to_watch(normal) == ("x", "r0", "r1", "r2", "r3", "c5")


def test_kept_nodes_read_what_they_read_before() -> None:
    normal = normalise(residual_case()).model
    ranges = ranges_of(normal, _IMAGES)
    kept = ("conv2", "projection")
    assert set(tensors_to_watch(normal, kept)) == {"x", "r0", "r2", "r3"}
    placed = place(normal, {name: ranges[name] for name in ("x", "r0", "r2", "r3")}, kept=kept)
    assert _sources(placed, "conv2") == ["Relu", "w2"]
    assert _sources(placed, "identity") == ["Conv", "Relu"]  # its convolution writes floats anyway
    assert _sources(placed, "projection") == ["Conv", "Conv"]
    assert _sources(placed, "conv3")[0] == "Q(r2)"


def test_the_values_to_watch_are_enough_whatever_is_kept_later() -> None:
    normal = normalise(residual_case()).model
    ranges = ranges_of(normal, _IMAGES)
    known = {name: ranges[name] for name in tensors_to_watch(normal)}
    for kept in ([node.name] for node in normal.graph.node):
        assert check_rules(place(normal, known, kept=kept)) == ()
    assert _sources(place(normal, known, kept=["conv4"]), "projection") == ["Conv", "Conv"]


def test_an_add_whose_convolution_others_read_too_keeps_its_inputs() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Sigmoid", ["c"], ["s"]),
        helper.make_node("Mul", ["c", "s"], ["m"]),
        helper.make_node("Add", ["c", "m"], ["y"], name="add"),
    ]
    placed = place_all(make_case(nodes, ["n", 3, 8, 8], {"w": (4, 3, 1, 1)}), _IMAGES[:, :, :8, :8])
    assert _sources(placed, "add") == ["Conv", "Mul"]


def test_values_and_weights_are_symmetric_and_each_channel_of_a_weight_has_its_scale() -> None:
    weight = _RANDOM.standard_normal((4, 3, 3, 3)).astype(np.float32)
    weight[1] *= 1000
    weight[2] = 0
    weight[3] *= 1e-9
    source = make_case([helper.make_node("Conv", ["x", "w"], ["y"], name="conv")], ["n", 3, 16, 16], {"w": weight})
    placed = place_all(source, _IMAGES)
    values = _values(placed)
    assert values["w_quantized"].dtype == np.int8
    assert values["w_scale"].shape == values["w_zero_point"].shape == (4,)
    assert not np.any(values["w_zero_point"])
    assert not np.any(values["x_zero_point"])
    assert values["x_zero_point"].dtype == np.int8
    assert values["x_scale"] == pytest.approx(np.abs(_IMAGES).max() / 127)
    assert np.all(np.abs(values["w_quantized"]) <= 127)
    again = values["w_quantized"] * values["w_scale"].reshape(-1, 1, 1, 1)
    assert np.all(np.abs(again - weight) <= values["w_scale"].reshape(-1, 1, 1, 1) * 0.51)
    assert "w" not in values


@pytest.mark.parametrize(
    ("node", "shape", "weights", "axis"),
    [
        (helper.make_node("Conv", ["x", "w"], ["y"]), (8, 16), {"w": (6, 8, 3)}, 0),
        (helper.make_node("Conv", ["x", "w"], ["y"], group=4), (8, 9, 9), {"w": (12, 2, 3, 3)}, 0),
        (helper.make_node("Conv", ["x", "w"], ["y"]), (2, 4, 5, 6), {"w": (6, 2, 3, 3, 3)}, 0),
        (helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]), (8, 9, 9), {"w": (8, 6, 2, 2)}, 1),
        (helper.make_node("Gemm", ["x", "w", "b"], ["y"]), (8,), {"w": (8, 6), "b": (6,)}, 1),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), (8,), {"w": (6, 8)}, 0),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (5, 8), {"w": (8, 6)}, 1),
    ],
)
def test_scales_lie_along_the_output_channels(
    node: onnx.NodeProto, shape: tuple[int, ...], weights: dict[str, tuple[int, ...]], axis: int
) -> None:
    x = _RANDOM.standard_normal((2, *shape)).astype(np.float32)
    source = make_case([node], ["n", *shape], weights)
    placed = place_all(source, x)
    assert _values(placed)["w_scale"].shape == (6,) if node.op_type != "Conv" or len(shape) != 3 else (12,)
    (dequantize,) = [one for one in operators(placed, of="DequantizeLinear") if one.input[0] == "w_quantized"]
    assert helper.get_node_attr_value(dequantize, "axis") == axis
    assert check_rules(placed) == ()
    assert sqnr(run(source, x)["y"], run(placed, x)["y"]) > 35


def test_weights_without_an_8_bit_kernel_stay_as_they_are() -> None:
    nodes = [
        helper.make_node("ConvTranspose", ["x", "g"], ["t"], group=2),
        helper.make_node("MatMul", ["t", "m"], ["u"]),
        helper.make_node("Conv", ["u", "w"], ["y"]),
    ]
    source = make_case(nodes, ["n", 4, 6, 6], {"g": (4, 2, 1, 1), "m": (4, 6, 6), "w": (2, 4, 1, 1)})
    placed = place_all(source, _RANDOM.standard_normal((2, 4, 6, 6)).astype(np.float32))
    assert {"g", "m"} <= _values(placed).keys()
    assert len(operators(placed, of="QuantizeLinear")) == 1


def test_a_weight_that_two_nodes_read_is_stored_once_and_one_of_them_may_be_kept() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c", "w"], ["y"], name="second", pads=[1, 1, 1, 1]),
    ]
    normal = normalise(make_case(nodes, ["n", 3, 16, 16], {"w": (3, 3, 3, 3)})).model
    ranges = ranges_of(normal, _IMAGES)
    both = _values(place(normal, ranges))
    assert [name for name in both if name.startswith("w")] == ["w_quantized", "w_scale", "w_zero_point"]
    one = place(normal, ranges, kept=["second"])
    assert _sources(one, "second") == ["Conv", "w"]
    assert _sources(one, "first") == ["Q(x)", "DequantizeLinear"]


@pytest.mark.parametrize("kind", [Precision.INT8, Precision.FP8])
def test_the_rest_in_fp16_has_fp16_scales_of_at_least_2_to_the_minus_14_and_no_cast_behind_dequantize(
    kind: Precision, tmp_path: Path
) -> None:
    source = residual_case()
    for tensor in source.graph.initializer:
        if tensor.name == "w4":
            small = numpy_helper.to_array(tensor) * np.array([1, 0, 1e-3, 1e-9, 1, 1, 1, 1], np.float32).reshape(
                -1, 1, 1, 1
            )
            tensor.CopyFrom(numpy_helper.from_array(small, "w4"))
    normal = normalise(source).model
    placed = place(cast_to_half(normal, tmp_path), ranges_of(normal, _IMAGES), kind=kind)
    checker.check_model(placed, full_check=True)
    assert check_rules(placed) == ()
    assert {value.type.tensor_type.elem_type for value in (*placed.graph.input, *placed.graph.output)} == {
        TensorProto.FLOAT
    }
    for node in (*operators(placed, of="QuantizeLinear"), *operators(placed, of="DequantizeLinear")):
        scale = _values(placed)[node.input[1]]
        assert scale.dtype == np.float16
        assert np.all(scale.astype(np.float64) >= 2.0**-14)
    assert not [node for node in operators(placed, of="Cast") if "dequantized" in node.input[0]]
    want, have = run(normal, _IMAGES)["y"], run(placed, _IMAGES)["y"]
    assert sqnr(want, have) > (25 if kind is Precision.INT8 else 17)


def test_a_node_that_the_cast_keeps_in_fp32_has_fp32_scales(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="large"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"], name="ordinary"),
    ]
    large = _RANDOM.standard_normal((4, 3, 1, 1)).astype(np.float32) * 1e5  # FP16 ends at 65504
    source = make_case(nodes, ["n", 3, 16, 16], {"w": large, "v": (2, 4, 1, 1)})
    normal = normalise(source).model
    placed = place(cast_to_half(normal, tmp_path), ranges_of(normal, _IMAGES))
    checker.check_model(placed, full_check=True)
    assert check_rules(placed) == ()
    values = _values(placed)
    assert values["w_scale"].dtype == np.float32
    assert sqnr(run(normal, _IMAGES)["y"], run(placed, _IMAGES)["y"]) > 30


@pytest.mark.parametrize("kept", ["conv2", "conv4", "conv5", "projection", "identity"])
def test_a_block_that_computes_in_two_types_has_the_shortcuts_of_its_source_or_none(kept: str, tmp_path: Path) -> None:
    normal = normalise(residual_case()).model
    source, output = tmp_path / "normal.onnx", tmp_path / "cast"
    output.mkdir()
    onnx.save(normal, source)
    policy = PrecisionPolicy(default=Precision.FP16)
    job = CastJob(model=str(source), output=str(output), policy=policy, keep={kept: "its values reach 1e6"})
    half = onnx.load(output / cast_model(job).files[0])
    ranges = ranges_of(normal, _IMAGES)
    placed = place(half, {name: ranges[name] for name in tensors_to_watch(normal)})
    checker.check_model(placed, full_check=True)
    assert check_rules(placed) == ()
    assert sqnr(run(normal, _IMAGES)["y"], run(placed, _IMAGES)["y"]) > 25


def test_a_rest_in_bf16_has_bf16_scales(tmp_path: Path) -> None:
    normal = normalise(residual_case()).model
    source, output = tmp_path / "normal.onnx", tmp_path / "cast"
    output.mkdir()
    onnx.save(normal, source)
    job = CastJob(model=str(source), output=str(output), policy=PrecisionPolicy(default=Precision.BF16))
    placed = place(onnx.load(output / cast_model(job).files[0]), ranges_of(normal, _IMAGES))
    checker.check_model(placed, full_check=True)
    assert check_rules(placed) == ()
    assert "bfloat16" in {str(array.dtype) for name, array in _values(placed).items() if name.endswith("_scale")}


def test_fp8_has_one_scale_for_each_tensor_and_448_as_its_largest_step() -> None:
    placed = place_all(residual_case(), _IMAGES, Precision.FP8)
    values = _values(placed)
    types = {tensor.name: tensor.data_type for tensor in placed.graph.initializer}
    assert types["w1_quantized"] == types["r0_zero_point"] == TensorProto.FLOAT8E4M3FN
    assert values["w1_scale"].shape == ()
    assert np.abs(values["w1_quantized"].astype(np.float32)).max() == 448
    assert values["x_scale"] == pytest.approx(np.abs(_IMAGES).max() / 448)


@pytest.mark.parametrize("amax", [None, 0.0, float("nan"), float("inf"), -1.0])
def test_a_missing_or_impossible_range_is_refused_with_the_value_s_name(amax: float | None) -> None:
    normal = normalise(residual_case()).model
    ranges = {name: value for name, value in ranges_of(normal, _IMAGES).items() if name != "r1"}
    with pytest.raises(ModelError) as caught:
        place(normal, ranges if amax is None else {**ranges, "r1": amax})
    assert caught.value.reason == "RangeMissing"
    assert "r1" in caught.value.sentence()


def test_real_models_keep_every_rule_and_shrink(ocr_models: Path, tmp_path: Path) -> None:
    sizes = {"det": 0.30, "rec": 0.30, "cls": 0.40}
    shapes = {"det": (1, 3, 96, 96), "rec": (1, 3, 48, 96), "cls": (1, 3, 48, 192)}
    for name, share in sizes.items():
        path = ocr_models / f"{name}.onnx"
        normal = normalise(onnx.load(path)).model
        x = _RANDOM.uniform(-1, 1, shapes[name]).astype(np.float32)
        folder = tmp_path / name
        folder.mkdir()
        half = cast_to_half(normal, folder)
        placed = place(half, ranges_of(normal, x))
        checker.check_model(placed, full_check=True)
        assert check_rules(placed) == ()
        assert placed.ByteSize() < share * path.stat().st_size
