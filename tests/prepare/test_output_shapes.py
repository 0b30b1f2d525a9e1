"""What is said of the outputs' shapes is what the model does: by its nodes, and by what the runs gave."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from enginesmith_contract.errors import ModelError
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.profiles import Profile
from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec
from enginesmith_runtime.prepare.model_file.facts import inspect_model
from enginesmith_runtime.prepare.runs.observed_shapes import Observation, correct_outputs

MakeModel = Callable[..., Path]
MakeProfile = Callable[..., Profile]
Prepare = Callable[..., Preparation]

_FLOAT = TensorProto.FLOAT
_X = {"x": (_FLOAT, ["N", 4])}
_POINTS = ((1, 4), (2, 4), (8, 4))


def _output(preparation: Preparation, index: int = 0) -> tuple[tuple[int, ...], tuple[str | None, ...]]:
    spec = preparation.facts.outputs[index]
    return spec.shape, spec.symbols


_FALSE = {
    "rank": ([1, "K"], (-1, 1, 4), ("N", None, None)),
    "batch": ([1, 4], (-1, 4), ("N", None)),
    "size": (["N", 5], (-1, 4), ("N", None)),
    "name": (["N", 4], (-1, 4), (None, None)),
    "scalar": ([1], (), ()),
    "flat": (["N", 4], (-1,), (None,)),
}


def test_declared_shapes_that_are_false_are_corrected_with_a_warning_each(
    make_model: MakeModel, make_profile: MakeProfile, prepare_model: Prepare
) -> None:
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axis"], ["rank"]),
        helper.make_node("Relu", ["x"], ["batch"]),
        helper.make_node("Abs", ["x"], ["size"]),
        helper.make_node("Concat", ["x", "x"], ["name"], axis=0),
        helper.make_node("ReduceMean", ["x"], ["scalar"], keepdims=0),
        helper.make_node("Reshape", ["x", "all"], ["flat"]),
    ]
    outputs = {name: (_FLOAT, declared) for name, (declared, _, _) in _FALSE.items()}
    model = make_model(nodes, inputs=_X, outputs=outputs, weights={"axis": np.array([1]), "all": np.array([-1])})
    preparation = prepare_model(model, make_profile(x=_POINTS))
    found = {spec.name: (spec.shape, spec.symbols) for spec in preparation.facts.outputs}
    assert found == {name: (shape, symbols) for name, (_, shape, symbols) in _FALSE.items()}
    named = [warning.split("'")[1] for warning in preparation.warnings if warning.startswith("output ")]
    assert sorted(named) == sorted(_FALSE)
    assert (
        "output 'flat': the file says [N, 4], and its nodes give [?], which is what clients see" in preparation.warnings
    )


def test_declared_shapes_that_are_true_stay_without_a_word(
    make_model: MakeModel, make_profile: MakeProfile, prepare_model: Prepare
) -> None:
    nodes = [helper.make_node("Relu", ["x"], [name]) for name in ("a", "b", "c")]
    outputs = {"a": (_FLOAT, ["N", 4]), "b": (_FLOAT, ["M", 4]), "c": (_FLOAT, [None, None])}
    preparation = prepare_model(make_model(nodes, inputs=_X, outputs=outputs), make_profile(x=_POINTS))
    assert [_output(preparation, index) for index in range(3)] == [
        ((-1, 4), ("N", None)),
        ((-1, 4), ("M", None)),
        ((-1, -1), (None, None)),
    ]
    assert preparation.warnings == ()


def test_an_output_without_a_shape_gets_the_one_that_its_nodes_give(
    make_model: MakeModel, make_profile: MakeProfile, prepare_model: Prepare
) -> None:
    model = make_model([helper.make_node("Relu", ["x"], ["y"])], inputs=_X, outputs={"y": (_FLOAT, None)})
    preparation = prepare_model(model, make_profile(x=_POINTS))
    assert _output(preparation) == ((-1, 4), ("N", None))
    assert preparation.batching.proved


def test_an_output_whose_shape_nothing_tells_gets_the_rank_that_the_runs_gave(
    make_model: MakeModel, make_profile: MakeProfile, prepare_model: Prepare
) -> None:
    nodes = [helper.make_node("FusedGemm", ["x", "w"], ["y"], domain="com.microsoft", activation="Relu")]
    model = make_model(
        nodes,
        inputs=_X,
        outputs={"y": (_FLOAT, None)},
        weights={"w": np.ones((4, 3), np.float32)},
        domains=["com.microsoft"],
    )
    preparation = prepare_model(model, make_profile(x=_POINTS))
    assert _output(preparation) == ((-1, -1), (None, None))


def test_an_output_whose_shape_depends_on_values_stays_open(
    make_model: MakeModel, make_profile: MakeProfile, prepare_model: Prepare
) -> None:
    nodes = [helper.make_node("Floor", ["x"], ["whole"]), helper.make_node("NonZero", ["whole"], ["y"])]
    model = make_model(nodes, inputs=_X, outputs={"y": (TensorProto.INT64, [2, 7])})
    preparation = prepare_model(model, make_profile(x=_POINTS))
    assert _output(preparation) == ((2, -1), (None, None))


def test_an_input_without_a_rank_is_still_refused(make_model: MakeModel) -> None:
    model = make_model(
        [helper.make_node("Relu", ["x"], ["y"])], inputs={"x": (_FLOAT, None)}, outputs={"y": (_FLOAT, None)}
    )
    with pytest.raises(ModelError) as refusal:
        inspect_model(model)
    assert refusal.value.reason == "TensorTypeUnsupported"


def test_an_unknown_shape_that_no_run_showed_is_refused() -> None:
    output = TensorSpec(name="y", dtype=DType.FP32, shape=())
    facts = ModelFacts(inputs=(), outputs=(output,), opset=17, size_bytes=1)
    with pytest.raises(ModelError) as refusal:
        correct_outputs(facts, ["y"], [])
    assert refusal.value.reason == "OutputShapeUnknown"
    corrected, warnings = correct_outputs(facts, ["y"], [Observation(inputs={}, outputs={"y": (2, 3)})])
    assert corrected.outputs[0].shape == (-1, -1)
    assert warnings == ()
