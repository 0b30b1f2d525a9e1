"""Finds integer inputs whose values are sizes or shapes. TensorRT builds an engine for a range of their values.

Every operator that reads a shape, a size, a count or an axis from a tensor is followed back to the model's inputs,
through operators that compute shapes from shapes. Shape and Size end the search, because they read the shape of a
tensor and not its values.
"""

from collections.abc import Mapping
from typing import Final

import onnx
from onnx import TensorProto

from enginesmith_runtime.onnx_graphs.graph import all_nodes

__all__ = ["find_shape_inputs"]

_MOST_DIMENSIONS: Final = 1  # limit of a shape tensor in TensorRT
_INTEGERS: Final = frozenset({TensorProto.INT32, TensorProto.INT64})

# Indices of inputs that are sizes, by operator.
_SIZES: Final[Mapping[str, tuple[int, ...]]] = {
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Loop": (0,),
    "MaxUnpool": (2,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (3,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
}
_COMPUTE_SHAPES: Final = frozenset(
    {
        "Abs", "Add", "And", "Cast", "Ceil", "Concat", "Div", "Equal", "Expand", "Flatten", "Floor", "Gather",
        "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or",
        "Range", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Slice", "Split", "Squeeze", "Sub",
        "Tile", "Transpose", "Unsqueeze", "Where",
    }
)  # fmt: skip


def find_shape_inputs(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Return the INT32 or INT64 inputs of fixed rank 0 or 1 whose values are used as sizes, in the graph's order.

    Args:
        graph: The main graph. Inner graphs are also searched.
    """
    candidates = [value.name for value in graph.input if _may_be_shape(value)]
    if not candidates:
        return ()
    nodes = tuple(all_nodes(graph))
    producers = {name: node for node in nodes for name in node.output if name}
    waiting = [node.input[index] for node in nodes for index in _SIZES.get(node.op_type, ()) if index < len(node.input)]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if not name or name in seen:
            continue
        seen.add(name)
        producer = producers.get(name)
        if producer is not None and producer.op_type in _COMPUTE_SHAPES:
            waiting.extend(producer.input)
    weights = {tensor.name for tensor in graph.initializer}
    return tuple(name for name in candidates if name in seen and name not in weights)


def _may_be_shape(value: onnx.ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    return (
        tensor.elem_type in _INTEGERS
        and tensor.HasField("shape")
        and len(tensor.shape.dim) <= _MOST_DIMENSIONS
        and all(dimension.HasField("dim_value") and dimension.dim_value >= 0 for dimension in tensor.shape.dim)
    )
