"""What is wrong with a model's own answers, or with the values it is filled with, is said before any build."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from enginesmith_contract.errors import ModelError
from enginesmith_contract.profiles import Profile
from enginesmith_runtime.prepare.runs.answers import check_answers
from enginesmith_runtime.prepare.runs.exercise import Exercised

Make = Callable[..., Any]
F, I64 = TensorProto.FLOAT, TensorProto.INT64
node = helper.make_node


@pytest.fixture
def row_model(make_model: Make) -> Make:
    """Return a maker of models of x [n, 4] and y [n, 4]."""

    def make(*nodes: object, dtype: int = F, **weights: np.ndarray) -> Path:
        tensor = (dtype, ["n", 4])
        return Path(make_model(nodes, inputs={"x": tensor}, outputs={"y": tensor}, weights=weights))

    return make


@pytest.fixture
def rows(make_profile: Make) -> Profile:
    """Return a profile of 1, 2 and 4 rows."""
    profile: Profile = make_profile(x=((1, 4), (2, 4), (4, 4)))
    return profile


@pytest.mark.parametrize(
    ("nodes", "weights", "want"),
    [
        ([node("RandomNormalLike", ["x"], ["r"], name="noise"), node("Add", ["x", "r"], ["y"])], {},
         "node 'noise' (RandomNormalLike)"),
        ([node("Bernoulli", ["x"], ["y"], name="draw")], {}, "node 'draw' (Bernoulli)"),
        ([node("Dropout", ["x", "half", "yes"], ["y"], name="drop")],
         {"half": np.float32(0.5), "yes": np.bool_(True)}, "node 'drop' (Dropout)"),
    ],
)  # fmt: skip
def test_a_model_that_is_random_by_itself_is_refused_with_the_node(
    prepare_model: Make,
    row_model: Make,
    rows: Profile,
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, np.ndarray],
    want: str,
) -> None:
    with pytest.raises(ModelError) as refusal:
        prepare_model(row_model(*nodes, **weights), rows)
    assert refusal.value.reason == "AnswersVary"
    assert want in refusal.value.why
    assert ("eval mode" in refusal.value.remedy) is ("Dropout" in want)


@pytest.mark.parametrize("reduction", ["add", "none"])
def test_a_scatter_s_sums_are_computed_on_one_thread_with_a_line_that_names_the_node(
    prepare_model: Make, make_profile: Make, make_model: Make, reduction: str
) -> None:
    path = make_model(
        [node("ScatterND", ["zeros", "at", "x"], ["y"], name="sum", reduction=reduction)],
        inputs={"x": (F, ["n", 4]), "at": (I64, ["n", 1])},
        outputs={"y": (F, [8, 4])},
        weights={"zeros": np.zeros((8, 4), np.float32)},
    )
    # All rows are added to the first two: on several threads sums would be lost in some runs.
    most = 4096 if reduction == "add" else 1
    warnings = prepare_model(
        path, make_profile(x=((1, 4),) * 2 + ((most, 4),), at=((1, 1),) * 2 + ((most, 1),))
    ).warnings
    assert any("one on a CPU" in line and "node 'sum' (ScatterND, add)" in line for line in warnings) is (
        reduction == "add"
    )


def test_answers_that_vary_where_indices_repeat_name_the_scatter() -> None:
    exercised = Exercised(exercises=(), stored=(), seen=(), nan={}, varied="y")
    with pytest.raises(ModelError) as refusal:
        check_answers("model.onnx", exercised, {}, ("node 'put' (ScatterND)",))
    assert "node 'put' (ScatterND)" in refusal.value.why
    assert "verification.inputs" in refusal.value.remedy
    assert "no operator is known" not in refusal.value.why


def test_random_numbers_that_change_no_answer_are_a_warning(
    prepare_model: Make, row_model: Make, rows: Profile
) -> None:
    path = row_model(
        node("RandomNormalLike", ["x"], ["r"], name="noise"),
        node("Mul", ["r", "zero"], ["none"]),
        node("Add", ["x", "none"], ["y"]),
        zero=np.float32(0),
    )
    warnings = prepare_model(path, rows).warnings
    assert any("node 'noise' (RandomNormalLike)" in line and "the same answers" in line for line in warnings)


def test_a_model_that_answers_nan_throughout_is_refused_before_any_build(
    prepare_model: Make,
    row_model: Make,
    rows: Profile,
) -> None:
    path = row_model(node("Sub", ["x", "x"], ["none"]), node("Div", ["none", "none"], ["y"]))
    with pytest.raises(ModelError) as refusal:
        prepare_model(path, rows)
    assert refusal.value.reason == "AnswersAreNaN"
    assert "in y" in refusal.value.what
    assert "verification.inputs" in refusal.value.remedy


def test_nan_in_some_values_is_no_fault(prepare_model: Make, row_model: Make, rows: Profile) -> None:
    path = row_model(node("Sub", ["x", "half"], ["shifted"]), node("Sqrt", ["shifted"], ["y"]), half=np.float32(0.5))
    assert prepare_model(path, rows).references


@pytest.mark.parametrize("op", ["Div", "Mod"])
def test_a_zero_divisor_names_the_input_whose_values_are_at_fault(
    prepare_model: Make, make_profile: Make, make_model: Make, op: str
) -> None:
    tensor = (I64, ["n"])
    path = make_model([node(op, ["a", "b"], ["y"])], inputs={"a": tensor, "b": tensor}, outputs={"y": tensor})
    profile = make_profile(a=((1,), (2,), (8,)), b=((1,), (2,), (8,)))
    with pytest.raises(ModelError) as refusal:
        prepare_model(path, profile)
    assert refusal.value.reason == "ValuesRefusedByModel"
    assert "by zero" in refusal.value.why
    assert refusal.value.remedy.startswith("set verification.inputs.b to values")
    assert "{range: [1, 8]}" in refusal.value.remedy
    values = {"inputs": {"b": {"range": [1, 8]}}}
    assert prepare_model(path, profile, verification=values).references


def test_ids_outside_a_table_that_is_an_input_name_the_ids(
    prepare_model: Make, make_profile: Make, make_model: Make
) -> None:
    path = make_model(
        [node("Gather", ["table", "ids"], ["y"], axis=0)],
        inputs={"table": (F, ["rows", 4]), "ids": (I64, ["n"])},
        outputs={"y": (F, ["n", 4])},
    )
    profile = make_profile(table=((4, 4), (4, 4), (4, 4)), ids=((1,), (2,), (8,)))
    with pytest.raises(ModelError) as refusal:
        prepare_model(path, profile, verification={"inputs": {"ids": {"range": [90, 99]}}})
    assert refusal.value.reason == "ValuesRefusedByModel"
    assert "verification.inputs.ids" in refusal.value.remedy


def test_a_constant_zero_divisor_is_a_fault_of_the_model(prepare_model: Make, row_model: Make, rows: Profile) -> None:
    path = row_model(node("Div", ["x", "none"], ["y"], name="divide"), dtype=I64, none=np.int64(0))
    with pytest.raises(ModelError) as refusal:
        prepare_model(path, rows)
    assert (refusal.value.reason, "node 'divide' (Div)" in refusal.value.why) == ("DividesByZero", True)


def test_a_finding_about_tensorrt_is_a_warning_of_the_preparation(
    prepare_model: Make,
    row_model: Make,
    rows: Profile,
) -> None:
    path = row_model(
        node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="quantise"),
        node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        scale=np.float32(0.1),
        zero=np.uint8(128),
    )
    preparation = prepare_model(path, rows)
    assert preparation.refusals[0].node == "quantise"
    assert any("node 'quantise' (QuantizeLinear)" in line and "zero point 0" in line for line in preparation.warnings)


@pytest.mark.parametrize(
    ("values", "want"),
    [
        pytest.param({}, {"min", "opt", "max"}, id="random values"),
        pytest.param({"x": {"constant": 0.5}}, {"opt"}, id="given values, which would be the same each time"),
    ],
)
def test_a_model_of_one_shape_has_three_references_with_values_of_their_own(
    prepare_model: Make, make_model: Make, values: Mapping[str, object], want: set[str]
) -> None:
    path = make_model([node("Relu", ["x"], ["y"])], inputs={"x": (F, [1, 4])}, outputs={"y": (F, [1, 4])})
    preparation = prepare_model(path, verification={"inputs": values})
    assert {reference.point for reference in preparation.references} == want
    assert len({reference.file.digest for reference in preparation.references}) == len(want)
