"""Finds nodes that turn ordinary values into values out of FP16's range: squares, factors, long sums."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx

from enginesmith_runtime.onnx_graphs.constants import Values
from enginesmith_runtime.onnx_graphs.dataflow import MOVES, Dataflow, has_subgraph
from enginesmith_runtime.prepare.fp16.layers import looks_trained
from enginesmith_runtime.prepare.fp16.traits import SUMS, size_of

__all__ = ["MEANS", "Growth"]

_LONG_SUM: Final = 64
_LONGEST_MEAN: Final = 65504
_LARGE_FACTOR: Final = 32.0
_SMALL_FACTOR: Final = 2.0**-17
_LARGE_SHIFT: Final = 16.0
_LARGE_SHIFT_OF_BF16: Final = 4.0  # hard-swish shifts by 3
_MOST_FACTORS: Final = 8

_SAME_SIZE: Final = frozenset(
    {"Abs", "Identity", "LeakyRelu", "Neg", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)
MEANS: Final = frozenset({"AveragePool", "GlobalAveragePool", "ReduceL1", "ReduceMean", "ReduceSum"})
_TOTALS: Final = frozenset({"ReduceL1", "ReduceSum"})
_PRODUCTS: Final = frozenset({"Einsum", "Gemm", "MatMul", "Mul"})
_SUMMING_PRODUCTS: Final = _PRODUCTS - {"Mul"}
_WINDOWS: Final = frozenset({"Conv", "ConvTranspose"})


class Growth:
    """Facts about the values of one graph, collected node by node in the graph's order."""

    def __init__(self, flow: Dataflow) -> None:
        self._flow = flow
        self._largest_shift = _LARGE_SHIFT_OF_BF16 if flow.narrow.wide else _LARGE_SHIFT
        self._firsts: dict[tuple[str, ...], str] = {}
        self._same: dict[str, str] = {}  # value to an earlier value with the same computation
        self._gains: dict[str, float] = {}  # value to the product of its constant factors
        self._products: set[str] = set()  # sums of products of features
        self._factors: dict[str, frozenset[str]] = {}  # value to the factors of its product

    def note(self, node: onnx.NodeProto) -> None:
        """Record a node. Exporters may compute the same value twice."""
        if len(node.output) != 1 or not node.input or has_subgraph(node):
            return
        attributes = sorted(str(attribute.SerializeToString()) for attribute in node.attribute)
        inputs = [self._same.get(name, name) for name in node.input]
        key = (node.domain, node.op_type, str(len(inputs)), *inputs, *attributes)
        self._same[node.output[0]] = self._firsts.setdefault(key, node.output[0])
        self._note_products(node)
        factors = frozenset[str]().union(*(self._factors_of(name) for name in self._flow.floats(node)))
        if node.op_type in {"Div", "Mul"} and len(factors) <= _MOST_FACTORS:
            self._factors[node.output[0]] = factors
        gain = max((self._gains.get(name, 1.0) for name in self._flow.floats(node)), default=1.0)
        if node.op_type in {"Div", "Mul"}:
            self._gains[node.output[0]] = gain * self._factor(node)
        elif node.op_type in SUMS:
            self._gains[node.output[0]] = gain * self._times(node)
        elif node.op_type in MOVES | MEANS | _SAME_SIZE:
            self._gains[node.output[0]] = gain

    def _note_products(self, node: onnx.NodeProto) -> None:
        """Record products of features, and unbounded values computed from them."""
        read = self._flow.floats(node)
        scaled = node.op_type in {"Div", "Mul"} and len(read) == 1
        multiplies = node.op_type in _SUMMING_PRODUCTS and len(read) > 1
        if multiplies or (
            (scaled or node.op_type in MOVES | MEANS | _SAME_SIZE) and not self._products.isdisjoint(read)
        ):
            self._products.update(node.output)

    def is_of_products(self, node: onnx.NodeProto) -> bool:
        """Whether a result is a sum of products of features, or an unbounded value computed from it."""
        return not self._products.isdisjoint(node.output)

    def is_product_of_products(self, node: onnx.NodeProto) -> bool:
        """Whether a node multiplies features with sums of products of features, as linear attention does."""
        read = self._flow.floats(node)
        multiplies = node.op_type in _SUMMING_PRODUCTS and len(read) > 1
        return multiplies and not self._flow.narrow.wide and not self._products.isdisjoint(read)

    def why(self, node: onnx.NodeProto) -> str:
        """Return why ordinary inputs give a result out of FP16's range, or "" if they do not."""
        narrow = self._flow.narrow
        shifted = f"it shifts by more than {self._largest_shift:g}, and FP16 rounds away what is left"
        if narrow.wide:
            return shifted if self._is_shifted(node) else ""
        summed = self._summed(node)
        gain = self._gains.get(node.output[0], 1.0) if node.op_type in SUMS | {"Div", "Mul"} else 1.0
        small = gain < _SMALL_FACTOR and node.op_type not in SUMS and self._factor(node) != 1
        reasons = (
            (self.is_square(node), "a square leaves FP16's range at inputs above 255 and its digits below 0.008"),
            (gain > _LARGE_FACTOR, f"a factor above {_LARGE_FACTOR:g} leaves FP16's range at ordinary inputs"),
            (self.is_product_of_products(node), "a product of products leaves FP16's range at ordinary inputs"),
            (self._is_shifted(node), shifted),
            (small, f"factors of {gain:.3g} together leave values that FP16 has few digits for"),
            (node.op_type not in MEANS - _TOTALS and summed > _LONG_SUM, "a long sum leaves FP16's range"),
            (_LONGEST_MEAN < summed < np.inf, "FP16 cannot count the elements of the mean"),
        )
        return next((reason for holds, reason in reasons if holds), "")

    def is_square(self, node: onnx.NodeProto) -> bool:
        """Whether a node multiplies a value by itself, also in a sum of products."""
        read = self._flow.floats(node)[:2]
        return (
            node.op_type in _PRODUCTS
            and len(read) > 1
            and not self._factors_of(read[0]).isdisjoint(self._factors_of(read[1]))
        )

    def enlarges(self, node: onnx.NodeProto) -> bool:
        """Whether a constant factor amplifies small differences of a node's input."""
        return node.op_type in {"Div", "Mul"} and self._factor(node) > _LARGE_FACTOR

    def is_power(self, node: onnx.NodeProto) -> bool:
        """Whether a node raises values to a power above 1 or below -1."""
        if node.op_type != "Pow":
            return False
        exponent = self._flow.constants.get(node.input[1])
        return exponent is None or not exponent.size or bool(np.any(np.abs(exponent) > 1))

    def _is_shifted(self, node: onnx.NodeProto) -> bool:
        """Whether a node adds only large numbers to features. A bias has numbers of all sizes."""
        given = any(name in self._flow.given for name in node.input)  # `exactness` handles these
        constants = [self._flow.constants[name] for name in node.input if name in self._flow.constants]
        finite = [np.abs(values) for values in constants if values.size and bool(np.isfinite(values).all())]
        return (
            node.op_type in {"Add", "Sub"} and not given and any(np.min(each) > self._largest_shift for each in finite)
        )

    def _times(self, node: onnx.NodeProto) -> int:
        """Return how often a sum contains the same value."""
        roots = [self._root(name) for name in self._flow.floats(node)]
        return max((roots.count(root) for root in roots), default=1)

    def _factor(self, node: onnx.NodeProto) -> float:
        """Return the factor of a constant operand, or 1 if there is none."""
        values = self._flow.constants.get(node.input[1])
        if node.op_type == "Mul" and values is None:
            values = self._flow.constants.get(node.input[0])
        size = abs(size_of(values) or 1.0)
        return size if node.op_type == "Mul" else 1 / size

    def _factors_of(self, name: str) -> frozenset[str]:
        root = self._root(name)
        return self._factors.get(root, frozenset({root}))

    def _root(self, name: str) -> str:
        """Return the source of a value that differs only in sign and shape."""
        made = self._flow.producers.get(name)
        while made is not None and made.op_type in _SAME_SIZE:
            name = made.input[0]
            made = self._flow.producers.get(name)
        return self._same.get(name, name)

    def _summed(self, node: onnx.NodeProto) -> float:
        """Return the number of summed elements for one element of the result, or infinity for an open dimension."""
        if node.op_type == "Einsum" and len(node.input) == 1:
            return np.inf
        if node.op_type in _WINDOWS | _SUMMING_PRODUCTS:
            return max(self._sums_of_constants(node), default=0.0)
        if node.op_type not in MEANS or node.op_type == "AveragePool":
            return 0.0  # a window is small
        shape = self._flow.shapes.get(node.input[0])
        spatial = node.op_type == "GlobalAveragePool"
        axes = None if shape is None else self._axes(node, len(shape)) if not spatial else list(range(2, len(shape)))
        if shape is None or axes is None:
            return np.inf
        sizes = [shape[axis] for axis in axes if -len(shape) <= axis < len(shape)]
        return float(np.prod([np.inf if size is None else float(size) for size in sizes]))

    def _sums_of_constants(self, node: onnx.NodeProto) -> Iterator[float]:
        """Yield the largest sum of magnitudes of untrained constants, such as a window of ones."""
        for index, name in enumerate(node.input[:2]):
            values = self._flow.constants.get(name)
            shape = [size or 0 for size in self._flow.shapes.get(name, (None,))]
            if values is not None and values.size == np.prod(shape, dtype=np.int64) and not looks_trained(values):
                yield _largest_sum(np.abs(values).reshape(shape), node, index)

    def _axes(self, node: onnx.NodeProto, rank: int) -> list[int] | None:
        for attribute in node.attribute:
            if attribute.name == "axes":
                return [int(axis) for axis in attribute.ints]
        if len(node.input) > 1 and node.input[1]:
            values = self._flow.constants.get(node.input[1])
            return None if values is None else [int(axis) for axis in values] or list(range(rank))
        return list(range(rank))


def _largest_sum(magnitudes: Values, node: onnx.NodeProto, index: int) -> float:
    """Return the largest sum over the summed axes: rows or columns of a matrix, all axes but the output of a window."""
    if node.op_type in _WINDOWS:
        axes = tuple(range(1, magnitudes.ndim))
        return float(np.max(magnitudes.sum(axis=axes), initial=0.0))
    if node.op_type == "Einsum" or magnitudes.ndim == 1:
        return float(magnitudes.sum())
    transposed = any(one.name == ("transA", "transB")[index] and one.i for one in node.attribute)
    axis = -1 if bool(index) == transposed else -2
    return float(np.max(magnitudes.sum(axis=axis), initial=0.0)) if magnitudes.ndim else 0.0
