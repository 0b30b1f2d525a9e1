"""Finds distances that are computed as x^2 - 2xc + c^2. Near a centre, FP16 rounds away the small rest of large terms.

Exports of RBF networks, nearest prototypes, k-nearest neighbours and code books have this form. The terms stay in FP32.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx

from enginesmith_runtime.onnx_graphs.dataflow import CAUSE, MOVES, Dataflow

__all__ = ["nodes_of_distances"]

_REASON: Final = "squares and products of the same values are taken from each other, and FP16 rounds away what is left"
_SUMS: Final = frozenset({"Add", "Sub", "Sum"})
_PRODUCTS: Final = frozenset({"Conv", "Einsum", "Gemm", "MatMul"})
_PASSES: Final = MOVES | _SUMS | {"Div", "Mul", "Neg", "ReduceMean", "ReduceSum"}
_UNCHANGED: Final = frozenset(
    {"Cast", "Dropout", "Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)
_SQUARED: Final = 2


@dataclass(frozen=True)
class _Terms:
    """The parts of a summand: squared values, multiplied values, and the nodes between."""

    squares: set[str] = field(default_factory=set)
    products: set[str] = field(default_factory=set)
    nodes: list[onnx.NodeProto] = field(default_factory=list)


def nodes_of_distances(flow: Dataflow) -> dict[str, str]:
    """Return the nodes that must stay in FP32 for this, with the reason."""
    kept: dict[str, str] = {}
    for node in flow.graph.node:
        if node.op_type not in _SUMS:
            continue
        terms = [_terms_of(flow, name) for name in flow.floats(node)]
        meets = [(one, other) for one in terms for other in terms if one is not other and one.squares & other.products]
        if meets:
            kept[node.name] = _REASON
        for each in (each for pair in meets for term in pair for each in term.nodes):
            kept.setdefault(each.name, f"its result goes to {node.name}{CAUSE}{_REASON}")
    return kept


def _terms_of(flow: Dataflow, summand: str) -> _Terms:
    terms = _Terms()
    left, seen = [summand], set[str]()
    while left:
        node = flow.producers.get(left.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        read = flow.floats(node)
        squared = _squared(flow, node)
        if squared:
            terms.squares.add(squared)
        elif node.op_type in _PRODUCTS:
            # A product of squares and weights is a weighted sum of squares.
            for name in read:
                made = flow.producers.get(_source(flow, name))
                inner = _squared(flow, made) if made is not None else ""
                terms.products.add(_source(flow, name))
                terms.squares.update({inner} - {""})
                terms.nodes.extend([made] if made is not None and inner else [])
        elif node.op_type in _PASSES and (node.op_type in MOVES | _SUMS or len(read) == 1):
            left += read
        else:
            continue
        terms.nodes.append(node)
    return terms


def _squared(flow: Dataflow, node: onnx.NodeProto) -> str:
    """Return the value that a node squares, also in a sum of squares, or "" for other nodes."""
    read = [_source(flow, name) for name in flow.floats(node)]
    if node.op_type == "ReduceSumSquare" or (node.op_type == "Mul" and len(read) == _SQUARED and read[0] == read[1]):
        return read[0]
    if node.op_type == "Pow" and read:
        exponent = flow.constants.get(node.input[1])
        return read[0] if exponent is not None and bool(np.all(exponent == _SQUARED)) else ""
    return ""


def _source(flow: Dataflow, name: str) -> str:
    """Return the value that is the source of a value's elements."""
    while (node := flow.producers.get(name)) is not None and node.op_type in _UNCHANGED:
        name = node.input[0]
    return name
