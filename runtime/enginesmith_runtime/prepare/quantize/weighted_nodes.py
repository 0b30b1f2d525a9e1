"""Finds the nodes that are faster in 8 bits: products of a value and a constant weight, and Adds that fuse with one."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import onnx
from onnx import TensorProto

from enginesmith_runtime.onnx_graphs.dataflow import int_attribute
from enginesmith_runtime.onnx_graphs.graph import all_nodes, is_onnx_domain, subgraphs

__all__ = ["FLOATS", "WEIGHTED", "WeightedNode", "channel_axis", "find_shortcuts", "find_weighted"]

WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

FLOATS: Final = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
"""Datatypes of weights that are quantised, and of their scales."""

_MATRIX: Final = 2


@dataclass(frozen=True, kw_only=True)
class WeightedNode:
    """A node whose second input is a constant weight.

    Attributes:
        value: Name of its first input.
        weight: Weight in FP32, FP16 or BF16. The first input has the same dtype.
        axis: Axis of the output channels in the weight.
    """

    node: onnx.NodeProto
    value: str
    weight: TensorProto
    axis: int


def find_weighted(graph: onnx.GraphProto) -> tuple[WeightedNode, ...]:
    """Return the weighted nodes of a main graph in its order."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    found = []
    for node in graph.node:
        weight = weights.get(node.input[1]) if node.op_type in WEIGHTED and is_onnx_domain(node.domain) else None
        if weight is None or weight.data_type not in FLOATS or node.input[0] in weights:
            continue
        axis = channel_axis(node, len(weight.dims))
        if axis is not None:
            found.append(WeightedNode(node=node, value=node.input[0], weight=weight, axis=axis))
    return tuple(found)


def channel_axis(node: onnx.NodeProto, rank: int) -> int | None:
    """Return the axis of a weight's output channels, or None if no 8-bit kernel supports the weight."""
    match node.op_type:
        case "Conv":
            return 0
        case "ConvTranspose":  # axis 1 has the channels of one group
            return 1 if int_attribute(node, "group", 1) == 1 else None
        case "Gemm":
            return 0 if int_attribute(node, "transB", 0) else 1
        case _:
            return 1 if rank == _MATRIX else None


def find_shortcuts(graph: onnx.GraphProto, quantised: Collection[str]) -> dict[str, int]:
    """Return the Adds that fuse with a quantised convolution, and the index of the shortcut input.

    A convolution fuses with an Add, and writes 8 bits, only if the Add is its only reader. Of two such convolutions,
    the one with fewer layers before it is the shortcut, such as the projection of a block.

    Args:
        graph: Graph in topological order.
        quantised: Weighted nodes in 8 bits. They do not determine which input of an Add is the shortcut.
    """
    convolutions = {one.node.output[0]: one.node.name for one in find_weighted(graph) if one.node.op_type == "Conv"}
    constants = {tensor.name for tensor in graph.initializer}
    cast = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    reads, depths = _reads(graph), _depths(graph)
    found: dict[str, int] = {}
    for node in graph.node:
        if node.op_type != "Add" or not is_onnx_domain(node.domain) or not constants.isdisjoint(node.input):
            continue
        # After a Cast there is no fusion, but the convolution counts: a cast model has the shortcuts of its source, or
        # none.
        makers = [cast.get(name, name) for name in node.input]
        alone = [reads[name] == reads[maker] == 1 for name, maker in zip(node.input, makers, strict=True)]
        fusible = [
            (depths[maker], index) for index, maker in enumerate(makers) if maker in convolutions and alone[index]
        ]
        if fusible and convolutions.get(node.input[max(fusible)[1]], "") in quantised:
            found[node.name] = 1 - max(fusible)[1]
    return found


def _reads(graph: onnx.GraphProto) -> Counter[str]:
    reads = Counter(name for node in all_nodes(graph) for name in node.input)
    reads.update(value.name for value in graph.output)
    reads.update(value.name for node in graph.node for inner in subgraphs(node) for value in inner.output)
    return reads


def _depths(graph: onnx.GraphProto) -> dict[str, int]:
    depths: dict[str, int] = {}
    for node in graph.node:
        layers = 0 if node.op_type == "Cast" else 1  # a cast model has the shortcuts of its source
        depth = layers + max((depths.get(name, 0) for name in node.input), default=0)
        depths |= dict.fromkeys(node.output, depth)
    return depths
