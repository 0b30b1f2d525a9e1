"""Finds nodes that need exact numbers. FP16 is exact for integers up to 2048, so 4097 equals 4096 in it.

Comparisons, rounding and conversions to integers stay in FP32, and so do the nodes between them and the numbers that
they compare: the graph's inputs, integers that were converted to floats, and positions.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto

from enginesmith_runtime.onnx_graphs.constants import Values, is_exact
from enginesmith_runtime.onnx_graphs.dataflow import ARITHMETIC, CAUSE, MOVES, Dataflow, has_subgraph, int_attribute
from enginesmith_runtime.onnx_graphs.narrow import Narrow

__all__ = ["nodes_that_need_exact_numbers"]

_COMPARES: Final = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
_ORDERS: Final = frozenset({"ArgMax", "ArgMin", "Hardmax", "Sign", "TopK"})
# Operators that convert a value to an integer or a condition. A coordinate that is off by one reads another element.
_COUNTS: Final = frozenset({"Ceil", "Floor", "Mod", "NonZero", "OneHot", "Round", "Unique"})
_RELATES: Final = frozenset({"LogSoftmax", "Softmax"})
_TURNS: Final = frozenset({"Cos", "Sin", "Tan"})
_INTEGERS: Final = frozenset(
    {
        TensorProto.BOOL, TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8,
        TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
    }
)  # fmt: skip
_SHIFTS: Final = frozenset({"Add", "BatchNormalization", "Sub", "Sum"})
# Operators that read at positions, with the index of the input with positions.
_PLACES: Final[Mapping[str, int]] = {"GridSample": 1, "MaxRoiPool": 1, "NonMaxSuppression": 0, "RoiAlign": 1}
_FINE: Final = 1 / 8  # relative to the largest exact integer: steps are a quarter there
_ENOUGH: Final = "and FP16 holds integers up to 2048 only"
_COUNTED: Final = f"it computes with integers, {_ENOUGH}"


def nodes_that_need_exact_numbers(flow: Dataflow) -> dict[str, str]:
    """Return the nodes that must stay in FP32 for this, with the reason."""
    kept: dict[str, str] = {}
    for node in flow.graph.node:
        reason = _why(node, flow)
        if not reason:
            continue
        if node.op_type != "Cast" and not has_subgraph(node):
            kept.setdefault(node.name, reason)
        counts = node.op_type in _COUNTS or node.op_type == "Cast"
        names = [name for name in (*flow.floats(node), *_captured(node, flow)) if counts or name in flow.given]
        for before in flow.upstream(names, lambda each: _is_exact_step(each) or _is_given_product(each, flow)):
            if before.op_type != "Cast":
                kept.setdefault(before.name, f"its result goes to {node.name}{CAUSE}{reason}")
    return _handed_on(flow) | _positions(flow) | _computed_on(flow, kept) | kept


def _positions(flow: Dataflow) -> dict[str, str]:
    """Return the nodes that compute positions to read from, such as boxes and grids."""
    places = [(node, node.input[_PLACES[node.op_type]]) for node in flow.graph.node if node.op_type in _PLACES]
    return {
        before.name: f"its result goes to {node.name}{CAUSE}positions need more than FP16's 11 bits"
        for node, name in places
        for before in flow.upstream([name], _is_exact_step)
    }


def _computed_on(flow: Dataflow, kept: Mapping[str, str]) -> dict[str, str]:
    """Return the nodes that combine integers with the values they were rounded from, such as x - floor(x)."""
    more: dict[str, str] = {}
    whole = set(flow.counted)
    exact = set(flow.given)
    for node in flow.graph.node:
        read = flow.floats(node)
        follows = any(name in whole for name in read) and all(name in whole or name in exact for name in read)
        if _is_exact_step(node) and follows and node.name not in kept:
            more[node.name] = _COUNTED
        made = [name for name in node.output if flow.is_float(name)]
        if node.op_type in _COUNTS or (_is_exact_step(node) and follows):
            whole.update(made)
        if node.name in kept:
            exact.update(made)
    return more


def _why(node: onnx.NodeProto, flow: Dataflow) -> str:
    """Return why a node itself needs exact numbers, or "" if it does not."""
    if has_subgraph(node):
        return "its inner graphs compute in FP32" if flow.captured else ""
    read = [name for name in node.input if flow.is_float(name)]
    given = any(name in flow.given for name in read)
    step = _is_exact_step(node)
    to_integer = node.op_type == "Cast" and int_attribute(node, "to", 0) in _INTEGERS
    compares = node.op_type in _COMPARES and (given or _compares_inexact(node, flow))
    differs = node.op_type == "Sub" and len(read) > 1 and all(name in flow.given for name in read)
    reasons = (
        (bool(read) and (node.op_type in _COUNTS or to_integer), f"it turns values into integers, {_ENOUGH}"),
        (compares or (node.op_type in _ORDERS and given), f"it compares, {_ENOUGH}"),
        (node.op_type in _RELATES and given, "it relates inputs of any size, and FP16 rounds large ones"),
        (differs, "it takes inputs from each other, and FP16 rounds away how they differ"),
        (node.op_type in _TURNS and given, "it takes an angle, and FP16 holds large angles to a whole turn only"),
        (given and step and _has_large_constant(node, flow), f"it computes with numbers above 2048, {_ENOUGH}"),
        (given and _has_offset(node, flow), "it shifts by a number above 256, and FP16 rounds away what is left"),
        (any(name in flow.counted for name in read) and not _mixes(read, flow), _COUNTED),
        (step and _has_inexact_integer(node, flow), f"a constant of it is an integer that FP16 rounds, {_ENOUGH}"),
    )
    return next((reason for holds, reason in reasons if holds), "")


def _mixes(names: list[str], flow: Dataflow) -> bool:
    """Whether a node combines integers with features, such as a mask with scores. Such a node may compute in FP16."""
    return any(name not in flow.given and name not in flow.weights for name in names)


def _compares_inexact(node: onnx.NodeProto, flow: Dataflow) -> bool:
    """Whether a compared constant, or one that is looked up in a table, is not an FP16 number."""
    constants = [flow.constants.get(name) for name in node.input if name in flow.weights]
    tables = flow.upstream(flow.floats(node), lambda each: each.op_type in MOVES)
    return any(values is None or not is_exact(values, flow.narrow) for values in constants) or any(
        _has_inexact_integer(each, flow) for each in tables
    )


def _has_inexact_integer(node: onnx.NodeProto, flow: Dataflow) -> bool:
    constants = [flow.constants[name] for name in node.input if name in flow.constants and flow.is_float(name)]
    return any(bool((values == values.round()).all()) and not is_exact(values, flow.narrow) for values in constants)


def _has_large_constant(node: onnx.NodeProto, flow: Dataflow) -> bool:
    """Whether a node computes with a number, other than a mask, at which FP16 has steps above one."""
    constants = [flow.constants[name] for name in node.input if name in flow.constants and flow.is_float(name)]
    finite = [values[np.isfinite(values)] for values in constants]
    held = node.op_type in MOVES
    return any(
        bool((abs(values) > flow.narrow.whole).any())
        and not (is_exact(values, flow.narrow) and (held or _is_mask(values, flow.narrow)))
        for values in finite
    )


def _is_mask(values: Values, narrow: Narrow) -> bool:
    """Whether the added values are 0, or so far below 0 that their exact value does not matter."""
    return bool((values == 0).any()) and bool(((values == 0) | (values < -narrow.whole)).all())


def _has_offset(node: onnx.NodeProto, flow: Dataflow) -> bool:
    """Whether a node shifts by a number at whose size FP16 has steps of a quarter and more."""
    names = node.input[3:4] if node.op_type == "BatchNormalization" else node.input
    constants = [flow.constants[name] for name in names if name in flow.constants and flow.is_float(name)]
    finite = [values[np.isfinite(values)] for values in constants]
    return node.op_type in _SHIFTS and any(
        bool((abs(values) > _FINE * flow.narrow.whole).any()) and not _is_mask(values, flow.narrow) for values in finite
    )


def _captured(node: onnx.NodeProto, flow: Dataflow) -> list[str]:
    return [name for name in flow.captured if name in flow.given] if has_subgraph(node) else []


def _is_exact_step(node: onnx.NodeProto) -> bool:
    return node.op_type in MOVES or node.op_type in ARITHMETIC


def _is_given_product(node: onnx.NodeProto, flow: Dataflow) -> bool:
    """Whether a node multiplies the graph's inputs or integers by few constants, such as digits of an index."""
    return flow.is_small_product(node) and any(name in flow.given for name in node.output)


def _handed_on(flow: Dataflow) -> dict[str, str]:
    """Return the nodes that only copy inputs, or constants that FP16 rounds, to the outputs of the graph."""
    carried = set(flow.given)
    for node in flow.graph.node:
        if node.op_type in MOVES and (_has_inexact_integer(node, flow) or not carried.isdisjoint(node.input)):
            carried.update(name for name in node.output if flow.is_float(name))
    outputs = [value.name for value in flow.graph.output if flow.is_float(value.name)]
    return {
        node.name: f"it hands numbers on to an output, {_ENOUGH}"
        for node in flow.upstream(outputs, lambda each: each.op_type in MOVES)
        if not carried.isdisjoint(node.output)
    }
