"""Small constants of a graph by value, and what FP16 would make of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor

from enginesmith_runtime.onnx_graphs.graph import external_location

__all__ = ["HALF_MAX", "Values", "find_constants", "is_exact", "is_lost", "lost_magnitude", "rounded"]

Values = npt.NDArray[np.float64]

HALF_MAX: Final = float(np.finfo(np.float16).max)

_MOST_ELEMENTS: Final = 1 << 16
_NUMBERS: Final = frozenset(
    {
        TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.INT16,
        TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32,
        TensorProto.UINT64,
    }
)  # fmt: skip
# The values stay those of the first input, whatever the shape.
_SAME_VALUES: Final = frozenset(
    {
        "Cast", "CastLike", "ConstantOfShape", "Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Tile",
        "Transpose", "Unsqueeze",
    }
)  # fmt: skip
_ARITHMETIC: Final[Mapping[str, Callable[..., Values]]] = {
    "Abs": np.abs,
    "Add": np.add,
    "Div": np.divide,
    "Exp": np.exp,
    "Log": np.log,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Pow": np.power,
    "Reciprocal": np.reciprocal,
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
}


def find_constants(graph: onnx.GraphProto, folder: Path) -> dict[str, Values]:
    """Return the values of every constant of at most 65,536 elements, as flat arrays by name.

    Constants are weights, `Constant` nodes, and what a few simple operators make of them.

    Args:
        graph: in topological order.
        folder: where weights outside the ONNX file lie.
    """
    found = {tensor.name: _read(tensor, folder) for tensor in graph.initializer if _is_small(tensor)}
    for node in graph.node:
        values = _result(node, found, folder)
        if values is not None:
            found[node.output[0]] = values
    return found


def is_exact(values: Values) -> bool:
    """Whether FP16 holds each finite value as it is."""
    finite = values[np.isfinite(values)]
    return bool(np.all(rounded(finite) == finite))


def is_lost(value: float, tolerance: float) -> bool:
    """Whether FP16 holds a magnitude with a relative error above `tolerance`, or not at all."""
    return value != 0 and abs(float(rounded(np.array([value]))[0]) - value) > tolerance * abs(value)


def lost_magnitude(values: Values, tolerance: float) -> float | None:
    """Return the largest magnitude of a constant that FP16 cannot hold; None where it can.

    It cannot where one value is beyond its range, or where all that are not zero lose more than `tolerance` of
    themselves. A weight of many values in which some are small is no such constant.
    """
    magnitudes = np.abs(values[np.isfinite(values)])
    magnitudes = magnitudes[magnitudes > 0]
    if not magnitudes.size:
        return None
    largest = float(np.max(magnitudes))
    lost = np.abs(rounded(magnitudes) - magnitudes) > tolerance * magnitudes
    return largest if largest > HALF_MAX or bool(np.all(lost)) else None


def rounded(values: Values) -> Values:
    """Return the values as FP16 holds them."""
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float64)


def _is_small(tensor: TensorProto) -> bool:
    return tensor.data_type in _NUMBERS and int(np.prod(tensor.dims, dtype=np.int64)) <= _MOST_ELEMENTS


def _read(tensor: TensorProto, folder: Path) -> Values:
    if external_location(tensor) is not None:
        loaded = TensorProto()
        loaded.CopyFrom(tensor)
        load_external_data_for_tensor(loaded, str(folder))
        tensor = loaded
    return numpy_helper.to_array(tensor).astype(np.float64).reshape(-1)


def _result(node: onnx.NodeProto, known: Mapping[str, Values], folder: Path) -> Values | None:
    """Return the values of a node's only output where they follow from constants."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type in {"Constant", "ConstantOfShape"}:
        return _attribute_values(attributes, folder, default=0.0 if node.op_type == "ConstantOfShape" else None)
    inputs = [known.get(name) for name in node.input if name]
    if node.op_type in _SAME_VALUES and inputs:
        return inputs[0]
    operation = _ARITHMETIC.get(node.op_type)
    operands = [values for values in inputs if values is not None and values.size]
    if operation is None or len(operands) != len(inputs) or not operands:
        return None
    if len(operands) > 1 and all(values.size > 1 for values in operands):
        return None  # shapes are not known here
    with np.errstate(all="ignore"):
        return np.asarray(operation(*operands), dtype=np.float64).reshape(-1)


def _attribute_values(
    attributes: Mapping[str, onnx.AttributeProto], folder: Path, *, default: float | None
) -> Values | None:
    tensor = attributes.get("value")
    if tensor is not None:
        return _read(tensor.t, folder) if _is_small(tensor.t) else None
    for name in ("value_float", "value_floats", "value_int", "value_ints"):
        if name in attributes:
            return np.atleast_1d(np.asarray(helper.get_attribute_value(attributes[name]), dtype=np.float64))
    return None if default is None else np.array([default])
