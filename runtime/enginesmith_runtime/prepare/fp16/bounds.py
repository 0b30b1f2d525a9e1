"""Finds layers that can leave FP16's range with inputs inside their known range or dtype.

A sum reaches its bound if the input matches the weights (a template, a dominant direction). So the bound decides, and
not the sums of usual inputs.
"""

import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from enginesmith_runtime.onnx_graphs.dataflow import MOVES, Dataflow
from enginesmith_runtime.onnx_graphs.narrow import FP16
from enginesmith_runtime.prepare.fp16.layer_weights import Columns, LayerWeights

__all__ = ["nodes_beyond_bounds"]

_Bound = tuple[float, float]
_KEEPS: Final = (MOVES - {"Gather", "Clip"}) | {"Identity"}  # a Gather may read a table
_ARITHMETIC: Final[Mapping[str, Callable[[float, float], float]]] = {
    "Add": operator.add,
    "Div": operator.truediv,
    "Mul": operator.mul,
    "Sub": operator.sub,
}
_RECURRENT: Final = frozenset({"GRU", "LSTM", "RNN"})  # bounded by their gates


def nodes_beyond_bounds(flow: Dataflow, limits: Mapping[str, _Bound], folder: Path) -> dict[str, str]:
    """Return the layers that must stay in FP32 for this, with the reason.

    Args:
        flow: The graph.
        limits: Smallest and largest value of inputs with known range.
        folder: Folder of the weights outside the ONNX file.
    """
    weights = LayerWeights(flow.graph, folder)
    bounds = dict(limits)
    found: dict[str, str] = {}
    for node in flow.graph.node:
        if not any(name in bounds for name in node.input):
            continue
        if not weights.is_layer(node):
            bound = _bound_of(node, bounds, flow)
            bounds |= dict.fromkeys(node.output, bound) if bound else {}
            continue
        known = node.input[0] in bounds and node.op_type not in _RECURRENT
        columns = weights.columns(node) if known else None
        largest = 0.0 if columns is None else _largest_sum(columns, bounds[node.input[0]])
        if largest > FP16.largest:
            found[node.name] = f"its weights can make {largest:.3g} of what it reads, and FP16 ends at 65504"
    return found


def _largest_sum(columns: Columns, bound: _Bound) -> float:
    flat = columns.reshape(len(columns), -1)
    up, down = np.maximum(flat, 0).sum(1), np.minimum(flat, 0).sum(1)
    low, high = bound
    return float(np.max(np.maximum(np.abs(up * high + down * low), np.abs(up * low + down * high)), initial=0.0))


def _bound_of(node: onnx.NodeProto, bounds: Mapping[str, _Bound], flow: Dataflow) -> _Bound | None:
    """Return the bound of a result, or None if it is not known."""
    others = [name for name in node.input if name and name not in bounds]
    if node.op_type in _KEEPS:
        made = [bounds[name] for name in node.input if name in bounds]
        return min(low for low, _ in made), max(high for _, high in made)
    if node.op_type not in _ARITHMETIC or len(others) != 1 or others[0] not in flow.constants:
        return None
    values = flow.constants[others[0]]
    if not values.size or (node.op_type == "Div" and not (values.all() and others[0] == node.input[1])):
        return None
    [ends] = [bounds[name] for name in node.input if name in bounds]
    first = others[0] == node.input[0]
    pairs = [(each, end) if first else (end, each) for end in ends for each in (values.min(), values.max())]
    results = [float(_ARITHMETIC[node.op_type](*pair)) for pair in pairs]
    return min(results), max(results)
