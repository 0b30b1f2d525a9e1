"""Moves weights of inner graphs (the branches of If, the body of Loop) into an engine's ONNX file.

ONNX Runtime checks these weights with the rules of onnx, which refuse links. The files of a store are links.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["inline_inner_weights"]


def inline_inner_weights(engine: Path) -> None:
    """Rewrite the ONNX file `engine` if an inner graph has weights in the weights file next to it."""
    import onnx
    from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

    model = onnx.load(str(engine), load_external_data=False)
    outside = [
        tensor
        for graph in _inner_graphs(model.graph)
        for tensor in (*graph.initializer, *_values(graph))
        if uses_external_data(tensor)
    ]
    if not outside:
        return
    for tensor in outside:
        load_external_data_for_tensor(tensor, str(engine.parent))
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
    engine.write_bytes(model.SerializeToString())


def _inner_graphs(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield inner
                yield from _inner_graphs(inner)


def _values(graph: Any) -> Iterator[Any]:
    return (attribute.t for node in graph.node for attribute in node.attribute if attribute.HasField("t"))
