"""Finds nodes that are not known to process the rows of a batch separately. With such a node, trials prove little.

The search follows the rows from the first dimension of every input. Each node on the way to an output must be known:
its operator has a rule, does not work along the axis of the rows, and the rule gives the position of the rows in its
output. Values that depend only on shapes do not depend on the contents of rows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import onnx
from onnx import inliner, shape_inference

from enginesmith_runtime.onnx_graphs.constants import find_constants
from enginesmith_runtime.onnx_graphs.graph import all_nodes, is_onnx_domain, label, opset_of
from enginesmith_runtime.prepare.model_file.inferred_shapes import without_declarations
from enginesmith_runtime.prepare.model_file.row_axes import AXES, NodeView
from enginesmith_runtime.prepare.model_file.row_numbers import numbers_of
from enginesmith_runtime.prepare.model_file.row_rules import PLACES, Call, Place
from enginesmith_runtime.prepare.model_file.row_values import ROWS, Dim, RowValue

__all__ = ["find_mixing_nodes"]

_MOST: Final = 8
_MOST_NUMBERS: Final = 64
_FROM_SHAPES: Final = frozenset({"EyeLike", "Shape", "Size"})
_ACROSS: Final = "works across rows"
_UNKNOWN: Final = "is not known to keep rows apart"
_COUNTS: Final = "computes with the number of rows"
_SIZES: Final = {  # inputs with shapes or positions instead of values
    "ConstantOfShape": {0}, "Expand": {1}, "Pad": {1}, "Reshape": {1}, "Resize": {2, 3}, "Slice": {1, 2, 3, 4},
    "Split": {1}, "Squeeze": {1}, "Tile": {1}, "Unsqueeze": {1}, "Upsample": {1},
}  # fmt: skip


def find_mixing_nodes(model: onnx.ModelProto, folder: Path) -> tuple[str, ...]:
    """Return the first eight nodes that work across rows or may do so, as "node 'm' (ReduceMax) works across rows"."""
    search = _Search(inliner.inline_local_functions(model) if model.functions else model, folder)
    return tuple(search.run()[:_MOST])


class _Search:
    """One walk through a main graph, in topological order."""

    def __init__(self, model: onnx.ModelProto, folder: Path) -> None:
        self._graph = model.graph
        self._shapes = _inferred(model)
        constants = find_constants(model.graph, folder, opset_of(model))
        whole = {name: one for name, one in constants.items() if self._size(name) == one.size}
        self._view = NodeView(opset=opset_of(model), constants=whole)
        weights = {one.name for one in model.graph.initializer}
        self._values: dict[str, RowValue] = {}
        self._found: list[str] = []
        for value in model.graph.input:
            if value.name not in weights:
                dims = self._shapes.get(value.name)
                self._values[value.name] = RowValue(dims=dims, rows=0) if dims else RowValue.lost()
                if not dims:
                    self._found.append(f"input {value.name!r} is not known to have rows")

    def run(self) -> list[str]:
        """Return the findings in the order of the graph."""
        used = _used(self._graph)
        for node in self._graph.node:
            if used.intersection(node.output):
                self._visit(node)
        for output in self._graph.output:
            value = self._value(output.name)
            if value.rows is not None and (value.rows != 0 or (value.dims or ())[0] != Dim(1, (ROWS,))):
                self._found.append(f"output {output.name!r} is not known to have a row for each row of the inputs")
        return self._found

    def _visit(self, node: onnx.NodeProto) -> None:
        inputs = [self._value(name) if name else None for name in node.input]
        reached = [one for one in inputs if one is not None and (one.is_lost or one.rows is not None)]
        captured = [self._value(name) for inner in all_nodes(_body(node)) for name in inner.input if name]
        has_body = any(one.is_lost or one.rows is not None for one in captured)
        counts = self._counts_rows(node, inputs)
        if node.op_type in _FROM_SHAPES or not (reached or has_body):
            known = numbers_of(node, inputs) if is_onnx_domain(node.domain) else None
            for at, name in enumerate(node.output):
                numbers = known if at == 0 else None
                if numbers is not None and None not in numbers:
                    counts = any(ROWS in number.names for number in numbers if number is not None)
                self._values[name] = RowValue(dims=self._shapes.get(name), numbers=numbers, counts_rows=counts)
            return
        if counts or any(one.counts_rows for one in captured):
            self._found.append(f"node {label(node)!r} ({node.op_type}) {_COUNTS}")
        place = None
        if not any(one.is_lost for one in reached) or has_body:
            place = self._place(node, Call(node=node, inputs=inputs, view=self._view))
        for at, name in enumerate(node.output):
            self._values[name] = RowValue.lost() if place is None else self._placed(node, at, place)

    def _counts_rows(self, node: onnx.NodeProto, inputs: Sequence[RowValue | None]) -> bool:
        """Whether elements of a node's output may depend on the number of rows."""
        if node.op_type in {"Shape", "Size"}:
            dims = inputs[0].dims if inputs and inputs[0] is not None else None
            return dims is None or any(ROWS in dim.names for dim in dims)
        sizes = _SIZES.get(node.op_type, ())
        return any(one is not None and one.counts_rows and at not in sizes for at, one in enumerate(inputs))

    def _place(self, node: onnx.NodeProto, call: Call) -> Place | None:
        """Return the position of the rows after a node, and record a node that may mix them."""
        rule = PLACES.get(node.op_type) if is_onnx_domain(node.domain) else None
        if rule is not None and self._mixes(node, call):
            self._found.append(f"node {label(node)!r} ({node.op_type}) {_ACROSS}")
            return None
        place = rule(call) if rule is not None else None
        if place is None:
            self._found.append(f"node {label(node)!r} ({node.op_type}) {_UNKNOWN}")
        return place

    def _mixes(self, node: onnx.NodeProto, call: Call) -> bool:
        rule = AXES.get("Reduce" if node.op_type.startswith("Reduce") else node.op_type)
        if rule is None:
            return False
        for index, value in call.fed.items():
            rank = len(value.dims or ())
            if value.rows in {axis % rank for axis in rule(node, index, rank, self._view)}:
                return True
        return False

    def _placed(self, node: onnx.NodeProto, at: int, place: Place) -> RowValue:
        sizes, rows = place
        name = node.output[at]
        if node.op_type in {"LSTM", "GRU", "RNN"} and at > 0:
            layout = (self._view.numbers(node, "layout", 99) or [0])[0]
            sizes, rows = [one for axis, one in enumerate(sizes) if axis != (1 if layout else 0)], 0 if layout else 1
        inferred = self._shapes.get(name)
        if inferred is None or len(inferred) != len(sizes):
            inferred = tuple(Dim(1, (f"{name}#{axis}",)) for axis in range(len(sizes)))
        if at > 0:  # for example statistics
            sizes = [size if axis == rows else None for axis, size in enumerate(sizes)]
        filled = [inferred[axis] if size is None else size for axis, size in enumerate(sizes)]
        return RowValue(dims=tuple(filled), rows=rows)

    def _value(self, name: str) -> RowValue:
        known = self._values.get(name)
        if known is not None and (known.is_lost or known.rows is not None or name not in self._view.constants):
            return known
        dims, constant = self._shapes.get(name), self._view.constants.get(name)
        numbers = None
        if constant is not None and constant.size <= _MOST_NUMBERS:
            numbers = tuple(Dim(int(one)) if float(one).is_integer() else None for one in constant)
        return RowValue(dims=dims, numbers=numbers)

    def _size(self, name: str) -> int | None:
        dims = self._shapes.get(name)
        if dims is None or any(dim.names for dim in dims):
            return None
        size = 1
        for dim in dims:
            size *= dim.number
        return size


