"""Maps an array over the results of a moving node back to an array over its inputs."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import onnx

from enginesmith_runtime.onnx_graphs.dataflow import int_attribute
from enginesmith_runtime.prepare.fp16.extents import Extent, Floats

__all__ = ["base_of_places"]

Shape = tuple[int, ...]

_BY_CHANNEL: Final = frozenset(
    {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "MaxPool", "Resize", "Upsample"}
)
_REDUCES: Final = frozenset({"ReduceL1", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"})


def base_of_places(
    node: onnx.NodeProto,
    shapes: Sequence[Shape],
    extents: Sequence[Extent | None],
    bases: Sequence[Floats | None],
    integers: Callable[[str], list[int] | None],
) -> list[Floats] | None:
    """Return an array for each value that a node reads, or None if it does more than move values.

    Args:
        node: The node.
        shapes: Shapes of the values that it reads, without constants.
        extents: Extents of its results.
        bases: Bases of its results in shapes that broadcast; None if not known.
        integers: Function that returns the elements of a constant.
    """
    made, base = extents[0], bases[0]
    if node.op_type == "Split":
        return [_joined(node, shapes[0], extents, bases)]
    if made is None or base is None or not shapes:
        return None
    match node.op_type:
        case "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze":
            found = [np.broadcast_to(base, made.shape).reshape(shapes[0])]
        case "Concat" if len(shapes) == len(node.input):
            found = _parts(node, shapes, np.broadcast_to(base, made.shape))
        case "Transpose":
            order = next((list(one.ints) for one in node.attribute if one.name == "perm"), None)
            shaped = base if base.ndim else base.reshape((1,) * len(made.shape))
            found = [shaped.transpose(None if order is None else np.argsort(order))]
        case "Gather" | "Slice":
            return _scattered(node, shapes[0], np.broadcast_to(base, made.shape), integers)
        case operator if operator in _REDUCES:
            return _spread(node, shapes[0], base, integers)
        case operator if operator in _BY_CHANNEL and base.ndim:
            finite = np.where(np.isfinite(base), base, 0).max(axis=tuple(range(2, base.ndim)), initial=0, keepdims=True)
            found = [np.where(finite > 0, finite, np.inf)]
        case _:
            return None
    return found


def _joined(
    node: onnx.NodeProto, shape: Shape, extents: Sequence[Extent | None], bases: Sequence[Floats | None]
) -> Floats:
    axis = int_attribute(node, "axis", 0)
    parts = [
        np.broadcast_to(np.inf if base is None else base, extent.shape)
        for extent, base in zip(extents, bases, strict=True)
        if extent is not None
    ]
    joined = np.concatenate(parts, axis=axis)
    return joined if joined.shape == shape else np.array(np.inf)


def _parts(node: onnx.NodeProto, shapes: Sequence[Shape], base: Floats) -> list[Floats]:
    axis = int_attribute(node, "axis", 0)
    ends = np.cumsum([shape[axis] for shape in shapes])[:-1]
    return np.split(base, ends, axis=axis)


def _spread(
    node: onnx.NodeProto, shape: Shape, base: Floats, integers: Callable[[str], list[int] | None]
) -> list[Floats] | None:
    """Return the base of a reduced value. Removed axes are restored with a size of 1."""
    if base.ndim == len(shape):
        return [base]
    axes = next((list(one.ints) for one in node.attribute if one.name == "axes"), None)
    if axes is None and len(node.input) > 1:
        axes = integers(node.input[1])
    return None if axes is None else [np.expand_dims(base, tuple(axis % len(shape) for axis in axes))]


def _scattered(
    node: onnx.NodeProto, shape: Shape, base: Floats, integers: Callable[[str], list[int] | None]
) -> list[Floats] | None:
    """Return a base with the base of a part of a value at the position of the part."""
    whole = np.full(shape, np.inf)
    constants = [integers(name) for name in node.input[1:] if name]
    lists = [each for each in constants if each is not None]
    if not lists or len(lists) < len(constants):
        return None
    if node.op_type == "Gather":
        axis = int_attribute(node, "axis", 0) % len(shape)
        parts = base.reshape(*shape[:axis], len(lists[0]), *shape[axis + 1 :])
        moved, from_front = np.moveaxis(whole, axis, 0), np.moveaxis(parts, axis, 0)
        for index, part in zip(lists[0], from_front, strict=True):
            moved[index] = np.minimum(moved[index], part)
        return [whole]
    cut = _cut(lists, shape)
    if whole[cut].shape != base.shape:
        return None
    whole[cut] = base
    return [whole]


def _cut(lists: Sequence[list[int]], shape: Shape) -> tuple[slice, ...]:
    """Return the slices for the starts, ends, axes and steps of a Slice."""
    empty: list[int] = []
    starts, ends, axes, steps = (*lists, empty, empty, empty)[:4]
    cut = [slice(None)] * len(shape)
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis, step = axes[number] if axes else number, steps[number] if steps else 1
        cut[axis] = slice(start, None if step < 0 and end < -shape[axis] else end, step)
    return tuple(cut)
