"""Shape inference without large weights. It copies a model several times but needs only the values of small tensors."""

from typing import Final

import onnx
from onnx import helper, shape_inference

from enginesmith_runtime.onnx_graphs.graph import external_location

__all__ = ["infer_types", "without_weights"]

_MOST_BYTES: Final = 4096
"""Largest size of a weight whose values shape inference may need."""


def infer_types(model: onnx.ModelProto) -> onnx.GraphProto:
    """Return the main graph with the types of its values. Large weights become inputs."""
    return shape_inference.infer_shapes(without_weights(model), check_type=False, strict_mode=False).graph


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with inputs instead of large and external weights of the main graph."""
    copy = onnx.ModelProto(ir_version=model.ir_version)
    copy.opset_import.extend(model.opset_import)
    copy.functions.extend(model.functions)
    graph, source = copy.graph, model.graph
    graph.name = source.name
    graph.input.extend(source.input)
    graph.output.extend(source.output)
    graph.value_info.extend(source.value_info)
    graph.sparse_initializer.extend(source.sparse_initializer)
    for node in source.node:
        constant = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        if node.op_type != "Constant" or constant is None or _is_small(constant):
            graph.node.add().CopyFrom(node)
        else:  # PaddlePaddle exports have weights in nodes
            graph.input.append(helper.make_tensor_value_info(node.output[0], constant.data_type, constant.dims))
    known = {value.name for value in source.input}
    for tensor in source.initializer:
        if _is_small(tensor):
            graph.initializer.add().CopyFrom(tensor)
        elif tensor.name not in known:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return copy


def _is_small(tensor: onnx.TensorProto) -> bool:
    return external_location(tensor) is None and tensor.ByteSize() <= _MOST_BYTES
