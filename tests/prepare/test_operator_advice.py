"""Doubts about operators: from the table by version, and from a real parser."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from enginesmith_contract.preparation import Advice
from enginesmith_runtime.child_processes import Limits
from enginesmith_runtime.prepare.model_file.advice import parser_advice, table_advice
from enginesmith_runtime.prepare.model_file.check import inspect

Make = Callable[..., Any]


def _advice_for(advice: Iterable[Advice], version: str) -> list[Advice]:
    return [entry for entry in advice if Version(version) in SpecifierSet(entry.tensorrt)]


@pytest.mark.parametrize(
    ("op", "version", "want"),
    [
        ("MatMulInteger", "10.13.3.9", True),
        ("MatMulInteger", "11.4.1", True),
        ("NonZero", "10.0.1", True),
        ("DFT", "11.1.0", True),
        ("DFT", "11.2.1", False),
        ("GridSample", "11.1.0", False),
        ("TopK", "9.3.0", True),
        ("TopK", "10.0.1", False),
        ("Relu", "10.0.1", False),
    ],
)
def test_the_table_speaks_of_versions(op: str, version: str, want: bool) -> None:  # noqa: FBT001 - a column
    advice = table_advice([("a node", op, "")])
    assert bool(_advice_for(advice, version)) is want


def test_an_operator_of_another_domain_is_not_onnx_s_own() -> None:
    assert table_advice([("a node", "NonZero", "acme")]) == ()


@pytest.mark.parametrize(("rank", "version", "want"), [(5, "11.1.0", True), (5, "11.2.1", False), (4, "11.1.0", False)])
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "inferred"])
def test_grid_sample_is_told_by_the_rank_of_what_it_samples(
    make_model: Make, rank: int, version: str, *, declared: bool, want: bool
) -> None:
    size = [4] * (rank - 2)
    nodes = [helper.make_node("GridSample", ["x" if declared else "r", "grid"], ["y"], name="sample")]
    if not declared:
        nodes.insert(0, helper.make_node("Relu", ["x"], ["r"], name="relu"))
    path = make_model(
        nodes,
        inputs={
            "x": (TensorProto.FLOAT, [1, 1, *size]),
            "grid": (TensorProto.FLOAT, [1, *size, rank - 2]),
        },
        outputs={"y": (TensorProto.FLOAT, [1, 1, *size])},
        opset=20,
    )

    advice = _advice_for(inspect(path).advice, version)

    assert [(one.node, one.op) for one in advice] == ([("sample", "GridSample")] if want else [])


@pytest.mark.slow
def test_the_parser_names_every_node_that_it_refuses(make_model: Make, tmp_path: Path) -> None:
    path = make_model(
        [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"], name="measure"),
            helper.make_node("MatMulInteger", ["q", "q"], ["y"], name="multiply"),
        ],
        inputs={"x": (TensorProto.FLOAT, [4, 4])},
        outputs={"y": (TensorProto.INT32, [4, 4])},
    )
    advice, warning = parser_advice(path, folder=tmp_path, limits=Limits(seconds=600), tick=lambda: None)
    assert warning == ""
    assert {(entry.node, entry.op) for entry in advice} == {
        ("measure", "DynamicQuantizeLinear"),
        ("multiply", "MatMulInteger"),
    }
    assert all(entry.source == "tensorrt-rtx" and entry.message for entry in advice)


def test_a_model_with_doubtful_operators_is_prepared_all_the_same(prepare_model: Make, make_model: Make) -> None:
    path = make_model(
        [helper.make_node("NonZero", ["x"], ["a"], name="find")],
        inputs={"x": (TensorProto.FLOAT, [4, 4])},
        outputs={"a": (TensorProto.INT64, [2, None])},
    )
    advice = prepare_model(path).advice
    assert {(entry.node, entry.source) for entry in advice} == {("find", "table"), ("find", "tensorrt-rtx")}
