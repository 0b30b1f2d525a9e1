"""A model in a newer opset means what it meant."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.prepare.quantised_cases import make_case, run

from enginesmith_runtime.onnx_graphs.graph import opset_of
from enginesmith_runtime.onnx_graphs.opset import ConversionError, newest_opset, raise_opset

_X = np.random.default_rng(1).standard_normal((2, 4, 8, 8)).astype(np.float32)


def _scales(factor: float) -> dict[str, Any]:
    return {"s": np.array([1, 1, factor, factor], np.float32)}


def _resize(operator: str, mode: str) -> onnx.NodeProto:
    return helper.make_node(operator, ["x", "s"], ["y"], mode=mode)


@pytest.mark.parametrize(
    ("node", "weights", "opset"),
    [
        (_resize("Upsample", "linear"), _scales(2), 9),
        (_resize("Upsample", "nearest"), _scales(1.5), 9),
        (_resize("Resize", "linear"), _scales(2), 10),
        (_resize("Resize", "linear"), _scales(0.6), 10),
        (_resize("Resize", "nearest"), _scales(0.6), 10),
        (helper.make_node("Upsample", ["x"], ["y"], mode="linear", scales=[1.0, 1.0, 2.0, 2.0]), {}, 7),
        (helper.make_node("Softmax", ["x"], ["y"], axis=1), {}, 11),
        (helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3]), {}, 11),
    ],
)
def test_answers_are_the_same_in_opset_21(node: onnx.NodeProto, weights: Mapping[str, Any], opset: int) -> None:
    model = make_case([node], ["n", 4, 8, 8], weights, opset=opset)
    want = run(model, _X)["y"]
    raise_opset(model, 21)
    assert opset_of(model) == 21
    np.testing.assert_allclose(run(model, _X)["y"], want, rtol=1e-4, atol=1e-5)


def test_operators_that_mean_something_else_stop_before_it_or_are_refused() -> None:
    groups = {"s": np.array([1, 2], np.float32), "b": np.array([0, 1], np.float32)}
    node = helper.make_node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)
    model = make_case([node], ["n", 4, 8, 8], groups, opset=18)
    want = run(model, _X)["y"]
    assert newest_opset(model, 21) == 20
    with pytest.raises(ConversionError, match="GroupNormalization"):
        raise_opset(model, 22)
    raise_opset(model, 20)
    np.testing.assert_allclose(run(model, _X)["y"], want, rtol=1e-4, atol=1e-5)


def test_newer_models_stay_as_they_are() -> None:
    model = make_case([helper.make_node("Relu", ["x"], ["y"])], ["n", 4, 8, 8], {}, opset=22)
    before = model.SerializeToString(deterministic=True)
    raise_opset(model, 21)
    assert model.SerializeToString(deterministic=True) == before
