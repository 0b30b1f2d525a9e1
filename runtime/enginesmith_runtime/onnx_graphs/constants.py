"""Values of small constants in a graph, and their rounding in a 16-bit format."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor
from onnx.reference import ReferenceEvaluator

from enginesmith_runtime.onnx_graphs.graph import external_location, subgraphs
from enginesmith_runtime.onnx_graphs.narrow import Narrow

__all__ = [
    "Values",
    "find_constants",
    "is_exact",
    "is_lost",
    "lost_magnitude",
    "rounded",
    "sample_constants",
]

Array = npt.NDArray[np.generic]
Values = npt.NDArray[np.float64]

_MOST_ELEMENTS: Final = 1 << 16
_BLOCK: Final = 1 << 12
_BLOCKS: Final = 8
_NUMBERS: Final = frozenset(
    {
        TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.INT16,
        TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32,
        TensorProto.UINT64,
    }
)  # fmt: skip
# The values are those of the first input; only the shape changes.
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


def find_constants(graph: onnx.GraphProto, folder: Path, opset: int) -> dict[str, Values]:
    """Return the values of every constant of at most 65,536 elements, as flat arrays by name.

    Constants are weights, `Constant` nodes, and results that depend only on them. The values are also known if only a
    run determines the shape of a moved constant, and after a few simple operators.

    Args:
        graph: Graph in topological order.
        folder: Folder of the weights outside the ONNX file.
        opset: Opset of the default domain.
    """
    arrays = {tensor.name: _read(tensor, folder) for tensor in graph.initializer if _is_small(tensor)}
    found = {name: _flat(array) for name, array in arrays.items()}
    for node in graph.node:
        arrays |= _evaluated(node, arrays, folder, opset)
        for name in node.output:
            if name in arrays:
                found[name] = _flat(arrays[name])
        values = None if node.output and node.output[0] in found else _result(node, found)
        if values is not None:
            found[node.output[0]] = values
    return found


def sample_constants(graph: onnx.GraphProto, folder: Path) -> dict[str, Values]:
    """Return some values of every FP32 weight of more than 65,536 elements, and of moved copies of it, by name."""
    found = {
        tensor.name: _sample(tensor, folder)
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and not _is_small(tensor)
    }
    for node in graph.node:
        if node.op_type in _SAME_VALUES and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def is_exact(values: Values, narrow: Narrow) -> bool:
    """Whether a format represents each finite value exactly."""
    finite = values[np.isfinite(values)]
    return bool(np.all(rounded(finite, narrow) == finite))


def is_lost(value: float, tolerance: float, narrow: Narrow) -> bool:
    """Whether a format represents a magnitude with a relative error above `tolerance`, or not at all."""
    return value != 0 and abs(float(rounded(np.array([value]), narrow)[0]) - value) > tolerance * abs(value)


def lost_magnitude(values: Values, tolerance: float, narrow: Narrow) -> float | None:
    """Return the largest magnitude of a constant that a format cannot represent, or None if it can.

    It cannot if one value is out of range, or if all values other than 0 have a relative error above `tolerance`. A
    weight in which only some values are small can be represented.
    """
    magnitudes = np.abs(values[np.isfinite(values)])
    magnitudes = magnitudes[magnitudes > 0]
    if not magnitudes.size:
        return None
    largest = float(np.max(magnitudes))
    lost = np.abs(rounded(magnitudes, narrow) - magnitudes) > tolerance * magnitudes
    return largest if largest > narrow.largest or bool(np.all(lost)) else None


def rounded(values: Values, narrow: Narrow) -> Values:
    """Return the values rounded to a format."""
    with np.errstate(over="ignore"):
        return values.astype(narrow.numpy).astype(np.float64)


def _is_small(tensor: TensorProto) -> bool:
    return tensor.data_type in _NUMBERS and int(np.prod(tensor.dims, dtype=np.int64)) <= _MOST_ELEMENTS


def _read(tensor: TensorProto, folder: Path) -> Array:
    if external_location(tensor) is not None:
        loaded = TensorProto()
        loaded.CopyFrom(tensor)
        load_external_data_for_tensor(loaded, str(folder))
        tensor = loaded
    return numpy_helper.to_array(tensor)


def _sample(tensor: TensorProto, folder: Path) -> Values:
    """Return blocks from the whole weight. If it is in a separate file, only few pages are read."""
    if external_location(tensor) is None:
        array = numpy_helper.to_array(tensor).reshape(-1)
    else:
        info = ExternalDataInfo(tensor)
        count = int(np.prod(tensor.dims, dtype=np.int64))
        array = np.memmap(folder / info.location, dtype="<f4", mode="r", offset=info.offset or 0, shape=(count,))
    starts = range(0, array.size - _BLOCK + 1, max((array.size - _BLOCK) // (_BLOCKS - 1), 1))
    return np.concatenate([array[start : start + _BLOCK] for start in starts]).astype(np.float64)


def _flat(array: Array) -> Values:
    return array.astype(np.float64).reshape(-1)


def _evaluated(node: onnx.NodeProto, arrays: Mapping[str, Array], folder: Path, opset: int) -> dict[str, Array]:
    """Return the numeric results of a node by name. The result is empty if an input is not constant."""
    if node.op_type == "Constant":
        return _attribute_values(node, folder)
    names = [name for name in node.input if name]
    random = node.op_type.startswith(("Bernoulli", "Multinomial", "Random"))
    if not names or random or any(name not in arrays for name in names) or any(True for _ in subgraphs(node)):
        return {}
    made = [name for name in node.output if name]
    inputs = [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names)]
    graph = helper.make_graph([node], "constants", inputs, [onnx.ValueInfoProto(name=name) for name in made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, {name: arrays[name] for name in names})
    except Exception:  # noqa: BLE001 - the evaluator and its operators raise many classes
        return {}
    found = {name: np.asarray(result) for name, result in zip(made, results, strict=True)}
    return {name: array for name, array in found.items() if array.dtype.kind in "fiu" and array.size <= _MOST_ELEMENTS}


def _result(node: onnx.NodeProto, known: Mapping[str, Values]) -> Values | None:
    """Return the values of a node's only output if they follow from constants and its shape is open."""
    inputs = [known.get(name) for name in node.input if name]
    if node.op_type == "ConstantOfShape":
        tensor = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        return np.zeros(1) if tensor is None else _flat(numpy_helper.to_array(tensor))
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


def _attribute_values(node: onnx.NodeProto, folder: Path) -> dict[str, Array]:
    for attribute in node.attribute:
        if attribute.name == "value":
            return {node.output[0]: _read(attribute.t, folder)} if _is_small(attribute.t) else {}
        if attribute.name in {"value_float", "value_floats", "value_int", "value_ints"}:
            kind = np.float32 if "float" in attribute.name else np.int64
            return {node.output[0]: np.asarray(helper.get_attribute_value(attribute), dtype=kind)}
    return {}
