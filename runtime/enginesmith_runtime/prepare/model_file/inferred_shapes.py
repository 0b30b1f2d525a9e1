"""Infers output shapes from the nodes, without the declarations in the file.

Exporters declare wrong shapes ([1, K] for an output of [N, 1, K]), and converters declare none. ONNX's shape inference
never contradicts a declaration, so it gets a copy without declarations.
"""

from collections.abc import Mapping
from typing import NamedTuple

import onnx
from onnx import shape_inference

from enginesmith_runtime.onnx_graphs.inferred_types import without_weights

__all__ = ["Shape", "infer_output_shapes", "merge_shape", "without_declarations"]


class Shape(NamedTuple):
    """Sizes by dimension, -1 where open, and the names of open dimensions."""

    sizes: tuple[int, ...]
    symbols: tuple[str | None, ...]


def infer_output_shapes(model: onnx.ModelProto) -> Mapping[str, onnx.TensorShapeProto]:
    """Return the shapes of the graph's outputs that follow from its nodes, by name. Others are omitted."""
    try:
        inferred = shape_inference.infer_shapes(without_declarations(model), data_prop=True)
    except Exception:  # noqa: BLE001 - onnx raises several classes, and without inference the observed shapes are used
        return {}
    return {
        value.name: value.type.tensor_type.shape
        for value in inferred.graph.output
        if value.type.tensor_type.HasField("shape")
    }


def merge_shape(declared: Shape | None, inferred: Shape | None, input_symbols: frozenset[str]) -> Shape | None:
    """Return the shape to use, or None if neither is known.

    The declaration is used unless the nodes contradict it. They contradict it with another rank, another size, an
    input's dimension instead of a size, or another name or a size instead of an input's name.
    """
    if inferred is None:
        return declared
    if declared is None or len(declared.sizes) != len(inferred.sizes):
        # Inference creates its own names (unk__0), which have no meaning.
        return Shape(inferred.sizes, tuple(name if name in input_symbols else None for name in inferred.symbols))
    sizes, symbols = list(declared.sizes), list(declared.symbols)
    for axis, (size, symbol) in enumerate(zip(inferred.sizes, inferred.symbols, strict=True)):
        if size < 0 and symbol not in input_symbols:
            continue
        is_false_size = sizes[axis] >= 0 and size != sizes[axis]
        is_false_name = sizes[axis] < 0 and symbols[axis] in input_symbols and symbol != symbols[axis]
        if is_false_size or is_false_name:
            sizes[axis], symbols[axis] = size, symbol
    return Shape(tuple(sizes), tuple(symbols))


def without_declarations(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy without declared sizes of outputs, and with inputs instead of large and external weights."""
    copy = without_weights(model)
    del copy.graph.value_info[:]
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    return copy
