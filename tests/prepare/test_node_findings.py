"""Nodes that TensorRT refuses or that are random by themselves: named from the graph alone, with a cure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from enginesmith_contract.preparation import Refusal, describe_refusals
from enginesmith_runtime.prepare.model_file.node_findings import find_random_nodes, find_refusals, find_zero_divisors

F, I64, BOOL, U8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.UINT8
node = helper.make_node
HERE = Path()
ONES = np.ones(4, np.float32)


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, int],
    outputs: Mapping[str, int],
    weights: Mapping[str, Any] | None = None,
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, dtype, ["n", 4]) for name, dtype in inputs.items()],
        [helper.make_tensor_value_info(name, dtype, ["n", 4]) for name, dtype in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", 21), *([helper.make_opsetid("own", 1)] if functions else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)


def _constant(name: str, array: Any) -> onnx.NodeProto:
    return node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(array)))


def _loop(inputs: Sequence[str], condition: onnx.NodeProto) -> onnx.NodeProto:
    body = helper.make_graph(
        [node("Add", ["v", "v"], ["v2"]), condition],
        "body",
        [
            helper.make_tensor_value_info("i", I64, []),
            helper.make_tensor_value_info("go", BOOL, []),
            helper.make_tensor_value_info("v", F, ["n", 4]),
        ],
        [helper.make_tensor_value_info("go2", BOOL, []), helper.make_tensor_value_info("v2", F, ["n", 4])],
    )
    return node("Loop", inputs, ["y"], name="again", body=body)


def _quantise(*inputs: str, **attributes: Any) -> list[onnx.NodeProto]:
    return [
        node("QuantizeLinear", ["x", *inputs], ["q"], name="quantise", **attributes),
        node("DequantizeLinear", ["q", *inputs], ["y"], name="back"),
    ]


def _in_branches(inner: Sequence[onnx.NodeProto]) -> onnx.NodeProto:
    branches: dict[str, Any] = {
        f"{side}_branch": helper.make_graph(inner, side, [], [helper.make_tensor_value_info("b", F, ["n", 4])])
        for side in ("then", "else")
    }
    return node("If", ["c"], ["y"], **branches)


SCALE = {"s": np.float32(0.1)}
GO_ON = node("Identity", ["go"], ["go2"])


@pytest.mark.parametrize(
    ("model", "want"),
    [
        (_model([node("Relu", ["x"], ["y"])], {"x": F}, {"y": F, "x": F}), ("x", "input")),
        (_model([_loop(["count", "", "x"], GO_ON)], {"x": F}, {"y": F}, {"count": 5}), ("again", "Loop")),
        (
            _model(_quantise("s", "z"), {"x": F}, {"y": F}, {**SCALE, "z": np.uint8(128)}),
            ("quantise", "QuantizeLinear"),
        ),
        (_model(_quantise("s", "z"), {"x": F}, {"y": F}, {**SCALE, "z": np.int8(3)}), ("quantise", "QuantizeLinear")),
        (
            _model(_quantise("s", "z"), {"x": F}, {"y": F}, {**SCALE, "z": np.array([0, 0, 1, 0], np.int8)}),
            ("quantise", "QuantizeLinear"),
        ),
        (
            _model([_constant("z", np.int8(3)), *_quantise("s", "z")], {"x": F}, {"y": F}, SCALE),
            ("quantise", "QuantizeLinear"),
        ),
        (
            _model(
                [node("Identity", ["k"], ["z"]), *_quantise("s", "z")], {"x": F}, {"y": F}, {**SCALE, "k": np.int8(3)}
            ),
            ("quantise", "QuantizeLinear"),
        ),
        (_model(_quantise("s", "z"), {"x": F}, {"y": F}, {**SCALE, "z": np.uint8(0)}), ("quantise", "QuantizeLinear")),
        (_model(_quantise("s"), {"x": F}, {"y": F}, SCALE), ("quantise", "QuantizeLinear")),
        (_model(_quantise("s", "z"), {"x": F}, {"y": F}, {**SCALE, "z": np.int16(0)}), ("quantise", "QuantizeLinear")),
        (
            _model(
                [node("DequantizeLinear", ["b", "s"], ["f"], name="bias"), node("Add", ["x", "f"], ["y"])],
                {"x": F},
                {"y": F},
                {**SCALE, "b": np.array([1] * 4, np.int32)},
            ),
            ("bias", "DequantizeLinear"),
        ),
        *(
            (_model([node(op, ["x", "k"], ["y"], name="op")], {"x": U8}, {"y": dtype}, {"k": np.uint8(3)}), ("op", op))
            for op, dtype in (
                ("Add", U8),
                ("Sub", U8),
                ("Mul", U8),
                ("Div", U8),
                ("Mod", U8),
                ("Max", U8),
                ("Greater", BOOL),
                ("Equal", BOOL),
            )
        ),
        (_model([node("Transpose", ["x"], ["y"], name="op")], {"x": U8}, {"y": U8}), ("op", "Transpose")),
        (
            _model(
                [
                    node("Cast", ["x"], ["u"], to=U8),
                    node("Add", ["u", "u"], ["v"], name="op"),
                    node("Cast", ["v"], ["y"], to=F),
                ],
                {"x": F},
                {"y": F},
            ),
            ("op", "Add"),
        ),
        (
            _model(
                [_in_branches([node("Add", ["u", "u"], ["a"], name="inside"), node("Cast", ["a"], ["b"], to=F)])],
                {"u": U8, "c": BOOL},
                {"y": F},
            ),
            ("inside", "Add"),
        ),
        (
            _model(
                [node("Cast", ["x"], ["i"], name="op", to=TensorProto.INT16), node("Cast", ["i"], ["y"], to=F)],
                {"x": F},
                {"y": F},
            ),
            ("op", "Cast"),
        ),
        (_model([node("Cast", ["x"], ["y"], to=F)], {"x": TensorProto.UINT32}, {"y": F}), ("x", "input")),
        (
            _model([node("Cast", ["x"], ["y"], to=TensorProto.UINT64)], {"x": F}, {"y": TensorProto.UINT64}),
            ("y", "output"),
        ),
        (
            _model([node("Identity", ["x"], ["y"])], {"x": TensorProto.STRING}, {"y": TensorProto.STRING}),
            ("x", "input"),
        ),
        (
            _model(
                [node("Dropout", ["x", "r", "t"], ["y"], name="drop")],
                {"x": F},
                {"y": F},
                {"r": np.float32(0.5), "t": np.bool_(True)},
            ),
            ("drop", "Dropout"),
        ),
        (
            _model(
                [node("Dropout", ["x", "r", "t"], ["y"], name="drop")],
                {"x": F, "t": BOOL},
                {"y": F},
                {"r": np.float32(0.5)},
            ),
            ("drop", "Dropout"),
        ),
        (
            _model(
                [node("BatchNormalization", ["x", "a", "b", "c", "d"], ["y", "m", "v"], name="norm", training_mode=1)],
                {"x": F},
                {"y": F},
                dict.fromkeys("abcd", ONES),
            ),
            ("norm", "BatchNormalization"),
        ),
    ],
)
def test_what_no_tensorrt_takes_is_named_with_a_cure(model: onnx.ModelProto, want: tuple[str, str]) -> None:
    found = find_refusals(model, HERE)[0]
    assert (found.node, found.op) == want
    assert found.message
    assert found.remedy


@pytest.mark.parametrize(
    "model",
    [
        _model([node("Relu", ["x"], ["y"])], {"x": F}, {"y": F}),
        _model([_loop(["count", "yes", "x"], GO_ON)], {"x": F}, {"y": F}, {"count": 5, "yes": True}),
        _model([_loop(["count", "", "x"], _constant("go2", np.bool_(1)))], {"x": F}, {"y": F}, {"count": 5}),
        _model(_quantise("s", "z"), {"x": F}, {"y": F}, {**SCALE, "z": np.int8(0)}),
        _model([node("Cast", ["x"], ["f"], to=F), node("Add", ["f", "f"], ["y"])], {"x": U8}, {"y": F}),
        _model([node("Identity", ["x"], ["y"])], {"x": U8}, {"y": U8}),
        _model(
            [node("Reshape", ["k", "s"], ["r"]), node("Cast", ["r"], ["f"], to=F), node("Add", ["x", "f"], ["y"])],
            {"x": F},
            {"y": F},
            {"k": np.array([1] * 4, np.uint8), "s": np.array([1, 4], np.int64)},
        ),
        _model([node("Dropout", ["x"], ["y"])], {"x": F}, {"y": F}),
        _model([_constant("t", np.bool_(0)), node("Dropout", ["x", "", "t"], ["y"])], {"x": F}, {"y": F}),
        _model(
            [node("BatchNormalization", ["x", "a", "b", "c", "d"], ["y"])],
            {"x": F},
            {"y": F},
            dict.fromkeys("abcd", ONES),
        ),
        _model([node("Add", ["x", "x"], ["y"])], {"x": TensorProto.INT8}, {"y": TensorProto.INT8}),
    ],
)
def test_what_tensorrt_takes_is_not_refused(model: onnx.ModelProto) -> None:
    assert find_refusals(model, HERE) == ()
    assert find_random_nodes(model, HERE) == {}


def test_many_nodes_of_one_cure_make_one_line() -> None:
    refusals = [Refusal(node=name, op="Add", message="it works on UINT8", remedy="cast") for name in "abcde"]
    refusals.append(Refusal(node="x", op="input", message="it is an output", remedy="copy it"))
    assert describe_refusals(refusals) == (
        "node 'a' (Add), node 'b' (Add), node 'c' (Add) and 2 more: it works on UINT8; cast",
        "input 'x': it is an output; copy it",
    )


def test_a_line_says_what_is_true_of_all_its_nodes() -> None:
    refusals = [
        Refusal(node=name, op="input", message=f"it is of type {name}", remedy="export it as INT32")
        for name in ("INT16", "UINT16")
    ]
    assert describe_refusals(refusals) == (
        "input 'INT16': it is of type INT16; export it as INT32",
        "input 'UINT16': it is of type UINT16; export it as INT32",
    )


def _function(op: str) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", 21)]
    return helper.make_function("own", "Noise", ["a"], ["b"], [node(op, ["a"], ["b"])], opsets)


@pytest.mark.parametrize(
    ("model", "want_op"),
    [
        *(
            (_model([node(op, ["x"], ["y"])], {"x": F}, {"y": F}), op)
            for op in ("RandomNormalLike", "RandomUniformLike", "Bernoulli")
        ),
        (_model([node("RandomNormal", [], ["y"], shape=[1, 4])], {"x": F}, {"y": F}), "RandomNormal"),
        (_model([node("RandomUniform", [], ["y"], shape=[1, 4], seed=1.0)], {"x": F}, {"y": F}), "RandomUniform"),
        (_model([node("Multinomial", ["x"], ["y"])], {"x": F}, {"y": TensorProto.INT32}), "Multinomial"),
        (_model([_in_branches([node("Bernoulli", ["x"], ["b"])])], {"x": F, "c": BOOL}, {"y": F}), "Bernoulli"),
        (
            _model([node("Noise", ["x"], ["y"], domain="own")], {"x": F}, {"y": F}, functions=[_function("Bernoulli")]),
            "Bernoulli",
        ),
        (_model([node("Dropout", ["x", "", "t"], ["y"])], {"x": F}, {"y": F}, {"t": np.bool_(True)}), "Dropout"),
    ],
)
def test_random_nodes_are_named_wherever_they_are(model: onnx.ModelProto, want_op: str) -> None:
    assert any(f"({want_op})" in name for name in find_random_nodes(model, HERE))


@pytest.mark.parametrize(
    ("op", "divisor", "want"),
    [
        ("Div", np.int64(0), True),
        ("Mod", np.array([1, 0], np.int32), True),
        ("Div", np.int64(2), False),
        ("Div", np.float32(0), False),
    ],
)
def test_a_constant_zero_divides_no_integers(op: str, divisor: np.ndarray, want: bool) -> None:  # noqa: FBT001 - a column
    dtype = helper.np_dtype_to_tensor_dtype(divisor.dtype)
    model = _model([node(op, ["x", "d"], ["y"], name="divide")], {"x": dtype}, {"y": dtype}, {"d": divisor})
    assert find_zero_divisors(model, HERE) == ((f"node 'divide' ({op})",) if want else ())
