"""Nodes that stand before those whose outputs they read are put in order, wherever they are; a cycle is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, checker, helper, numpy_helper

from enginesmith_contract.errors import ModelError
from enginesmith_contract.preparation import Preparation
from enginesmith_runtime.prepare.model_file.check import inspect
from enginesmith_runtime.store.interface import Store

Make = Callable[..., Path]
Prepare = Callable[..., Preparation]
F = TensorProto.FLOAT
_SHAPE = [1, 4]


def _branch(*nodes: onnx.NodeProto, output: str) -> onnx.GraphProto:
    return helper.make_graph(nodes, "branch", [], [helper.make_tensor_value_info(output, F, _SHAPE)])


def _chain() -> list[onnx.NodeProto]:
    """Return y = exp(relu(-x)), the last node first."""
    return [
        helper.make_node("Exp", ["b"], ["y"], name="last"),
        helper.make_node("Relu", ["a"], ["b"], name="middle"),
        helper.make_node("Neg", ["x"], ["a"], name="first"),
    ]


def _in_a_branch() -> list[onnx.NodeProto]:
    """Return an If before the nodes that it and its branches read; one branch has the chain, the last node first."""
    then = _branch(*_chain()[:2], helper.make_node("Neg", ["doubled"], ["a"], name="first"), output="y")
    then.output[0].name = "y"
    other = _branch(helper.make_node("Identity", ["doubled"], ["z"]), output="z")
    return [
        helper.make_node("If", ["condition"], ["y"], name="choice", then_branch=then, else_branch=other),
        helper.make_node("Add", ["x", "x"], ["doubled"], name="double"),
        helper.make_node("Constant", [], ["condition"], value=numpy_helper.from_array(np.array(True))),
    ]


def _make(make_model: Make, nodes: list[onnx.NodeProto], **more: Any) -> Path:
    return make_model(nodes, inputs={"x": (F, _SHAPE)}, outputs={"y": (F, _SHAPE)}, **more)


@pytest.mark.parametrize(("nodes", "want_late"), [(_chain(), 2), (_in_a_branch(), 3)])
def test_late_nodes_are_put_in_order_and_that_is_said(
    nodes: list[onnx.NodeProto],
    want_late: int,
    make_model: Make,
    prepare_model: Prepare,
    store: Store,
    tmp_path: Path,
) -> None:
    preparation = prepare_model(_make(make_model, nodes))

    (said,) = [warning for warning in preparation.warnings if "in order" in warning]
    assert said.startswith(f"{want_late} node(s) stood before")
    checker.check_model(str(store.get_files(preparation.model, tmp_path / "prepared")), full_check=True)
    assert len(preparation.references) > 0


def test_a_model_in_order_stays_as_it_is(make_model: Make, tmp_path: Path) -> None:
    found = inspect(_make(make_model, _chain()[::-1]), _folder(tmp_path))
    assert (found.files, found.warnings) == ((), ())


def test_the_nodes_of_a_function_are_put_in_order(make_model: Make, tmp_path: Path) -> None:
    path = _make(make_model, [helper.make_node("Chain", ["x"], ["y"], domain="mine")], domains=["mine"])
    model = onnx.load(path)
    opset = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("mine", "Chain", ["x"], ["y"], _chain(), opset))
    path.write_bytes(model.SerializeToString())

    (file,) = inspect(path, _folder(tmp_path)).files

    nodes = onnx.load(tmp_path / "out" / file).functions[0].node
    assert [node.name for node in nodes] == ["first", "middle", "last"]


def test_weights_in_other_files_stay_with_the_model(make_model: Make, tmp_path: Path) -> None:
    weights = np.arange(4096, dtype=np.float32).reshape(4, 1024)
    nodes = [
        helper.make_node("Relu", ["a"], ["y"]),
        helper.make_node("MatMul", ["x", "w"], ["a"]),
    ]
    path = make_model(nodes, inputs={"x": (F, [1, 4])}, outputs={"y": (F, [1, 1024])}, weights={"w": weights})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=1024)

    found = inspect(path, _folder(tmp_path))

    assert found.files == ("model.onnx", "w.bin")
    assert np.array_equal(
        numpy_helper.to_array(onnx.load(tmp_path / "out" / "model.onnx").graph.initializer[0]), weights
    )


@pytest.mark.parametrize(
    ("nodes", "want"),
    [
        (
            [
                helper.make_node("Relu", ["c"], ["y"], name="after"),
                helper.make_node("Add", ["x", "c"], ["a"], name="one"),
                helper.make_node("Relu", ["a"], ["b"], name="two"),
                helper.make_node("Relu", ["b"], ["c"], name="three"),
            ],
            "one -> two -> three -> one",
        ),
        ([helper.make_node("Add", ["x", "y"], ["y"], name="itself")], "itself -> itself"),
        (
            [
                helper.make_node(
                    "If",
                    ["condition"],
                    ["y"],
                    then_branch=_branch(
                        helper.make_node("Add", ["x", "d"], ["c"], name="in"),
                        helper.make_node("Relu", ["c"], ["d"], name="out"),
                        output="c",
                    ),
                    else_branch=_branch(helper.make_node("Identity", ["x"], ["e"]), output="e"),
                ),
                helper.make_node("Constant", [], ["condition"], value=numpy_helper.from_array(np.array(True))),
            ],
            "in -> out -> in",
        ),
    ],
)
def test_a_cycle_is_refused_with_its_nodes(nodes: list[onnx.NodeProto], want: str, make_model: Make) -> None:
    with pytest.raises(ModelError) as caught:
        inspect(_make(make_model, nodes))
    assert caught.value.reason == "GraphHasCycle"
    ring = want.split(" -> ")[:-1]
    turns = [" -> ".join([*ring[at:], *ring[:at], ring[at]]) for at in range(len(ring))]
    assert any(caught.value.why.endswith(turn) for turn in turns)


def test_a_name_that_is_defined_twice_is_refused_by_the_checker(make_model: Make) -> None:
    nodes = [*_chain(), helper.make_node("Abs", ["x"], ["a"])]
    with pytest.raises(ModelError) as caught:
        inspect(_make(make_model, nodes))
    assert caught.value.reason == "ModelInvalid"


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder
