"""Batching is on only where rows were shown not to touch each other."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

Make = Callable[..., Any]
F = TensorProto.FLOAT
node = helper.make_node


@pytest.mark.parametrize(
    ("nodes", "want_proved", "want_fragment"),
    [
        pytest.param([node("Softmax", ["x"], ["y"], axis=1)], True, "", id="softmax within a row"),
        pytest.param(
            [node("Softmax", ["x"], ["y"], axis=0)], False, "depends on what else is in the batch",
            id="softmax over the batch",
        ),
        pytest.param(
            [node("Reshape", ["x", "shape"], ["flat"]), node("Softmax", ["flat"], ["soft"], axis=1),
             node("Reshape", ["soft", "rows"], ["y"])],
            False, "depends on what else is in the batch", id="a reshape that folds rows together",
        ),
        pytest.param(
            [node("ReduceMax", ["x"], ["y"], axes=[0], keepdims=1)], False, "has 1 rows for two joined batches",
            id="one row for all",
        ),
    ],
)  # fmt: skip
def test_rows_that_touch_each_other_are_found(
    prepare_model: Make,
    make_profile: Make,
    make_model: Make,
    nodes: Sequence[onnx.NodeProto],
    want_proved: bool,  # noqa: FBT001 - a column of the table
    want_fragment: str,
) -> None:
    path = make_model(
        nodes,
        inputs={"x": (F, ["n", 4])},
        outputs={"y": (F, [None, 4])},
        weights={"shape": np.array([1, -1]), "rows": np.array([-1, 4])},
    )
    batching = prepare_model(path, make_profile(x=((1, 4), (2, 4), (6, 4)))).batching
    assert batching.proved is want_proved
    assert want_fragment in batching.reason
    assert batching.max_batch_size == (6 if want_proved else 0)


_SMALL = np.array(0.02, np.float32)


@pytest.mark.parametrize(
    ("nodes", "want_fragment"),
    [
        pytest.param(
            [node("Shape", ["x"], ["rows"], start=0, end=1), node("Cast", ["rows"], ["count"], to=F),
             node("Div", ["small", "count"], ["part"]), node("Mul", ["x", "part"], ["more"]),
             node("Add", ["x", "more"], ["y"])],
            "no trial showed an effect", id="answers that vary with the number of rows alone",
        ),
        pytest.param(
            [node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1), node("Mul", ["mean", "small"], ["part"]),
             node("Add", ["x", "part"], ["y"])],
            "depends on what else is in the batch", id="a little of the other rows",
        ),
    ],
)  # fmt: skip
def test_rounding_of_a_processor_is_told_from_rows_that_touch_each_other_a_little(
    prepare_model: Make,
    make_profile: Make,
    make_model: Make,
    nodes: Sequence[onnx.NodeProto],
    want_fragment: str,
) -> None:
    # Kernels that add in another order for other numbers of rows cannot be had here: the number itself stands for them,
    # which the graph shows, so that the model is not batched either way.
    path = make_model(
        nodes, inputs={"x": (F, ["n", 4])}, outputs={"y": (F, [None, 4])}, weights={"small": _SMALL}, opset=17
    )
    batching = prepare_model(path, make_profile(x=((1, 4), (2, 4), (6, 4)))).batching
    assert not batching.proved
    assert want_fragment in batching.reason


@pytest.mark.parametrize(
    ("points", "want_fragment"),
    [
        pytest.param(((1, 4), (1, 4), (1, 4)), "no profile", id="a profile of one row"),
        pytest.param(((4, 4), (6, 4), (7, 4)), "no profile", id="a profile without room for two smallest batches"),
    ],
)
def test_a_profile_without_room_for_two_gets_no_batching(
    prepare_model: Make, make_profile: Make, make_model: Make, points: tuple[tuple[int, ...], ...], want_fragment: str
) -> None:
    path = make_model([node("Relu", ["x"], ["y"])], inputs={"x": (F, ["n", 4])}, outputs={"y": (F, ["n", 4])})
    batching = prepare_model(path, make_profile(x=points)).batching
    assert not batching.proved
    assert want_fragment in batching.reason


def test_an_input_without_batch_dimension_rules_it_out(
    prepare_model: Make, make_profile: Make, make_model: Make
) -> None:
    path = make_model(
        [node("Mul", ["x", "scale"], ["y"])],
        inputs={"x": (F, ["n", 4]), "scale": (F, [1])},
        outputs={"y": (F, ["n", 4])},
    )
    batching = prepare_model(path, make_profile(x=((1, 4), (2, 4), (6, 4)))).batching
    assert "input scale is fixed at 1" in batching.reason
