"""Nodes whose values FP16 cannot hold whatever the input: lost constants, squares, exponentials, long sums.

A constant of 1e-12 is 0 in FP16, and its node stays in FP32. So do the nodes behind it, until the value is an ordinary
one again (behind a square root, a division, a logarithm), and the nodes before it that make small values of ordinary
ones. Squares and exponentials are followed in the same way until something divides them again. A matrix product or a
convolution ends the search: they cost too much in FP32, and a reference run shows whether they leave the range.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import onnx

from enginesmith_runtime.onnx_graphs.constants import HALF_MAX, Values, is_lost, lost_magnitude, rounded
from enginesmith_runtime.onnx_graphs.dataflow import CAUSE, MOVES, Dataflow, has_subgraph
from enginesmith_runtime.prepare.denominators import VANISHES, nodes_of_vanishing_denominator

__all__ = ["nodes_beyond_magnitudes"]

# Of a factor, all of the error is in the result; of an epsilon, a share.
_FACTOR_TOLERANCE: Final = 2.0**-9
_TOLERANCE: Final = 0.05
_VARIANCE_TOLERANCE: Final = 0.01
_LONG_SUM: Final = 256
_LONGEST_MEAN: Final = int(HALF_MAX)
_LARGE_FACTOR: Final = 256.0
_SMALLEST: Final = 1e-200
_FEW: Final = 4096

_FACTORS: Final = frozenset({"Div", "Gemm", "MatMul", "Mul", "Pow"})
_HEAVY: Final = frozenset(
    {
        "Attention", "Conv", "ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "GRU", "Gemm", "GridSample",
        "LSTM", "MatMul", "RNN", "Resize", "RoiAlign", "Upsample",
    }
)  # fmt: skip
_PRODUCTS: Final = frozenset({"Conv", "Einsum", "Gemm", "MatMul"})
_SAME_SIZE: Final = frozenset(
    {"Abs", "Identity", "LeakyRelu", "Neg", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)
# Their slope has no end near 1, where FP16 tells apart three decimal digits.
_STEEP_AT_ONE: Final = frozenset({"Acos", "Acosh", "Asin", "Atanh"})
_SUMS: Final = frozenset({"Add", "Sub", "Sum"})
_BOUNDS: Final = frozenset({"Clip", "Max", "Min"})
_MEANS: Final = frozenset({"AveragePool", "GlobalAveragePool", "ReduceL1", "ReduceMean", "ReduceSum"})
_TOTALS: Final = frozenset({"ReduceL1", "ReduceSum"})
_GROWS: Final = frozenset({"Cosh", "CumProd", "Exp", "ReduceProd", "ReduceSumSquare", "Sinh"})
_GROWS_INSIDE: Final = frozenset(
    {
        "LRN", "LpNormalization", "LpPool", "GlobalLpPool", "MeanVarianceNormalization", "ReduceL2", "ReduceLogSum",
        "ReduceLogSumExp",
    }
)  # fmt: skip
# They make small values of ordinary ones; sums, means and square roots only pass them on.
_SHRINKS: Final = frozenset(
    {"Div", "Exp", "HardSigmoid", "Mul", "Pow", "ReduceL2", "ReduceProd", "ReduceSumSquare", "Sigmoid", "Softmax"}
)
# What a lost constant is in their result is known.
_KEEPS_LOST: Final = _SUMS | _BOUNDS | frozenset({"Div", "Mul"})
_PASSES: Final = MOVES | _SUMS | _MEANS | frozenset({"Abs", "Neg", "Sqrt"})
_NOT_ARITHMETIC: Final = frozenset({"cubic_coeff_a", "extrapolation_value", "ratio", "spatial_scale", "value"})


@dataclass(frozen=True, kw_only=True)
class _Trait:
    """What is unusual about a value.

    Attributes:
        cause: in words, for whoever reads why a node stays in FP32.
        scale: how large an ordinary value has become; 1 where nothing is known of it.
        grown: whether it is a square or an exponential of an ordinary value.
        inverse: whether it is one divided by a small or a grown value, so that its product is ordinary again.
        gap: how far below or above one the value may come; 0: it is not near one.
    """

    cause: str
    scale: float = 1.0
    grown: bool = False
    inverse: bool = False
    gap: float = 0.0

    @property
    def matters(self) -> bool:
        """Whether FP16 cannot hold such a value."""
        beyond = self.scale > HALF_MAX or is_lost(self.scale, _FACTOR_TOLERANCE)
        return self.grown or self.inverse or self.gap > 0 or beyond


def nodes_beyond_magnitudes(flow: Dataflow) -> dict[str, str]:
    """Return the nodes that have to stay in FP32 for it, with the reason."""
    return _Search(flow).run()


class _Search:
    """One pass over the nodes in their order; `_traits` knows what is unusual about the values so far."""

    def __init__(self, flow: Dataflow) -> None:
        self._flow = flow
        self._traits: dict[str, _Trait] = {}
        self._kept: dict[str, str] = {}
        self._firsts: dict[tuple[str, ...], str] = {}
        self._same: dict[str, str] = {}  # value to the earlier one that is computed in the same way

    def run(self) -> dict[str, str]:
        """Return the nodes with the reasons."""
        for node in self._flow.graph.node:
            self._find_twin(node)
            if has_subgraph(node):
                reason = f"it computes with the result of {node.name}{CAUSE}an inner graph computes in FP32"
                self._mark(node, _Trait(cause=reason, grown=True))
                continue
            if node.op_type in {"Shape", "Size", "Constant", "ConstantOfShape"}:
                continue
            if not any(self._flow.is_float(name) for name in (*node.input, *node.output)):
                continue
            if node.output and all(name in self._flow.constants for name in node.output if name):
                continue
            self._look_at(node)
        return self._kept

    def _find_twin(self, node: onnx.NodeProto) -> None:
        """Note that a node repeats an earlier one: exporters compute twice what the source names twice."""
        if len(node.output) != 1 or not node.input or has_subgraph(node):
            return
        attributes = sorted(str(attribute.SerializeToString()) for attribute in node.attribute)
        inputs = [self._same.get(name, name) for name in node.input]
        key = (node.domain, node.op_type, str(len(inputs)), *inputs, *attributes)
        self._same[node.output[0]] = self._firsts.setdefault(key, node.output[0])

    def _look_at(self, node: onnx.NodeProto) -> None:
        carried = next((self._traits[name] for name in node.input if name in self._traits), None)
        lost = self._lost_constant(node)
        if lost is not None:
            self._keep(node, lost.cause)
            if node.op_type in _SUMS | _BOUNDS:
                self._keep_before(node, f"its result goes to {node.name}{CAUSE}{lost.cause}")
        if not self._is_heavy(node):
            self._follow(node, carried, lost)
        denominator = nodes_of_vanishing_denominator(node, self._flow)
        for each in denominator or ():
            self._keep(each, f"its result goes to {node.name}{CAUSE}{VANISHES}")
        grows = VANISHES if denominator is not None else self._why_it_grows(node)
        if grows:
            self._keep(node, grows)
            if node.op_type not in _GROWS_INSIDE:
                self._mark(node, _Trait(cause=f"it computes with the result of {node.name}{CAUSE}{grows}", grown=True))
        reason = _why_it_is_steep(node)
        if reason:
            self._keep(node, reason)
            self._keep_before(node, f"its result goes to {node.name}{CAUSE}{reason}")

    def _is_heavy(self, node: onnx.NodeProto) -> bool:
        """Whether a node costs too much in FP32; a product with few weights, such as a window's sum, does not."""
        weights = [self._flow.constants[name] for name in node.input[:2] if name in self._flow.constants]
        few = any(values.size <= _FEW for values in weights)
        return node.op_type in _HEAVY and not (node.op_type in _PRODUCTS and few)

    def _follow(self, node: onnx.NodeProto, carried: _Trait | None, lost: _Trait | None) -> None:
        """Keep a node that reads an unusual value, and say what becomes of the value."""
        if carried is not None:
            self._keep(node, carried.cause)
        if lost is not None and (carried is None or node.op_type in _SUMS | _BOUNDS):
            known = node.op_type in _KEEPS_LOST or node.op_type in MOVES
            cause = f"it computes with the result of {node.name}{CAUSE}{lost.cause}"
            grown = carried is not None and carried.grown
            self._mark(node, replace(lost, cause=cause, grown=grown, scale=lost.scale if known else 1.0))
            return
        if carried is None:
            return
        after = self._passed_on(node, carried)
        if after is not None:
            self._mark(node, after)

    def _keep(self, node: onnx.NodeProto, reason: str) -> None:
        self._kept.setdefault(node.name, reason)

    def _mark(self, node: onnx.NodeProto, trait: _Trait) -> None:
        if trait.matters:
            self._traits |= {name: trait for name in node.output if self._flow.is_float(name)}

    def _keep_before(self, node: onnx.NodeProto, reason: str) -> None:
        """Keep the nodes before that made small values of ordinary ones, and what lies between."""
        left: list[tuple[str, tuple[onnx.NodeProto, ...]]] = [(name, ()) for name in self._flow.floats(node)]
        seen: set[str] = set()
        while left:
            name, path = left.pop()
            made = self._flow.producers.get(name)
            if made is None or name in seen or has_subgraph(made):
                continue
            seen.add(name)
            if made.op_type in _SHRINKS and not self._is_scaled(made):
                for each in (*path, made):
                    self._keep(each, reason)
            elif made.op_type in _PASSES or self._is_scaled(made):
                left += [(before, (*path, made)) for before in self._flow.floats(made)]

    def _is_scaled(self, node: onnx.NodeProto) -> bool:
        """Whether a product or a quotient is with a constant, and so of its operand's own size."""
        return node.op_type in {"Div", "Mul"} and any(name in self._flow.weights for name in node.input)

    def _lost_constant(self, node: onnx.NodeProto) -> _Trait | None:
        """Return what a constant that FP16 cannot hold makes of the node's result."""
        tolerance = _FACTOR_TOLERANCE if node.op_type in _FACTORS else _TOLERANCE
        for index, name in enumerate(node.input):
            values = self._flow.constants.get(name)
            if values is None or not self._flow.is_float(name):
                continue
            scale = lost_magnitude(values, tolerance)
            if scale is not None and scale > HALF_MAX and node.op_type in _BOUNDS:
                scale = None  # a bound that no value reaches
            if scale is not None:
                words = f"its constant {scale:.3g} is {_in_half(scale)} in FP16"
                if node.op_type == "Div" and index == 1:
                    scale = 1 / scale
                return _Trait(cause=words, scale=scale)
            gap = _gap(values)
            if gap and node.op_type in _SUMS | _BOUNDS:
                return _Trait(cause=f"its constant is {gap:.3g} from 1, and 1 in FP16", gap=gap)
        return self._lost_attribute(node) or self._lost_variance(node)

    def _lost_attribute(self, node: onnx.NodeProto) -> _Trait | None:
        for attribute in node.attribute:
            if attribute.type != onnx.AttributeProto.FLOAT or attribute.name in _NOT_ARITHMETIC:
                continue
            scale = abs(float(attribute.f))
            gap = _gap(np.array([attribute.f])) if node.op_type == "Clip" else 0.0
            if is_lost(scale, _TOLERANCE) and not (node.op_type == "Clip" and scale > HALF_MAX):
                words = f"its attribute {attribute.name}, {scale:.3g}, is {_in_half(scale)} in FP16"
                return _Trait(cause=words, scale=scale if node.op_type == "Clip" else 1.0)
            if gap:
                words = f"its attribute {attribute.name} is {gap:.3g} from 1, and 1 in FP16"
                return _Trait(cause=words, gap=gap)
        return None

    def _lost_variance(self, node: onnx.NodeProto) -> _Trait | None:
        if node.op_type != "BatchNormalization" or len(node.input) <= 4:  # noqa: PLR2004 - x, scale, bias, mean, variance
            return None
        variance = self._flow.constants.get(node.input[4])
        if variance is None:
            return None
        epsilon = next((float(one.f) for one in node.attribute if one.name == "epsilon"), 1e-5)
        right, wrong = variance + epsilon, rounded(variance) + float(rounded(np.array([epsilon]))[0])
        if bool(np.any(np.abs(wrong - right) > _VARIANCE_TOLERANCE * np.abs(right))):
            return _Trait(cause=f"its variance ({node.input[4]}) has values that FP16 cannot hold")
        return None

    def _why_it_grows(self, node: onnx.NodeProto) -> str:
        """Return why an ordinary input makes a result that FP16 cannot hold; empty where it does not."""
        summed = self._summed(node) if node.op_type in _MEANS else 0.0
        enlarges = node.op_type in {"Div", "Mul"} and self._factor(node) > _LARGE_FACTOR
        reasons = (
            (node.op_type in _GROWS | _GROWS_INSIDE, f"{node.op_type} leaves FP16's range at ordinary inputs"),
            (self._is_square(node), "a square leaves FP16's range at inputs above 255 and its digits below 0.008"),
            (self._is_power(node), "a power leaves FP16's range at ordinary inputs"),
            (enlarges, f"a factor above {_LARGE_FACTOR:g} leaves FP16's range at ordinary inputs"),
            (node.op_type in _TOTALS and summed > _LONG_SUM, "a long sum leaves FP16's range"),
            (_LONGEST_MEAN < summed < np.inf, "FP16 cannot count the elements of the mean"),
        )
        return next((reason for holds, reason in reasons if holds), "")

    def _is_square(self, node: onnx.NodeProto) -> bool:
        return node.op_type in {"MatMul", "Mul"} and self._root(node.input[0]) == self._root(node.input[1])

    def _is_power(self, node: onnx.NodeProto) -> bool:
        if node.op_type != "Pow":
            return False
        exponent = self._flow.constants.get(node.input[1])
        return exponent is None or not exponent.size or bool(np.any(np.abs(exponent) > 1))

    def _factor(self, node: onnx.NodeProto) -> float:
        """Return by how much a constant operand enlarges the other one."""
        values = self._flow.constants.get(node.input[1])
        if node.op_type == "Mul" and values is None:
            values = self._flow.constants.get(node.input[0])
        size = abs(_size(values) or 0.0)
        return size if node.op_type == "Mul" or not size else 1 / size

    def _root(self, name: str) -> str:
        """Return the value that a value is, apart from its sign and its shape."""
        made = self._flow.producers.get(name)
        while made is not None and made.op_type in _SAME_SIZE:
            name = made.input[0]
            made = self._flow.producers.get(name)
        return self._same.get(name, name)

    def _summed(self, node: onnx.NodeProto) -> float:
        """Return how many elements go into one of the result; infinity where an open dimension is among them."""
        shape = self._flow.shapes.get(node.input[0])
        if shape is None:
            return np.inf
        if node.op_type == "AveragePool":
            return 1.0  # as many as its window, which is small
        spatial = list(range(2, len(shape)))
        axes = spatial if node.op_type == "GlobalAveragePool" else self._axes(node, len(shape))
        if axes is None:
            return np.inf
        sizes = [shape[axis] for axis in axes if -len(shape) <= axis < len(shape)]
        return float(np.prod([np.inf if size is None else float(size) for size in sizes]))

    def _axes(self, node: onnx.NodeProto, rank: int) -> list[int] | None:
        for attribute in node.attribute:
            if attribute.name == "axes":
                return [int(axis) for axis in attribute.ints]
        if len(node.input) > 1 and node.input[1]:
            values = self._flow.constants.get(node.input[1])
            return None if values is None else [int(axis) for axis in values] or list(range(rank))
        return list(range(rank))

    def _passed_on(self, node: onnx.NodeProto, trait: _Trait) -> _Trait | None:
        """Return what the result of a node has of its input's trait."""
        constant = next((self._flow.constants[name] for name in node.input[:2] if name in self._flow.constants), None)
        size = _size(constant)
        after: _Trait | None
        match node.op_type:
            case "Add" | "Sub" | "Sum" if trait.gap and constant is not None:
                after = replace(trait, scale=trait.gap, gap=0.0)
            case "Add" | "Sub" | "Sum":
                after = trait if trait.grown or trait.scale > HALF_MAX else None
            case "Mul":
                after = self._product(node, trait, size)
            case "Div":
                after = self._quotient(node, size)
            case operator if operator in _PRODUCTS:
                after = trait if trait.grown else None
            case "Pow" | "Reciprocal" | "Sqrt":
                after = _power(trait, {"Reciprocal": -1.0, "Sqrt": 0.5}.get(node.op_type, size))
            case "Clip" | "Min" if trait.grown and self._is_bounded(node):
                after = None
            case operator if operator in _PASSES:
                after = trait
            case _:
                after = None
        return after

    def _product(self, node: onnx.NodeProto, trait: _Trait, size: float | None) -> _Trait | None:
        one, other = (self._traits.get(name) for name in node.input[:2])
        if one is not None and other is not None:
            grown = one.inverse == other.inverse and (one.grown or other.grown)
            scale = _bounded(one.scale * other.scale)
            return replace(one, scale=scale, inverse=one.inverse and other.inverse, grown=grown)
        if size is not None:
            return replace(trait, scale=_bounded(trait.scale * abs(size)))
        return trait if trait.grown or (trait.scale > HALF_MAX and not trait.inverse) else None

    def _quotient(self, node: onnx.NodeProto, size: float | None) -> _Trait | None:
        above, below = (self._traits.get(name) for name in node.input[:2])
        if size is None or (above is not None and below is not None):
            return None
        if above is not None:
            return replace(above, scale=_bounded(above.scale / (abs(size) or 1.0)))
        inverted = None if below is None else _power(below, -1.0)
        return None if inverted is None else replace(inverted, scale=_bounded(inverted.scale * abs(size)))

    def _is_bounded(self, node: onnx.NodeProto) -> bool:
        bounds = [self._flow.constants.get(name) for name in node.input[1:]]
        upper = bounds[-1] if bounds and (node.op_type == "Min" or len(bounds) > 1) else None
        attribute = next((float(one.f) for one in node.attribute if one.name == "max"), np.inf)
        largest = float(np.max(upper)) if upper is not None and upper.size else attribute
        return largest <= HALF_MAX


