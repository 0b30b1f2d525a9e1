"""A view of the main graph for the FP16 rules: producers of values, constants, and values that are exact numbers."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto

from enginesmith_runtime.onnx_graphs.constants import Values, find_constants, sample_constants
from enginesmith_runtime.onnx_graphs.graph import all_nodes, opset_of, subgraphs
from enginesmith_runtime.onnx_graphs.narrow import FP16, Narrow

__all__ = ["ARITHMETIC", "CAUSE", "MOVES", "Dataflow", "Shape", "has_subgraph", "int_attribute"]

Shape = tuple[int | None, ...]

# Each element of the result is an element of an input.
MOVES: Final = frozenset(
    {
        "Cast", "Clip", "Compress", "Concat", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather",
        "GatherElements", "GatherND", "GlobalMaxPool", "Identity", "Max", "MaxPool", "Min", "Pad", "ReduceMax",
        "ReduceMin", "Reshape", "ReverseSequence", "Scatter", "ScatterElements", "ScatterND", "Slice", "SpaceToDepth",
        "Split", "Squeeze", "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze", "Where",
    }
)  # fmt: skip
# Results for integers are integers or nearly so; results for identifiers and positions are again such numbers.
ARITHMETIC: Final = frozenset(
    {
        "Abs", "Add", "Ceil", "CumSum", "Div", "Floor", "LeakyRelu", "Mean", "Mod", "Mul", "Neg", "PRelu", "Pow",
        "Range", "Reciprocal", "ReduceL1", "ReduceMean", "ReduceSum", "Relu", "Round", "Sign", "Sqrt", "Sub", "Sum",
    }
)  # fmt: skip
_WIDE_INTEGERS: Final = frozenset(
    {
        TensorProto.DOUBLE, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT16,
        TensorProto.UINT32, TensorProto.UINT64,
    }
)  # fmt: skip
_FEW: Final = 4096
# Limit for the weights of a convolution; the first layer of a detector has only a few hundred.
_FEW_OF_WINDOW: Final = 64

CAUSE: Final = ", where "
"""Separates the relation of a node to another one from the reason why that one stays in FP32."""


@dataclass(frozen=True, kw_only=True)
class Dataflow:
    """The main graph of a model.

    Attributes:
        graph: Graph in topological order. Every node has a unique name.
        types: ONNX dtype of each value.
        shapes: Shapes of the values with known rank; None for an open dimension.
        constants: Values of constants; see `find_constants`.
        samples: Samples of larger weights; see `sample_constants`.
        narrow: The 16-bit format.
    """

    graph: onnx.GraphProto
    types: Mapping[str, int]
    shapes: Mapping[str, Shape]
    constants: Mapping[str, Values]
    samples: Mapping[str, Values]
    narrow: Narrow = FP16

    @classmethod
    def of(
        cls, inferred: onnx.GraphProto, model: onnx.ModelProto, types: Mapping[str, int], folder: Path
    ) -> "Dataflow":
        """Return the view of a model's main graph.

        Args:
            inferred: The same graph with inferred shapes.
            model: Model with the nodes.
            types: Types of its values.
            folder: Folder of the weights outside the ONNX file.
        """
        graph = model.graph
        values = (*inferred.input, *inferred.output, *inferred.value_info)
        shapes = {value.name: _shape(value.type.tensor_type) for value in values}
        shapes |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        known = {name: shape for name, shape in shapes.items() if shape is not None}
        constants = find_constants(graph, folder, opset_of(model))
        samples = sample_constants(graph, folder)
        return cls(graph=graph, types=types, shapes=known, constants=constants, samples=samples)

    @cached_property
    def producers(self) -> Mapping[str, onnx.NodeProto]:
        """Producer node of each value by name."""
        return {name: node for node in self.graph.node for name in node.output if name}

    @cached_property
    def weights(self) -> frozenset[str]:
        """Names of all constants, large ones included."""
        return frozenset({tensor.name for tensor in self.graph.initializer} | set(self.constants))

    @cached_property
    def captured(self) -> frozenset[str]:
        """FP32 values that inner graphs read by name."""
        inner = (each for node in self.graph.node for graph in subgraphs(node) for each in all_nodes(graph))
        return frozenset(name for each in inner for name in each.input if self.is_float(name))

    @cached_property
    def counted(self) -> frozenset[str]:
        """FP32 values that come from integers: identifiers, positions, sizes, times."""
        return self._grow(self._makes_numbers, lambda name: name in self.weights)

    @cached_property
    def given(self) -> frozenset[str]:
        """FP32 values that only moves and plain arithmetic separate from the graph's inputs and from integers."""
        inputs = {value.name for value in self.graph.input if self.is_float(value.name)} - self.weights
        inner = {name for node in self.graph.node if has_subgraph(node) for name in node.output}
        return self._grow(self._makes_numbers, lambda name: name in self.weights, inputs | inner)

    def is_float(self, name: str) -> bool:
        """Whether a value is FP32."""
        return self.types.get(name) == TensorProto.FLOAT

    def floats(self, node: onnx.NodeProto) -> list[str]:
        """Return the FP32 inputs of a node that are not constants."""
        return [name for name in node.input if self.is_float(name) and name not in self.weights]

    def upstream(self, names: list[str], through: Callable[[onnx.NodeProto], bool]) -> Iterator[onnx.NodeProto]:
        """Yield the producers of values, and their producers, as long as `through` accepts the nodes."""
        seen: set[str] = set()
        left = list(names)
        while left:
            node = self.producers.get(left.pop())
            if node is None or node.name in seen or not through(node):
                continue
            seen.add(node.name)
            yield node
            left.extend(self.floats(node))

    def is_small_product(self, node: onnx.NodeProto) -> bool:
        """Whether a product multiplies positions and frequencies, and not features and weights."""
        if node.op_type in {"Conv", "ConvTranspose"}:
            return self._is_small_window(node)
        factors = node.input[:2] if node.op_type == "Gemm" else node.input  # the third is added
        small = [name for name in factors if name in self.constants and self.constants[name].size <= _FEW]
        return node.op_type in {"Einsum", "Gemm", "MatMul"} and bool(small)

    def _is_small_window(self, node: onnx.NodeProto) -> bool:
        """Whether a convolution has few weights, or only copies its input (one weight for each channel is not 0)."""
        weights = self.constants.get(node.input[1])
        shape = self.shapes.get(node.input[1])
        if weights is None or not shape or not shape[0]:
            return False
        return weights.size <= _FEW_OF_WINDOW or bool(
            (np.count_nonzero(weights.reshape(shape[0], -1), axis=1) <= 1).all()
        )

    def _makes_numbers(self, node: onnx.NodeProto) -> bool:
        if node.op_type == "Cast":
            return self.types.get(node.input[0], 0) in _WIDE_INTEGERS and node.input[0] not in self.weights
        return node.op_type in {"CumSum", "Range"}

    def _grow(
        self, starts: Callable[[onnx.NodeProto], bool], is_neutral: Callable[[str], bool], roots: set[str] | None = None
    ) -> frozenset[str]:
        found = set(roots or ())
        for node in self.graph.node:
            read = [name for name in node.input if self.is_float(name)]
            follows = (
                (node.op_type in MOVES or node.op_type in ARITHMETIC or self.is_small_product(node))
                and any(name in found for name in read)
                and all(name in found or is_neutral(name) for name in read)
            )
            if follows or starts(node):
                found |= {name for name in node.output if self.is_float(name)}
        return frozenset(found)


def has_subgraph(node: onnx.NodeProto) -> bool:
    """Whether a node has inner graphs."""
    return any(True for _ in subgraphs(node))


def int_attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """Return an integer attribute of a node."""
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)


def _shape(tensor: onnx.TypeProto.Tensor) -> Shape | None:
    if not tensor.HasField("shape"):
        return None
    return tuple(int(one.dim_value) if one.dim_value > 0 else None for one in tensor.shape.dim)
