"""Digest of a model without the values of its weights. Models with one structure differ only in refittable weights.

A retrained model has the same nodes, names and shapes, but other floating-point weights. Integers are part of the
structure: they are shapes, axes and indices, on which the network depends, or quantised weights, which cannot be
refitted.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import Final

import onnx
from google.protobuf.message import Message
from onnx import numpy_helper
from onnx.external_data_helper import uses_external_data

from enginesmith_runtime.onnx_graphs.graph import opset_of

__all__ = ["structure_digest"]

_WEIGHTS: Final = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
)


def structure_digest(model: onnx.ModelProto) -> str:
    """Return a SHA-256 that is equal for two models that differ only in floating-point weights.

    Producer, date and documentation of the model are not part of it.
    """
    digest = sha256()
    for part in _describe_model(model):
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.hexdigest()


def _describe_model(model: onnx.ModelProto) -> Iterator[bytes]:
    yield str(opset_of(model)).encode()
    for entry in sorted(model.opset_import, key=lambda one: one.domain):
        yield f"{entry.domain} {entry.version}".encode()
    for function in model.functions:
        yield _serialised(function)
    yield from _describe_graph(model.graph)


def _describe_graph(graph: onnx.GraphProto) -> Iterator[bytes]:
    yield f"graph of {len(graph.node)} nodes".encode()
    for value in (*graph.input, *graph.output):
        yield value.name.encode()
        yield _serialised(value.type)
    for tensor in graph.initializer:
        yield from _describe_tensor(tensor)
    for sparse in graph.sparse_initializer:
        yield _serialised(sparse)
    for node in graph.node:
        yield from _describe_node(node)


def _describe_node(node: onnx.NodeProto) -> Iterator[bytes]:
    yield "\n".join((node.domain, node.op_type, node.name, *node.input, "", *node.output)).encode()
    for attribute in sorted(node.attribute, key=lambda one: one.name):
        match attribute.type:
            case onnx.AttributeProto.TENSOR:
                yield attribute.name.encode()
                yield from _describe_tensor(attribute.t)
            case onnx.AttributeProto.GRAPH:
                yield attribute.name.encode()
                yield from _describe_graph(attribute.g)
            case _:
                yield _serialised(attribute)


def _describe_tensor(tensor: onnx.TensorProto) -> Iterator[bytes]:
    yield f"{tensor.name} {tensor.data_type} {list(tensor.dims)}".encode()
    if tensor.data_type in _WEIGHTS:
        return
    if uses_external_data(tensor):
        # The data is not read. Another offset in its file gives another structure, which only costs a build.
        yield str([(entry.key, entry.value) for entry in tensor.external_data]).encode()
        return
    yield (
        numpy_helper.to_array(tensor).tobytes() if tensor.data_type != onnx.TensorProto.STRING else _serialised(tensor)
    )


def _serialised(message: Message) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))
