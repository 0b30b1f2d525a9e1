"""The placement for ONNX Runtime's CPU provider: its integer kernels take the whole layer."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, checker, helper
from tests.prepare.quantised_cases import make_case, normalise, operators, ranges_of, residual_case, run, sqnr

from enginesmith_contract.errors import ModelError
from enginesmith_runtime.prepare.quantize.onnxruntime_placement import place, tensors_to_watch

_X = np.random.default_rng(1).standard_normal((2, 3, 16, 16)).astype(np.float32)


def _optimised(model: onnx.ModelProto, folder: Path) -> list[str]:
    """Return the operators that ONNX Runtime runs."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node]


def test_every_convolution_becomes_an_integer_kernel_with_its_bias_and_relu(tmp_path: Path) -> None:
    normal = normalise(residual_case()).model
    placed = place(normal, ranges_of(normal, _X))
    checker.check_model(placed, full_check=True)
    kernels = _optimised(placed, tmp_path)
    assert kernels.count("QLinearConv") == 6
    assert "Conv" not in kernels
    assert len(operators(placed, of="Relu")) == 2  # the others are in a convolution's rounding
    assert sqnr(run(normal, _X)["y"], run(placed, _X)["y"]) > 25
    assert sqnr(run(normal, _X)["y"], run(placed, _X, optimised=True)["y"]) > 25


def test_products_become_integer_kernels(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="product"),
        helper.make_node("Relu", ["m"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "v", "b"], ["y"], name="gemm", transB=1),
    ]
    x = np.random.default_rng(2).standard_normal((4, 16)).astype(np.float32)
    normal = normalise(make_case(nodes, ["n", 16], {"w": (16, 24), "v": (8, 24), "b": (8,)})).model
    placed = place(normal, ranges_of(normal, x))
    kernels = _optimised(placed, tmp_path)
    assert {"QLinearMatMul", "QGemm"} <= set(kernels)
    assert sqnr(run(normal, x)["y"], run(placed, x)["y"]) > 30


def test_kept_nodes_stay_in_fp32_and_none_left_leaves_the_model_as_it_is(tmp_path: Path) -> None:
    normal = normalise(residual_case()).model
    ranges = ranges_of(normal, _X)
    kept = ["conv0", "conv2"]
    needed = tensors_to_watch(normal, kept)
    assert "x" not in needed
    placed = place(normal, {name: ranges[name] for name in needed}, kept=kept)
    assert _optimised(placed, tmp_path).count("QLinearConv") == 4
    nothing = place(normal, {}, kept=[node.name for node in normal.graph.node])
    assert [node.op_type for node in nothing.graph.node] == [node.op_type for node in normal.graph.node]


def test_a_negative_value_before_a_relu_that_others_read_is_not_cut() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Add", ["c", "r"], ["y"], name="add"),
    ]
    normal = normalise(make_case(nodes, ["n", 3, 16, 16], {"w": (4, 3, 3, 3)})).model
    placed = place(normal, ranges_of(normal, _X))
    # 24 to 26 dB, by the instructions of the processor. With the values cut, y is 2 r.
    want = run(normal, _X, fetch=["r"])
    assert sqnr(want["y"], run(placed, _X, optimised=True)["y"]) > 20
    assert sqnr(want["y"], 2 * want["r"]) < 10


def test_others_that_read_a_quantised_weight_get_its_values() -> None:
    y = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    inner = [helper.make_node("MatMul", ["d", "w"], ["inner"], name="in_a_branch")]
    branch = helper.make_graph(inner, "branch", [], [y])
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Gemm", ["b", "w"], ["c"], name="along_the_other_axis", transB=1),
        helper.make_node("MatMul", ["c", "w"], ["d"], name="kept"),
        helper.make_node("ReduceSum", ["x"], ["s"], name="sum", keepdims=0),
        helper.make_node("Less", ["s", "most"], ["is_less"], name="less"),
        helper.make_node("If", ["is_less"], ["y"], name="if", then_branch=branch, else_branch=branch),
    ]
    weight = np.random.default_rng(4).standard_normal((16, 16)).astype(np.float32)
    scales = np.geomspace(0.01, 1, 16, dtype=np.float32)
    normal = normalise(make_case(nodes, ["n", 16], {"w": weight * scales, "most": np.array(1e9, np.float32)})).model
    x = np.random.default_rng(5).standard_normal((8, 16)).astype(np.float32)
    placed = place(normal, ranges_of(normal, x), kept=["kept"])
    for optimised in (False, True):
        assert sqnr(run(normal, x)["y"], run(placed, x, optimised=optimised)["y"]) > 25
    (kept,) = (node for node in placed.graph.node if node.name == "kept")
    assert kept.input[1] in {tensor.name for tensor in placed.graph.initializer}, "it has no DequantizeLinear"


@pytest.mark.parametrize("dims", [(), (1,), (24,), (1, 24), (1, 1), (4, 1), (4, 24)])
@pytest.mark.parametrize("factors", [{}, {"beta": 0.5}, {"alpha": 2.0, "beta": 0.5}, {"beta": 0.0}])
def test_the_bias_of_a_gemm_may_have_any_shape_and_factor(dims: tuple[int, ...], factors: dict[str, Any]) -> None:
    gemm = helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="gemm", **factors)
    bias = np.random.default_rng(6).uniform(2, 4, dims).astype(np.float32)
    normal = normalise(make_case([gemm], [4, 16], {"w": (16, 24), "b": np.asarray(bias)})).model
    x = np.random.default_rng(7).standard_normal((4, 16)).astype(np.float32)
    placed = place(normal, ranges_of(normal, x))
    checker.check_model(placed, full_check=True)
    for optimised in (False, True):
        assert sqnr(run(normal, x)["y"], run(placed, x, optimised=optimised)["y"]) > 25
    if "alpha" not in factors and dims[:1] != (4,):
        assert operators(placed, of="QuantizeLinear")


def test_a_missing_range_is_refused_with_the_value_s_name() -> None:
    normal = normalise(residual_case()).model
    ranges = ranges_of(normal, _X)
    with pytest.raises(ModelError) as caught:
        place(normal, {name: value for name, value in ranges.items() if name != "c4"})
    assert caught.value.reason == "RangeMissing"
    assert "c4" in caught.value.sentence()


def test_real_models_load_and_have_their_weights_in_8_bits(ocr_models: Path) -> None:
    shapes = {"det": (1, 3, 96, 96), "rec": (1, 3, 48, 96), "cls": (1, 3, 48, 192)}
    shares = {"det": 0.35, "rec": 0.3, "cls": 0.6}  # names and shapes are a third of cls
    for name, shape in shapes.items():
        normal = normalise(onnx.load(ocr_models / f"{name}.onnx")).model
        x = np.random.default_rng(3).uniform(-1, 1, shape).astype(np.float32)
        placed = place(normal, ranges_of(normal, x))
        checker.check_model(placed, full_check=True)
        assert np.all(np.isfinite(run(placed, x, optimised=True)[placed.graph.output[0].name]))
        assert placed.ByteSize() < shares[name] * normal.ByteSize()
