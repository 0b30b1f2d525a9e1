"""A model that mixes rows only for some values is found out, where the spec allows these values."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

Make = Callable[..., Any]
F, BOOL = TensorProto.FLOAT, TensorProto.BOOL
node = helper.make_node


def _when(condition: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return nodes that double every row where `condition` makes c true for the whole batch."""
    return [*condition, node("Mul", ["x", "two"], ["twice"]), node("Where", ["c", "twice", "x"], ["y"])]


LARGE = _when([node("ReduceMax", ["x"], ["m"], keepdims=0), node("Greater", ["m", "limit"], ["c"])])
SMALL = _when([node("ReduceMin", ["x"], ["m"], keepdims=0), node("Less", ["m", "limit"], ["c"])])

# Values above the limit become the batch's mean: rows below it are never touched.
AMONG = [
    node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
    node("Greater", ["x", "limit"], ["c"]),
    node("Where", ["c", "m", "x"], ["y"]),
]


@pytest.mark.parametrize(
    ("nodes", "limit", "values", "shown"),
    [
        pytest.param(LARGE, 10, None, True, id="above 10, any value allowed"),
        pytest.param(AMONG, 10, None, True, id="among those above 10"),
        pytest.param(LARGE, 1e5, None, True, id="above what FP16 holds"),
        pytest.param(SMALL, 0, None, True, id="below 0, any value allowed"),
        pytest.param(LARGE, 10, {"range": [0, 20]}, True, id="above 10 of 20"),
        pytest.param(LARGE, 1, {"range": [0, 20]}, True, id="above 1 of 20"),
        pytest.param(SMALL, 19, {"range": [10, 20]}, True, id="below 19 of 20"),
        pytest.param(LARGE, 19.99, {"range": [0, 20]}, True, id="at the end of the range alone"),
        pytest.param(LARGE, 10, {"range": [0, 5]}, False, id="above 10, which the range does not reach"),
        pytest.param(SMALL, -300, {"npz": "real.npz"}, True, id="below -300, as in a real input"),
        pytest.param(LARGE, 500, {"npz": "real.npz"}, False, id="above all real inputs"),
    ],
)
def test_rows_that_are_mixed_beyond_a_value_are_never_joined(
    tmp_path: Path,
    prepare_model: Make,
    make_profile: Make,
    make_model: Make,
    nodes: Sequence[onnx.NodeProto],
    limit: float,
    values: dict[str, object] | None,
    shown: bool,  # noqa: FBT001 - a column of the table
) -> None:
    np.savez(tmp_path / "real.npz", x=np.linspace(-400, 400, 12, dtype=np.float32).reshape(3, 4))
    path = make_model(
        nodes,
        inputs={"x": (F, ["n", 4])},
        outputs={"y": (F, ["n", 4])},
        weights={"limit": np.float32(limit), "two": np.float32(2)},
    )
    verification = {"inputs": {"x": values}} if values else {}
    profile = make_profile(x=((1, 4), (2, 4), (6, 4)))
    batching = prepare_model(path, profile, verification=verification).batching
    assert not batching.proved
    # A value that no trial has may come with the next request.
    assert ("depends on what else is in the batch" if shown else "works across rows") in batching.reason


@pytest.mark.parametrize(
    ("nodes", "want_proved"),
    [
        pytest.param([node("CumSum", ["x", "axis"], ["y"])], False, id="a running sum over the batch"),
        pytest.param(_when([node("ReduceMax", ["x"], ["m"], axes=[1], keepdims=1),
                            node("Greater", ["m", "limit"], ["c"])]), True, id="each row by its own largest"),
        pytest.param([node("Exp", ["x"], ["e"]), node("Log", ["e"], ["y"])], True, id="infinity for large values"),
    ],
)  # fmt: skip
def test_the_report_says_how_rows_were_shown_to_be_independent(
    prepare_model: Make,
    make_profile: Make,
    make_model: Make,
    nodes: Sequence[onnx.NodeProto],
    want_proved: bool,  # noqa: FBT001 - a column
) -> None:
    path = make_model(
        nodes,
        inputs={"x": (F, ["n", 4])},
        outputs={"y": (F, ["n", 4])},
        weights={"limit": np.float32(10), "two": np.float32(2), "axis": np.int64(0)},
    )
    batching = prepare_model(path, make_profile(x=((1, 4), (2, 4), (6, 4)))).batching
    assert batching.proved is want_proved, batching.reason
    if want_proved:
        assert batching.reason.endswith("other fillings of the rows around a row, of values up to 1e+09")


