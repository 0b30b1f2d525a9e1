"""Finds small columns next to large ones, such as results of 60 and 5e-7 (SI units), because FP16 loses the small ones.

The tensor as a whole has ordinary values, so its largest value does not show the problem. The allowed error of an
element follows from the outputs: it is a share of the largest value of its column. The search propagates it back from
node to node: a layer divides it by its weights, and a move carries it to the source of a value. Before other operators,
such as a product of features, the allowed error is a share of the tensor's largest value. `base` is the value to which
the share refers.

A node stays in FP32 if a channel of its results and the base of that channel are below 2^-18, where relative steps of
FP16 are 1/64 and more, or if a channel's weights are so small that their rounding matters.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from enginesmith_runtime.onnx_graphs.dataflow import MOVES, has_subgraph, int_attribute
from enginesmith_runtime.onnx_graphs.narrow import FP16
from enginesmith_runtime.onnx_graphs.order import read_by
from enginesmith_runtime.prepare.fp16.extents import Extent, Floats
from enginesmith_runtime.prepare.fp16.layer_weights import WINDOWS, Columns, LayerWeights
from enginesmith_runtime.prepare.fp16.places import base_of_places

__all__ = ["nodes_with_small_columns"]

_SHARE: Final = 2.0**-7
_SHARE_OF_WEIGHTS: Final = 2.0**-9  # for the sum of errors, not for the largest error
_ROUNDING: Final = 2.0**-25  # half a step between FP16's smallest numbers
_SMALL: Final = _ROUNDING / _SHARE
_NOTABLE: Final = 8.0
_PIECE: Final = 1 << 22
_MOST_CONSTANT: Final = 1 << 20
_MOST_NAMED: Final = 5

# Operators whose result has at most about the error of the operands.
_HANDS_ON: Final = frozenset(
    {
        "Abs", "Add", "Cast", "Celu", "Clip", "Cos", "Dropout", "Elu", "Erf", "Gelu", "HardSwish", "Identity",
        "LeakyRelu", "Max", "Mean", "Min", "Mish", "Neg", "PRelu", "Relu", "Selu", "Sin", "Softplus", "Softsign",
        "Sub", "Sum", "Swish", "Tanh", "ThresholdedRelu", "Where",
    }
)  # fmt: skip
# Operators whose error is always a share of the result.
_OF_ITS_SIZE: Final = frozenset({"Exp", "HardSigmoid", "Sigmoid", "Softmax"})
_OF_SHAPES: Final = frozenset({"Shape", "Size"})


def nodes_with_small_columns(model: onnx.ModelProto, extents: Mapping[str, Extent], folder: Path) -> dict[str, str]:
    """Return the nodes that must stay in FP32 for this, with the reason.

    Args:
        model: Model with initializers as its only constants.
        extents: Extents of its inputs and of all FP32 values; outputs with all magnitudes.
        folder: Folder of the weights outside the ONNX file.
    """
    return _Search(model.graph, extents, folder).run()


class _Search:
    """One pass over the nodes, from the last to the first.

    Bases are arrays that broadcast to the shape of their value. A base is infinity if no reader depends on the element.
    """

    def __init__(self, graph: onnx.GraphProto, extents: Mapping[str, Extent], folder: Path) -> None:
        self._graph = graph
        self._extents = extents
        self._folder = folder
        self._weights = LayerWeights(graph, folder)
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._bases: dict[str, Floats] = {}

    def run(self) -> dict[str, str]:
        """Return the nodes with the reasons."""
        for value in self._graph.output:
            extent = self._extents.get(value.name)
            if extent is not None and extent.whole is not None:
                self._merge(value.name, _present(extent.whole))
        found: dict[str, str] = {}
        for node in reversed(self._graph.node):
            reason = self._look_at(node)
            if reason:
                found[node.name] = reason
        return dict(reversed(found.items()))

    def _look_at(self, node: onnx.NodeProto) -> str:
        made = [name for name in node.output if name in self._bases]
        unknown = has_subgraph(node) or any(name and name not in self._extents for name in node.output)
        if unknown and node.op_type not in _OF_SHAPES:
            self._merge_peaks(node)
        if not made:
            return ""
        if self._weights.is_layer(node) and (columns := self._columns(node)) is not None:
            return self._of_layer(node, columns)
        for name, base in self._handed_on(node):
            self._merge(name, base)
        # A move does not round, and the small shares of a Softmax are judged together with the large ones.
        moves = node.op_type in MOVES and node.input[0] in self._extents
        fine = moves or node.op_type in _OF_ITS_SIZE
        return "" if fine else next(filter(None, map(self._small_result, made)), "")

    def _merge(self, name: str, base: Floats) -> None:
        extent = self._extents.get(name)
        if extent is not None:
            fitted = _fitted(base, extent.shape)
            fitted = (
                np.array(extent.peak or np.inf) if fitted is None else np.nan_to_num(fitted, nan=np.inf, posinf=np.inf)
            )
            self._bases[name] = np.minimum(self._bases.get(name, np.inf), fitted)

    def _merge_peaks(self, node: onnx.NodeProto) -> None:
        for name in set(read_by(node)) & self._extents.keys():
            self._merge(name, np.array(self._extents[name].peak or np.inf))

    def _handed_on(self, node: onnx.NodeProto) -> Iterator[tuple[str, Floats]]:
        """Yield the inputs of a node, each with its resulting base."""
        base = self._bases.get(node.output[0])
        values = [name for name in node.input if name in self._extents]
        if node.op_type in _OF_ITS_SIZE:
            return
        if node.op_type in _HANDS_ON and base is not None:
            yield from ((name, base) for name in values)
            return
        if node.op_type in {"BatchNormalization", "Div", "Mul"} and base is not None:
            yield from ((name, base * self._inverse(node, name)) for name in values)
            return
        extents = [self._extents.get(name) for name in node.output]
        bases = [self._bases.get(name) for name in node.output]
        placed = base_of_places(node, [self._extents[name].shape for name in values], extents, bases, self._integers)
        if placed is not None:
            yield from zip(values, placed, strict=True)
            return
        self._merge_peaks(node)

    def _inverse(self, node: onnx.NodeProto, name: str) -> Floats:
        """Return the factor by which a product or a quotient reduces an operand, in a shape that broadcasts."""
        if node.op_type == "BatchNormalization":
            arrays = [self._array(each) for each in (node.input[1], node.input[4])]
            if arrays[0] is None or arrays[1] is None:
                return self._ratio(node, name)
            epsilon = next((one.f for one in node.attribute if one.name == "epsilon"), 1e-5)
            factor = np.abs(arrays[0]) / np.sqrt(np.abs(arrays[1]) + epsilon)
            return _inverted(factor.reshape(-1, *(1,) * (len(self._extents[name].shape) - 2)))
        others = [self._array(other) for other in node.input if other != name]
        if len(others) != 1 or others[0] is None or (node.op_type == "Div" and name != node.input[0]):
            return self._ratio(node, name)
        return np.abs(others[0]) if node.op_type == "Div" else _inverted(np.abs(others[0]))

    def _ratio(self, node: onnx.NodeProto, name: str) -> Floats:
        own, made = self._extents[name].peak, self._extents[node.output[0]].peak
        return np.array(own / made if own and made else np.inf)

    def _array(self, name: str) -> Floats | None:
        tensor = self._constants.get(name)
        if tensor is None or int(np.prod(tensor.dims, dtype=np.int64)) > _MOST_CONSTANT:
            return None
        return np.asarray(numpy_helper.to_array(tensor, str(self._folder)), np.float32)

    def _integers(self, name: str) -> list[int] | None:
        tensor = self._constants.get(name)
        if tensor is None or int(np.prod(tensor.dims, dtype=np.int64)) > _MOST_CONSTANT:
            return None
        return [int(value) for value in numpy_helper.to_array(tensor, str(self._folder)).ravel()]

    def _small_result(self, name: str) -> str:
        extent = self._extents[name]
        for axis in extent.axes:
            own = extent.along(axis)
            reason = _in_words(own, axis, _are_small(own, _along(self._bases[name], axis, extent)))
            if reason:
                return reason
        return ""

    def _columns(self, node: onnx.NodeProto) -> Columns | None:
        """Return the weights of a layer as [groups, results, operands, ...], or None for other forms."""
        if node.op_type in {"GRU", "LSTM", "RNN"} or int_attribute(node, "transA", 0):
            return None
        columns = self._weights.columns(node)
        extent = self._extents[node.output[0]]
        count = extent.shape[_channel_axis(node, extent)]
        if columns is None or len(columns) != count or node.input[0] not in self._extents:
            return None
        groups = int_attribute(node, "group", 1) if node.op_type == "Conv" else 1
        return columns.reshape(groups, count // groups, columns.shape[1], -1)

    def _of_layer(self, node: onnx.NodeProto, columns: Columns) -> str:
        """Propagate the base of a layer's results to its inputs. Return why the layer stays in FP32, or ""."""
        name, read = node.output[0], node.input[0]
        extent, source = self._extents[name], self._extents[read]
        axis = _channel_axis(node, extent)
        own = extent.along(axis).reshape(columns.shape[:2])
        bases = _along(self._bases[name], axis, extent).reshape(columns.shape[:2])
        terms, place = columns[0, 0].size, _channel_axis(node, source)
        sizes = source.along(place).reshape(len(columns), 1, columns.shape[2])
        lost = np.zeros(own.shape, np.bool_)
        strongest = np.zeros((len(columns), columns.shape[2]))
        step = max(1, _PIECE // (terms * len(columns)))
        for start in range(0, columns.shape[1], step):
            rows = (slice(None), slice(start, start + step))
            part = np.abs(columns[rows])
            squares = (part**2).sum(axis=3)
            # A single value can be small by chance.
            base = np.maximum(bases[rows], np.sqrt((squares * sizes**2).sum(axis=2)))
            lost[rows] = _are_small(own[rows], base) | _loses_weights(part, base, sizes)
            shares = _shares(squares, np.maximum(base, own[rows]), sizes)
            strongest = np.maximum(strongest, shares)
        needed = _inverted(strongest.reshape(-1))
        self._merge(read, needed.reshape(_shape_at(place, len(source.shape))))
        for other in set(node.input[1:]) & self._extents.keys():
            self._merge(other, self._bases[name])
        return _in_words(own.reshape(-1), axis, lost.reshape(-1)) or _in_words(
            source.along(place), place, _are_small(source.along(place), needed), "it reads small columns"
        )


def _shares(squares: Floats, bases: Floats, sizes: Floats) -> Floats:
    """Return by how much the relative error of an operand increases in the result that depends on it most.

    Args:
        squares: Squares of the weights, [groups, results, operands].
        bases: Bases of the results, [groups, results].
        sizes: Sizes of the operands, [groups, 1, operands]. Errors of small operands add up.
    """
    small = (sizes > 0) & (sizes < FP16.tiny)
    small = small if small.any() else np.ones_like(small)
    together = (squares * small).sum(axis=2, keepdims=True)
    notable = squares * (small.sum() * _NOTABLE**2) >= together
    shares = np.sqrt(np.maximum(squares, together * notable)) / bases[:, :, None]
    return np.asarray(shares.max(axis=1))


def _loses_weights(magnitudes: Floats, bases: Floats, sizes: Floats) -> npt.NDArray[np.bool_]:
    """Return the channels in which the rounding of weights below FP16's normal numbers exceeds the share.

    Args:
        magnitudes: Magnitudes of the weights, [groups, results, operands, places].
        bases: Bases of the results, [groups, results].
        sizes: Sizes of the operands, [groups, 1, operands].
    """
    peak, terms = float(sizes.max(initial=0)), magnitudes[0, 0].size
    lost = bases * _SHARE_OF_WEIGHTS < _ROUNDING * peak * np.sqrt(terms)
    for group, result in np.argwhere(lost):
        weights = magnitudes[group, result].astype(np.float64)
        rounded = weights.astype(np.float16).astype(np.float64)
        errors = np.where(weights < FP16.tiny, rounded - weights, 0) * sizes[group, 0][:, None]
        lost[group, result] = np.sqrt((errors**2).sum()) > bases[group, result] * _SHARE_OF_WEIGHTS
    return np.asarray(lost)


def _channel_axis(node: onnx.NodeProto, extent: Extent) -> int:
    return 1 if node.op_type in WINDOWS else len(extent.shape) - 1


def _shape_at(axis: int, rank: int) -> tuple[int, ...]:
    return tuple(-1 if each == axis else 1 for each in range(rank))


def _present(magnitudes: Floats) -> Floats:
    return np.where(magnitudes > 0, magnitudes, np.inf)


def _inverted(values: "npt.NDArray[Any]") -> Floats:
    with np.errstate(divide="ignore"):
        return np.asarray(1 / np.asarray(values, np.float64))


def _largest(base: Floats, axes: tuple[int, ...]) -> Floats:
    """Return the largest base along axes, which keep a size of 1, or infinity if no element matters."""
    finite = np.where(np.isfinite(base), base, 0)
    return _present(finite.max(axis=axes, initial=0, keepdims=True))


def _along(base: Floats, axis: int, extent: Extent) -> Floats:
    """Return the largest base of each channel along an axis."""
    shaped = base if base.ndim else base.reshape((1,) * len(extent.shape))
    others = tuple(each for each in range(shaped.ndim) if each != axis)
    return np.broadcast_to(_largest(shaped, others).reshape(-1), (extent.shape[axis],))


def _fitted(base: Floats, shape: tuple[int, ...]) -> Floats | None:
    """Return a base for an operand that was broadcast, or None if it does not fit."""
    if base.ndim > len(shape):
        more = base.ndim - len(shape)
        base = _largest(base, tuple(range(more))).reshape(base.shape[more:])
    base = base.reshape((*(1,) * (len(shape) - base.ndim), *base.shape))
    spread = tuple(axis for axis, size in enumerate(shape) if size == 1 and base.shape[axis] != 1)
    base = _largest(base, spread) if spread else base
    fits = all(size in {1, wanted} for size, wanted in zip(base.shape, shape, strict=True))
    return base if fits else None


def _are_small(own: Floats, bases: Floats) -> "npt.NDArray[np.bool_]":
    return np.asarray((own > 0) & (own < _SMALL) & (bases < _SMALL))


def _in_words(
    own: Floats, axis: int, lost: "npt.NDArray[np.bool_]", what: str = "columns of its results are small"
) -> str:
    indices = np.flatnonzero(lost)
    if not indices.size:
        return ""
    named = ", ".join(map(str, indices[:_MOST_NAMED])) + (", ..." if indices.size > _MOST_NAMED else "")
    largest = float(own[indices].max())
    return f"{what}, at most {largest:.3g} (axis {axis}, index {named}), and FP16 has few digits for them"
