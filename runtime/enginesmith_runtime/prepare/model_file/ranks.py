"""Ranks of node inputs from the file or from ONNX's shape inference."""

from collections.abc import Collection, Mapping

import onnx
from onnx import shape_inference

from enginesmith_runtime.onnx_graphs.graph import all_nodes, label

__all__ = ["first_input_ranks"]


def first_input_ranks(model: onnx.ModelProto, operators: Collection[str]) -> Mapping[str, int]:
    """Return the rank of the first input for every node with these operators, by the node's name in messages.

    Unknown ranks are omitted.
    """
    nodes = [node for node in all_nodes(model.graph) if node.op_type in operators and node.input]
    if not nodes:
        return {}
    ranks = _declared_ranks(model.graph)
    if any(node.input[0] not in ranks for node in nodes):
        try:
            ranks = _declared_ranks(shape_inference.infer_shapes(model).graph)
        except (shape_inference.InferenceError, ValueError):
            # The exercise finds invalid shapes; this is only advice.
            return {}
    return {label(node): ranks[node.input[0]] for node in nodes if node.input[0] in ranks}


def _declared_ranks(graph: onnx.GraphProto) -> dict[str, int]:
    values = (*graph.input, *graph.value_info, *graph.output)
    declared = {one.name: len(one.type.tensor_type.shape.dim) for one in values if _has_shape(one)}
    return declared | {tensor.name: len(tensor.dims) for tensor in graph.initializer}


def _has_shape(value: onnx.ValueInfoProto) -> bool:
    return value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape")
