"""Finds integer inputs that index a table, and the size of the table.

ONNX Runtime refuses a random token id outside an embedding, and a GPU would read other memory. So inputs are followed
through the graph to every Gather that uses them as indices.
"""

from collections.abc import Mapping
from typing import Final

import onnx

from enginesmith_runtime.onnx_graphs.graph import subgraphs

__all__ = ["find_index_bounds"]

# Operators that pass on the values of their first input (except padding).
_KEEP_VALUES: Final = frozenset(
    {
        "Cast", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose",
        "Unsqueeze",
    }
)  # fmt: skip


def find_index_bounds(graph: onnx.GraphProto) -> dict[str, int]:
    """Return the size of the smallest table for each input that is used as an index."""
    bounds: dict[str, int] = {}
    tables = _table_shapes(graph)
    _follow(graph, {value.name: value.name for value in graph.input}, tables, bounds)
    return bounds


def _follow(
    graph: onnx.GraphProto, origins: dict[str, str], tables: Mapping[str, tuple[int, ...]], bounds: dict[str, int]
) -> None:
    """Visit the nodes in order. `origins` has the source input of each tensor's values."""
    for node in graph.node:
        if node.op_type == "Gather" and len(node.input) > 1:
            size = _gathered_size(node, tables)
            origin = origins.get(node.input[1])
            if origin is not None and size is not None:
                bounds[origin] = min(size, bounds.get(origin, size))
        if node.op_type in _KEEP_VALUES and node.input and node.input[0] in origins:
            origins.update(dict.fromkeys(node.output, origins[node.input[0]]))
        for inner in subgraphs(node):
            _follow(inner, dict(origins), {**tables, **_table_shapes(inner)}, bounds)


def _gathered_size(node: onnx.NodeProto, tables: Mapping[str, tuple[int, ...]]) -> int | None:
    shape = tables.get(node.input[0])
    if not shape:
        return None
    axis = next((int(attribute.i) for attribute in node.attribute if attribute.name == "axis"), 0)
    return shape[axis] if -len(shape) <= axis < len(shape) else None


def _table_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.HasField("t"):
                shapes[node.output[0]] = tuple(attribute.t.dims)
        # A table is often stored in FP16 and cast to FP32, or the reverse.
        if node.op_type in {"Cast", "Identity", "DequantizeLinear"} and node.input and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
    return shapes
