"""Divisions whose denominator FP16 may make 0 or infinite, where that is cheap to see.

One minus a Sigmoid is 0 in FP16 from 9 on, and an input of the graph may have any size. What something follows that
bounds it from below, such as an epsilon or a Clip, is no such denominator.
"""

from collections.abc import Iterator
from typing import Final

import onnx

from enginesmith_runtime.onnx_graphs.dataflow import MOVES, Dataflow

__all__ = ["VANISHES", "nodes_of_vanishing_denominator"]

VANISHES: Final = "its denominator may be 0 or infinite in FP16"

# Their results end at 1 or -1.
_SATURATES: Final = frozenset({"Sigmoid", "Softmax", "Tanh"})
_BOUNDS: Final = frozenset({"Clip", "Max", "Pad", "Where"})
_SAME_SIZE: Final = (MOVES - _BOUNDS) | frozenset({"Abs", "Neg", "Sqrt"})


def nodes_of_vanishing_denominator(node: onnx.NodeProto, flow: Dataflow) -> list[onnx.NodeProto] | None:
    """Return the nodes between the denominator's source and a node that divides; None where FP16 holds it."""
    name = _denominator(node, flow)
    if not name or name in flow.weights:
        return None
    path: list[onnx.NodeProto] = []
    made = flow.producers.get(name)
    while made is not None and made.op_type in _SAME_SIZE and made.input:
        path.append(made)
        name = made.input[0]
        made = flow.producers.get(name)
    if made is None:
        return path if _is_float_input(name, flow) else None
    source = list(_from_one(made, flow))
    return [*path, *source] if source else None


def _denominator(node: onnx.NodeProto, flow: Dataflow) -> str:
    match node.op_type:
        case "Reciprocal":
            return str(node.input[0])
        case "Div":
            return str(node.input[1])
        case "Pow":
            exponent = flow.constants.get(node.input[1])
            return str(node.input[0]) if exponent is not None and bool((exponent < 0).any()) else ""
        case _:
            return ""


def _is_float_input(name: str, flow: Dataflow) -> bool:
    return flow.is_float(name) and name not in flow.weights and any(value.name == name for value in flow.graph.input)


def _from_one(node: onnx.NodeProto, flow: Dataflow) -> Iterator[onnx.NodeProto]:
    """Yield a node that takes a saturated value from one, or adds one to it, and what makes that value."""
    constants = [flow.constants[name] for name in node.input if name in flow.constants]
    if node.op_type not in {"Add", "Sub"} or not any(bool((abs(values) == 1).any()) for values in constants):
        return
    before = list(flow.upstream(flow.floats(node), lambda each: each.op_type in MOVES or each.op_type in _SATURATES))
    if any(each.op_type in _SATURATES for each in before):
        yield node
        yield from before
