"""Reading ONNX files: the graph without its weights, every node of every subgraph, and where weights lie.

Weights stay on disk wherever they lie outside the ONNX file, so a model of any size is read in its graph's size.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from enginesmith_contract.errors import ModelError

__all__ = [
    "ONNX_DOMAINS",
    "all_nodes",
    "all_tensors",
    "external_location",
    "is_onnx_domain",
    "label",
    "name_nodes",
    "node_names",
    "opset_of",
    "read_graph",
    "subgraphs",
]

ONNX_DOMAINS = frozenset({"", "ai.onnx"})
_NOT_ONNX_HEADS = (
    (b"version https://git-lfs", "it is a Git LFS pointer", "fetch the real file (git lfs pull) and give that"),
    (b"PK\x03\x04", "it is a zip archive, such as a PyTorch checkpoint", "export the model with torch.onnx.export"),
    (b"\x89HDF", "it is an HDF5 file, such as a Keras model", "convert the model with tf2onnx"),
    (b"<", "it is a web page or an XML file", "check that the URI names the file itself"),
    (b"ftrt", "it is a TensorRT engine", "give the ONNX model that it was built from"),
    (b"vtrt", "it is a TensorRT for RTX engine", "give the ONNX model that it was built from"),
)
_REMEDY = "give an ONNX file as an exporter wrote it"


def read_graph(path: Path) -> onnx.ModelProto:
    """Read a model without the weights that lie in files of their own.

    Raises:
        enginesmith_contract.errors.ModelError: `NotOnnx`: it is no ONNX file, or only a part of one.
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
        raise _not_onnx(path, "it holds no graph", _REMEDY)
    return model


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that a node carries (the branches of If, the body of Loop and Scan)."""
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
    """Yield every weight of a model: initializers and values of attributes, in inner graphs and functions too."""
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
    """Return the file of a weight that lies outside the ONNX file, relative to it; None for the others."""
    return str(ExternalDataInfo(tensor).location) if uses_external_data(tensor) else None


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the default operator set; 0 where the model imports none."""
    return max((int(entry.version) for entry in model.opset_import if entry.domain in ONNX_DOMAINS), default=0)


def is_onnx_domain(domain: str) -> bool:
    """Whether an operator of this domain is ONNX's own, as every runtime knows it."""
    return domain in ONNX_DOMAINS


def label(node: onnx.NodeProto) -> str:
    """Return a node's name, or its first output where the exporter named nothing (PaddlePaddle's do not)."""
    return str(node.name or next(iter(node.output), "") or "unnamed")


def name_nodes(model: onnx.ModelProto) -> None:
    """Give every node of the main graph a name of its own; the same file always gets the same names."""
    for node, name in zip(model.graph.node, node_names(model.graph), strict=True):
        node.name = name


def node_names(graph: onnx.GraphProto) -> list[str]:
    """Return the name that `name_nodes` gives each node of a graph, in the graph's order."""
    names: dict[str, None] = {}
    for node in graph.node:
        name, number = label(node), 0
        while (made := f"{name}_{number}" if number else name) in names:
            number += 1
        names[made] = None
    return list(names)


def _not_onnx(path: Path, why: str, remedy: str) -> ModelError:
    return ModelError("not an ONNX model", where=path.name, why=why, remedy=remedy, reason="NotOnnx")
