"""Which models have one structure: those that a refit can tell apart by weights alone."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from enginesmith_runtime.prepare.structure import structure_digest

Change = Callable[[onnx.ModelProto], object]


def _model() -> onnx.ModelProto:
    """Return a model with weights, a shape, a constant and a branch with a weight of its own."""
    branches = [
        helper.make_graph(
            [helper.make_node("Add", ["flat", name], [f"{name}.out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}.out", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.ones(6, np.float32), name)],
        )
        for name in ("then", "else")
    ]
    nodes = [
        helper.make_node("Constant", [], ["scale"], value=numpy_helper.from_array(np.array([2.0], np.float32), "c")),
        helper.make_node("Mul", ["x", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["biased"]),
        helper.make_node("Reshape", ["biased", "shape"], ["flat"]),
        helper.make_node("If", ["yes"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    weights = [
        numpy_helper.from_array(np.zeros((2, 3), np.float32), "bias"),
        numpy_helper.from_array(np.array([6], np.int64), "shape"),
        numpy_helper.from_array(np.array(1, np.bool_), "yes"),
    ]
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [6])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _set(tensor: onnx.TensorProto, array: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


@pytest.mark.parametrize(
    "change",
    [
        lambda model: _set(model.graph.initializer[0], np.ones((2, 3), np.float32)),
        lambda model: _set(model.graph.node[0].attribute[0].t, np.array([3.0], np.float32)),
        lambda model: _set(model.graph.node[4].attribute[0].g.initializer[0], np.zeros(6, np.float32)),
        lambda model: setattr(model, "producer_version", "another"),
        lambda model: setattr(model.graph, "doc_string", "words"),
    ],
    ids=["a weight", "a constant", "a branch's weight", "the exporter", "documentation"],
)
def test_a_model_that_was_trained_on_has_the_same_structure(change: Change) -> None:
    model = _model()
    change(model)
    assert structure_digest(model) == structure_digest(_model())


@pytest.mark.parametrize(
    "change",
    [
        lambda model: _set(model.graph.initializer[0], np.zeros((1, 3), np.float32)),
        lambda model: _set(model.graph.initializer[0], np.zeros((2, 3), np.float16)),
        lambda model: _set(model.graph.initializer[1], np.array([-1], np.int64)),
        lambda model: _set(model.graph.initializer[2], np.array(0, np.bool_)),
        lambda model: setattr(model.graph.initializer[0], "name", "other"),
        lambda model: setattr(model.graph.node[1], "op_type", "Sub"),
        lambda model: model.graph.node[3].attribute.append(helper.make_attribute("allowzero", 1)),
        lambda model: model.graph.input[0].type.tensor_type.shape.dim[0].Clear(),
        lambda model: setattr(model.opset_import[0], "version", 18),
    ],
    ids=["a shape", "a type", "an integer", "a bool", "a name", "an operator", "an attribute", "an input", "the opset"],
)
def test_a_model_that_computes_otherwise_has_another_structure(change: Change) -> None:
    model = _model()
    change(model)
    assert structure_digest(model) != structure_digest(_model())