def _inferred(model: onnx.ModelProto) -> Mapping[str, tuple[Dim, ...]]:
    """Return the shapes of values by name, with `ROWS` as the first dimension of every input."""
    copy = without_declarations(model)
    inputs = {value.name for value in model.graph.input} - {tensor.name for tensor in model.graph.initializer}
    for value in copy.graph.input:
        if value.name in inputs and value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = ROWS
    try:
        inferred = shape_inference.infer_shapes(copy, data_prop=True).graph
    except Exception:  # noqa: BLE001 - onnx raises several classes; without shapes less is known
        inferred = copy.graph
    shapes = {
        tensor.name: tuple(Dim(size) for size in tensor.dims)
        for tensor in (*model.graph.initializer, *copy.graph.initializer)
    }
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            shapes[value.name] = tuple(_dim(dim, f"{value.name}#{axis}") for axis, dim in enumerate(dims))
    return shapes


def _dim(dim: onnx.TensorShapeProto.Dimension, name: str) -> Dim:
    return Dim(dim.dim_value) if dim.HasField("dim_value") else Dim(1, (dim.dim_param or name,))


def _used(graph: onnx.GraphProto) -> set[str]:
    """Return the values that outputs depend on."""
    used = {value.name for value in graph.output}
    for node in reversed(graph.node):
        if used.intersection(node.output):
            used.update(node.input, *(inner.input for inner in all_nodes(_body(node))))
    return used


def _body(node: onnx.NodeProto) -> onnx.GraphProto:
    """Return the nodes of a node's inner graphs as one graph."""
    nodes = [inner for attribute in node.attribute if attribute.HasField("g") for inner in attribute.g.node]
    return onnx.GraphProto(node=nodes)