def _why_it_is_steep(node: onnx.NodeProto) -> str:
    if node.op_type == "Log":
        return "a logarithm tells apart small values that FP16 has not"
    return "it tells apart values near 1 that FP16 has not" if node.op_type in _STEEP_AT_ONE else ""


def _power(trait: _Trait, exponent: float | None) -> _Trait | None:
    if exponent is None:
        return None
    with np.errstate(over="ignore"):
        scale = _bounded(float(np.power(trait.scale, exponent)))
    if exponent < 0:
        inverse = not trait.inverse and (trait.grown or trait.scale != 1)
        return replace(trait, scale=scale, grown=False, inverse=inverse, gap=0.0)
    return replace(trait, scale=scale, grown=trait.grown and exponent >= 1, gap=0.0)


def _bounded(scale: float) -> float:
    return min(max(scale, _SMALLEST), 1 / _SMALLEST)


def _size(values: Values | None) -> float | None:
    """Return the size of a constant operand: of an exponent with its sign, of many values the largest."""
    if values is None or not values.size:
        return None
    return float(values[np.argmax(np.abs(values))])


def _gap(values: Values) -> float:
    """Return how far from one the values of a constant are that FP16 makes one."""
    magnitudes = np.abs(values[np.isfinite(values)])
    near = magnitudes[(magnitudes != 1) & (rounded(magnitudes) == 1)]
    return float(np.min(np.abs(1 - near))) if near.size and near.size == magnitudes.size else 0.0


def _in_half(value: float) -> str:
    return f"{float(rounded(np.array([value]))[0]):.3g}"
