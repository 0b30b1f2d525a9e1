"""Finds constants that a 16-bit format rounds to 0, infinity or 1. Sentences name FP16; see `Narrow.said`."""

from typing import Final

import numpy as np
import onnx

from enginesmith_runtime.onnx_graphs.constants import Values, is_lost, lost_magnitude, rounded
from enginesmith_runtime.onnx_graphs.dataflow import Dataflow
from enginesmith_runtime.onnx_graphs.narrow import Narrow

__all__ = ["BOUNDS", "SUMS", "lost_constant", "size_of"]

# The error of a factor is completely in the result; that of an epsilon only partly.
_FACTOR_TOLERANCE: Final = 4  # roundings
_TOLERANCE: Final = 0.05
_VARIANCE_TOLERANCE: Final = 0.01

SUMS: Final = frozenset({"Add", "Sub", "Sum"})
BOUNDS: Final = frozenset({"Clip", "Max", "Min"})
_FACTORS: Final = frozenset({"Div", "Gemm", "MatMul", "Mul", "Pow"})
_NOT_ARITHMETIC: Final = frozenset({"cubic_coeff_a", "extrapolation_value", "ratio", "spatial_scale", "value"})


def lost_constant(node: onnx.NodeProto, flow: Dataflow) -> str:
    """Return a text about the constant of a node that FP16 cannot represent, or ""."""
    narrow = flow.narrow
    tolerance = _FACTOR_TOLERANCE * narrow.unit if node.op_type in _FACTORS else _TOLERANCE
    for name in node.input:
        values = flow.constants.get(name)
        if values is None or not flow.is_float(name):
            continue
        scale = lost_magnitude(values, tolerance, narrow)
        if scale is not None and scale > narrow.largest and node.op_type in BOUNDS:
            scale = None  # a bound that no value reaches
        if scale is not None:
            return f"its constant {scale:.3g} is {_in_half(scale, narrow)} in FP16"
        gap = _gap(values, narrow)
        if gap and node.op_type in SUMS | BOUNDS:
            return f"its constant is {gap:.3g} from 1, and 1 in FP16"
    return _lost_attribute(node, narrow) or _lost_variance(node, flow)


def size_of(values: Values | None) -> float | None:
    """Return the size of a constant operand: an exponent with its sign, or the largest of many values."""
    if values is None or not values.size:
        return None
    return float(values[np.argmax(np.abs(values))])


def _lost_attribute(node: onnx.NodeProto, narrow: Narrow) -> str:
    for attribute in node.attribute:
        if attribute.type != onnx.AttributeProto.FLOAT or attribute.name in _NOT_ARITHMETIC:
            continue
        scale = abs(float(attribute.f))
        gap = _gap(np.array([attribute.f]), narrow) if node.op_type == "Clip" else 0.0
        if is_lost(scale, _TOLERANCE, narrow) and not (node.op_type == "Clip" and scale > narrow.largest):
            return f"its attribute {attribute.name}, {scale:.3g}, is {_in_half(scale, narrow)} in FP16"
        if gap:
            return f"its attribute {attribute.name} is {gap:.3g} from 1, and 1 in FP16"
    return ""


def _lost_variance(node: onnx.NodeProto, flow: Dataflow) -> str:
    if node.op_type != "BatchNormalization" or not node.input[4:]:
        return ""
    variance = flow.constants.get(node.input[4])
    if variance is None:
        return ""
    epsilon = next((float(one.f) for one in node.attribute if one.name == "epsilon"), 1e-5)
    right = variance + epsilon
    wrong = rounded(variance, flow.narrow) + float(rounded(np.array([epsilon]), flow.narrow)[0])
    if bool(np.any(np.abs(wrong - right) > _VARIANCE_TOLERANCE * np.abs(right))):
        return f"its variance ({node.input[4]}) has values that FP16 cannot hold"
    return ""


def _gap(values: Values, narrow: Narrow) -> float:
    """Return the distance from 1 of the values of a constant that a format rounds to 1."""
    magnitudes = np.abs(values[np.isfinite(values)])
    near = magnitudes[(magnitudes != 1) & (rounded(magnitudes, narrow) == 1)]
    return float(np.min(np.abs(1 - near))) if near.size and near.size == magnitudes.size else 0.0


def _in_half(value: float, narrow: Narrow) -> str:
    return f"{float(rounded(np.array([value]), narrow)[0]):.3g}"
