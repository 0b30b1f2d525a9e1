"""Reads ONNX files: the graph without its weights, the nodes of all subgraphs, and the files of weights.

Weights outside the ONNX file stay on disk, so reading a large model needs only the memory for its graph.
"""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from enginesmith_contract.errors import ModelError

__all__ = [
    "ONNX_DOMAINS",
    "all_nodes",
    "all_tensors",
    "allow_free_weights",
    "external_location",
    "fresh_name",
    "hoist_constants",
    "is_onnx_domain",
    "label",
    "name_nodes",
    "node_names",
    "opset_of",
    "read_graph",
    "subgraphs",
    "with_outputs",
]

_FIRST_IR_WITH_FREE_WEIGHTS = 4
ONNX_DOMAINS = frozenset({"", "ai.onnx"})
_NOT_ONNX_HEADS = (
    (b"version https://git-lfs", "it is a Git LFS pointer", "fetch the real file (git lfs pull)"),
    (b"PK\x03\x04", "it is a zip archive, such as a PyTorch checkpoint", "export the model with torch.onnx.export"),
    (b"\x89HDF", "it is an HDF5 file, such as a Keras model", "convert the model with tf2onnx"),
    (b"<", "it is a web page or an XML file", "check that the URI names the file itself"),
    (b"ftrt", "it is a TensorRT engine", "use the ONNX model that it was built from"),
    (b"vtrt", "it is a TensorRT for RTX engine", "use the ONNX model that it was built from"),
)
_REMEDY = "use an ONNX file as an exporter wrote it"


def read_graph(path: Path) -> onnx.ModelProto:
    """Read a model without the weights in separate files.

    Raises:
        enginesmith_contract.errors.ModelError: `NotOnnx` if it is not a complete ONNX file.
    """
    with path.open("rb") as file:
        head = file.read(64)
    for start, why, remedy in _NOT_ONNX_HEADS:
        if head.startswith(start):
            raise _not_onnx(path, why, remedy)
    if not head:
        raise _not_onnx(path, "it is empty", _REMEDY)
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise _not_onnx(path, f"it is damaged or cut short ({path.stat().st_size} bytes)", "fetch it again") from error
    if not model.graph.node or not model.opset_import:
        raise _not_onnx(path, "it contains no graph", _REMEDY)
    return model


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the inner graphs of a node (the branches of If, the body of Loop and Scan)."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield every node of a graph and of the graphs inside it, outer ones first."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from all_nodes(inner)


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every weight of a model (initializers and attribute values), including inner graphs and functions."""
    yield from _tensors_of_graph(model.graph)
    for function in model.functions:
        yield from _tensors_of_nodes(function.node)


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            sparse_tensors = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            for sparse in (*sparse_tensors, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
        for inner in subgraphs(node):
            yield from _tensors_of_graph(inner)


def external_location(tensor: onnx.TensorProto) -> str | None:
    """Return the relative path of the file of an external weight, or None for a weight in the ONNX file."""
    return str(ExternalDataInfo(tensor).location) if uses_external_data(tensor) else None


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the default operator set, or 0 if the model does not import it."""
    return max((int(entry.version) for entry in model.opset_import if entry.domain in ONNX_DOMAINS), default=0)


def is_onnx_domain(domain: str) -> bool:
    """Whether this is the domain of standard ONNX operators."""
    return domain in ONNX_DOMAINS


def label(node: onnx.NodeProto) -> str:
    """Return a node's name, or its first output if the exporter wrote no names (as PaddlePaddle's does)."""
    return str(node.name or next(iter(node.output), "") or "unnamed")


def name_nodes(model: onnx.ModelProto) -> None:
    """Give every node of the main graph a unique name. The same file always gets the same names."""
    for node, name in zip(model.graph.node, node_names(model.graph), strict=True):
        node.name = name


def node_names(graph: onnx.GraphProto) -> list[str]:
    """Return the name that `name_nodes` gives each node of a graph, in the graph's order."""
    taken: set[str] = set()
    return [fresh_name(label(node), taken) for node in graph.node]


def fresh_name(name: str, taken: set[str]) -> str:
    """Return `name`, with a number if it is already used, and add the result to `taken`."""
    number = 0
    while (made := f"{name}_{number}" if number else name) in taken:
        number += 1
    taken.add(made)
    return made


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """Return a copy of a model whose only outputs are these values of its main graph."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return watched


def _not_onnx(path: Path, why: str, remedy: str) -> ModelError:
    return ModelError("not an ONNX model", where=path.name, why=why, remedy=remedy, reason="NotOnnx")


def allow_free_weights(model: onnx.ModelProto) -> None:
    """Allow weights that are not inputs. Up to IR version 3 every weight had to be an input."""
    model.ir_version = max(model.ir_version, _FIRST_IR_WITH_FREE_WEIGHTS)


def hoist_constants(model: onnx.ModelProto, dtypes: Collection[int] = (TensorProto.FLOAT,)) -> None:
    """Convert Constant nodes of some dtypes to initializers, because PaddlePaddle exports have weights in nodes."""
    allow_free_weights(model)
    graph = model.graph
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        value = _constant_value(node)
        if value is None or value.data_type not in dtypes:
            continue
        graph.initializer.add().CopyFrom(value)
        graph.initializer[-1].name = node.output[0]
        del graph.node[index]


def _constant_value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    for attribute in node.attribute if node.op_type == "Constant" else ():
        if attribute.name == "value":
            return attribute.t
        if attribute.name == "value_float":
            return helper.make_tensor("", TensorProto.FLOAT, [], [attribute.f])
        if attribute.name == "value_floats":
            return helper.make_tensor("", TensorProto.FLOAT, [len(attribute.floats)], attribute.floats)
    return None
