"""Computes integers that follow from shapes, such as the target of a Reshape."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import onnx
from onnx import numpy_helper

from enginesmith_runtime.prepare.model_file.row_values import Dim, RowValue

__all__ = ["numbers_of"]

_MOST: Final = 64

Numbers = tuple[Dim | None, ...]


def numbers_of(node: onnx.NodeProto, inputs: Sequence[RowValue | None]) -> Numbers | None:
    """Return the elements of a node's output that follow from shapes, or None if nothing is known.

    Args:
        node: Node that does not depend on contents of inputs, or a Shape.
        inputs: Inputs of the node; None for an omitted one.
    """
    ints = {one.name: one.i for one in node.attribute if one.type == onnx.AttributeProto.INT}
    first = inputs[0] if inputs else None
    if node.op_type == "Shape" and first is not None:
        return None if first.dims is None else first.dims[ints.get("start", 0) : ints.get("end")]
    rule = _RULES.get(node.op_type)
    given = [_given(one) for one in inputs if one is not None]
    known = [one for one in given if one is not None and len(one) <= _MOST]
    if node.op_type == "ConstantOfShape" and known:
        return _filled(node, known[0])
    return None if rule is None or not known or len(known) < len(given) else rule(known)


def _given(value: RowValue) -> Numbers | None:
    """Return a value's elements. They are unknown if only their number is known."""
    if value.numbers is not None or value.dims is None or len(value.dims) > 1:
        return value.numbers
    size = _int(value.dims[0]) if value.dims else 1
    return None if size is None or size > _MOST else (None,) * size


def _filled(node: onnx.NodeProto, shape: Numbers) -> Numbers | None:
    size = _int(shape[0]) if len(shape) == 1 else None
    value = next((numpy_helper.to_array(one.t).item(0) for one in node.attribute if one.name == "value"), 0)
    return None if size is None or size > _MOST or int(value) != value else (Dim(int(value)),) * size


def _int(dim: Dim | None) -> int | None:
    return dim.number if dim is not None and not dim.names else None


def _picked(known: Sequence[Numbers]) -> Numbers | None:
    places, size = [_int(one) for one in known[1]], len(known[0])
    return tuple(None if at is None or not -size <= at < size else known[0][at] for at in places)


def _sliced(known: Sequence[Numbers]) -> Numbers | None:
    start, end = (_int(one[0]) if len(one) == 1 else None for one in known[1:3])
    step = _int(known[4][0]) if known[4:] else 1
    return known[0][start:end:step] if start is not None and end is not None and step else None


def _paired(operation: Callable[[Dim, Dim], Dim | None]) -> Callable[[Sequence[Numbers]], Numbers | None]:
    def rule(known: Sequence[Numbers]) -> Numbers | None:
        left, right = known
        if 1 not in {len(left), len(right)} and len(left) != len(right):
            return None
        pairs = ((left[at % len(left)], right[at % len(right)]) for at in range(max(len(left), len(right))))
        return tuple(None if a is None or b is None else operation(a, b) for a, b in pairs)

    return rule


def _equal(left: Dim, right: Dim) -> Dim | None:
    if left == right:
        return Dim(1)
    # A size is never negative.
    differs = (left.number < 0) != (right.number < 0) or not (left.names or right.names)
    return Dim(0) if differs else None


def _chosen(known: Sequence[Numbers]) -> Numbers | None:
    if len({len(one) for one in known}) != 1:
        return None
    return tuple(
        None if condition is None else left if condition.number else right
        for condition, left, right in zip(*known, strict=True)
    )


_RULES: Final[Mapping[str, Callable[[Sequence[Numbers]], Numbers | None]]] = {
    **dict.fromkeys(("Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape", "Flatten"), lambda known: known[0]),
    "Concat": lambda known: tuple(number for one in known for number in one),
    "Div": _paired(Dim.over),
    "Equal": _paired(_equal),
    "Gather": _picked,
    "Mul": _paired(Dim.times),
    "Slice": _sliced,
    "Where": _chosen,
}