WINDOW = [
    node("Sub", ["x", "low"], ["above"]), node("Relu", ["above"], ["a"]),
    node("Sub", ["high", "x"], ["below"]), node("Relu", ["below"], ["b"]), node("Mul", ["a", "b"], ["within"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("nodes", "values"),
    [
        pytest.param([*WINDOW, node("ReduceMax", ["within"], ["m"], axes=[0], keepdims=1),
                      node("Add", ["x", "m"], ["y"])], None, id="the largest of 100 to 200"),
        pytest.param([*WINDOW, node("CumSum", ["within", "axis"], ["m"]), node("Add", ["x", "m"], ["y"])],
                     {"range": [0, 1000]}, id="a running sum, in a range that the spec gives"),
        # The trials alone have to find these: every node keeps rows apart.
        pytest.param([*WINDOW, node("Shape", ["x"], ["size"]), node("Reshape", ["within", "flat"], ["f"]),
                      node("ReduceMax", ["f"], ["m"], axes=[0], keepdims=1), node("Add", ["x", "m"], ["y"])],
                     None, id="after a reshape"),
    ],
)  # fmt: skip
def test_rows_that_are_mixed_between_two_values_alone_are_found(
    prepare_model: Make,
    make_profile: Make,
    make_model: Make,
    nodes: Sequence[onnx.NodeProto],
    values: dict[str, object] | None,
) -> None:
    path = make_model(
        nodes,
        inputs={"x": (F, ["n", 4])},
        outputs={"y": (F, ["n", 4])},
        weights={
            "low": np.float32(100), "high": np.float32(200), "axis": np.int64(0), "flat": np.array([-1], np.int64),
        },
    )  # fmt: skip
    verification = {"inputs": {"x": values}} if values else {}
    profile = make_profile(x=((1, 4), (2, 4), (6, 4)))
    batching = prepare_model(path, profile, verification=verification).batching
    assert not batching.proved, batching.reason


def test_one_id_of_many_that_mixes_rows_is_not_left_to_luck(
    prepare_model: Make, make_profile: Make, make_model: Make
) -> None:
    path = make_model(
        [
            node("Equal", ["ids", "pad"], ["is_pad"]), node("Cast", ["is_pad"], ["c"], to=F),
            node("ReduceSum", ["c", "last"], ["length"], keepdims=1),
            node("ReduceMax", ["length"], ["longest"], name="longest", axes=[0], keepdims=1),
            node("Gather", ["table", "ids"], ["e"]), node("ReduceMean", ["e"], ["mean"], axes=[1], keepdims=0),
            node("Add", ["mean", "longest"], ["y"]),
        ],
        inputs={"ids": (TensorProto.INT64, ["n", 8])},
        outputs={"y": (F, ["n", 4])},
        weights={
            "table": np.random.default_rng(0).normal(0, 1, (60000, 4)).astype(np.float32),
            "pad": np.int64(50000), "last": np.array([1], np.int64),
        },
    )  # fmt: skip
    batching = prepare_model(path, make_profile(ids=((1, 8), (2, 8), (6, 8)))).batching
    assert not batching.proved
    assert "node 'longest' (ReduceMax) works across rows; no trial showed an effect" in batching.reason
