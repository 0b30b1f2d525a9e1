"""The normal form: what is folded into what, and which of the source's nodes a node stands for."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, checker, helper, numpy_helper
from tests.prepare.quantised_cases import make_case, normalise, operators, run

from enginesmith_contract.errors import ModelError
from enginesmith_runtime.onnx_graphs.graph import opset_of

_X = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
_CONV = helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1])
_NORM = helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], name="norm")
_DROP = helper.make_node("Identity", ["n"], ["i"], name="identity")
_RELU = helper.make_node("Relu", ["i"], ["y"], name="relu")
_STATISTICS = {"s": (4,), "b": (4,), "m": (4,), "v": np.ones(4, np.float32)}


def _normalised_convolution(opset: int = 17) -> onnx.ModelProto:
    nodes = [_CONV, _NORM, _DROP, _RELU]
    return make_case(nodes, ["n", 3, "h", "w"], {"w": (4, 3, 3, 3), **_STATISTICS}, opset=opset)


def test_a_normalisation_is_folded_and_its_convolution_inherits_both_names() -> None:
    source = _normalised_convolution()
    form = normalise(source)
    (conv,) = operators(form.model, of="Conv")
    assert not operators(form.model, of="BatchNormalization")
    assert form.sources[conv.name] >= {"conv", "norm"}
    assert set().union(*form.sources.values()) == {"conv", "norm", "identity", "relu"}
    np.testing.assert_allclose(run(form.model, _X)["y"], run(source, _X)["y"], rtol=1e-4, atol=1e-5)


def test_the_form_is_a_valid_sorted_graph_of_opset_21_without_unused_domains() -> None:
    form = normalise(_normalised_convolution(opset=11)).model
    checker.check_model(form, full_check=True)
    assert opset_of(form) == 21
    assert [entry.domain for entry in form.opset_import] == [""]
    assert len({node.name for node in form.graph.node}) == len(form.graph.node)


def test_weights_in_constant_nodes_and_weights_that_are_inputs_become_initializers() -> None:
    source = make_case([_CONV, helper.make_node("Relu", ["c"], ["y"])], [1, 3, 8, 8], {"w": (4, 3, 3, 3)}, opset=11)
    as_input = onnx.ModelProto()
    as_input.CopyFrom(source)
    as_input.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3, 3, 3]))
    as_node = onnx.ModelProto()
    as_node.CopyFrom(source)
    as_node.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=source.graph.initializer[0]))
    del as_node.graph.initializer[:]
    for model in (as_input, as_node):
        form = normalise(model).model
        assert [value.name for value in form.graph.input] == ["x"]
        assert not operators(form, of="Constant")
        (weight,) = [one for one in form.graph.initializer if one.name == "w"]
        np.testing.assert_array_equal(numpy_helper.to_array(weight), numpy_helper.to_array(source.graph.initializer[0]))


def test_dimensions_of_one_value_with_one_name_lose_it_and_others_keep_theirs() -> None:
    source = make_case([_CONV, helper.make_node("Relu", ["c"], ["y"])], ["n", 3, "?", "?"], {"w": (4, 3, 3, 3)})
    shape = normalise(source).model.graph.input[0].type.tensor_type.shape
    assert [one.dim_param or one.dim_value for one in shape.dim] == ["n", 3, 0, 0]


def test_a_source_in_fp16_keeps_its_weights_and_gets_no_casts() -> None:
    source = make_case(
        [_CONV, helper.make_node("Relu", ["c"], ["y"])], ["n", 3, 8, 8], {"w": (4, 3, 3, 3)}, dtype=np.float16
    )
    form = normalise(source).model
    assert [node.op_type for node in form.graph.node] == ["Conv", "Relu"]
    assert {one.data_type for one in form.graph.initializer} == {TensorProto.FLOAT16}


def test_every_node_of_real_exports_stands_for_nodes_of_the_source(ocr_models: Path) -> None:
    for name in ("det", "rec", "cls"):
        source = onnx.load(ocr_models / f"{name}.onnx")
        form = normalise(source)
        assert all(form.sources[node.name] for node in form.model.graph.node), name
        known = {node.name for node in source.graph.node if node.name}
        assert known <= set().union(*form.sources.values()), name


def test_a_model_that_cannot_be_quantised_is_refused_with_the_reason() -> None:
    pair = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    quantised = make_case(pair, [1, 4], {"s": np.array(0.1, np.float32), "z": np.array(0, np.int8)})
    without = make_case([helper.make_node("Relu", ["x"], ["y"])], [1, 4], {})
    dynamic = make_case([helper.make_node("MatMul", ["x", "x"], ["y"])], [4, 4], {})
    for model, word in ((quantised, "quantised already"), (without, "nothing to quantise"), (dynamic, "nothing")):
        with pytest.raises(ModelError) as caught:
            normalise(model)
        assert caught.value.reason == "NotQuantisable"
        assert word in caught.value.sentence()
