"""Gives QuantizeLinear and DequantizeLinear of a quantised source the type of their neighbours.

The rules keep them in FP32, so that the scales from calibration do not change. But a Cast between DequantizeLinear and
its operator hides the pair from TensorRT: ResNet-50 in INT8 then takes twice as long. So if the type around a pair is
FP16 or BF16, its scale gets this type, unless the scale is too small for it.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from enginesmith_runtime.onnx_graphs.graph import all_nodes, fresh_name, is_onnx_domain
from enginesmith_runtime.onnx_graphs.narrow import Narrow

__all__ = ["OLDEST_OPSET", "take_casts_off_pairs"]

OLDEST_OPSET: Final = 19
"""First opset in which QuantizeLinear and DequantizeLinear support other scales than FP32."""


def take_casts_off_pairs(graph: onnx.GraphProto, half: frozenset[str], narrow: Narrow, folder: Path) -> frozenset[str]:
    """Remove the Casts after DequantizeLinear and before QuantizeLinear in place. Return the changed nodes.

    Args:
        graph: Graph after the cast.
        half: Values in FP16 or BF16.
        narrow: The 16-bit format.
        folder: Folder of the weights outside the ONNX file.
    """
    return _Pairs(graph, half, narrow, folder).rewrite()


class _Pairs:
    def __init__(self, graph: onnx.GraphProto, half: frozenset[str], narrow: Narrow, folder: Path) -> None:
        self._graph = graph
        self._half = half
        self._narrow = narrow
        self._folder = folder
        self._scales: Mapping[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self._casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
        self._readers: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in all_nodes(graph):
            for name in node.input:
                self._readers[name].append(node)
        self._outputs = {value.name for value in graph.output}
        self._taken = {tensor.name for tensor in graph.initializer} | self._readers.keys()
        self._taken |= {name for node in graph.node for name in node.output}
        self._twins: dict[str, str] = {}

    def rewrite(self) -> frozenset[str]:
        """Rewrite each node; see `take_casts_off_pairs`."""
        found: set[str] = set()
        new_names: dict[str, str] = {}
        for node in self._graph.node:
            if not is_onnx_domain(node.domain) or not self._has_room(node):
                continue
            if node.op_type == "DequantizeLinear" and (casts := self._casts_behind(node)):
                new_names |= {cast.output[0]: node.output[0] for cast in casts}
            elif node.op_type == "QuantizeLinear" and (source := self._cast_before(node)):
                node.input[0] = source
            else:
                continue
            node.input[1] = self._twin(node.input[1])
            found.add(node.name)
        for node in self._graph.node:
            for index, name in enumerate(node.input):
                node.input[index] = new_names.get(name, name)
        self._drop_unread(new_names)
        return frozenset(found)

    def _has_room(self, node: onnx.NodeProto) -> bool:
        """Whether the node's scale is an FP32 constant in the normal range of the format."""
        tensor = self._scales.get(node.input[1]) if len(node.input) > 1 else None
        if tensor is None or tensor.data_type != TensorProto.FLOAT:
            return False
        magnitudes = np.abs(numpy_helper.to_array(tensor, str(self._folder)))
        return bool(np.all((magnitudes >= self._narrow.tiny) & (magnitudes <= self._narrow.largest)))

    def _casts_behind(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Return the Casts to the format that read the node, or nothing if there is another reader."""
        name = node.output[0]
        readers = self._readers[name]
        own = [one for one in readers if one.op_type == "Cast" and one.output[0] in self._half]
        free = name not in self._outputs and self._outputs.isdisjoint(one.output[0] for one in own)
        return own if free and len(own) == len(readers) else []

    def _cast_before(self, node: onnx.NodeProto) -> str:
        """Return the value in the format that a Cast converts to FP32 for the node, or "" if there is none."""
        cast = self._casts.get(node.input[0])
        return cast.input[0] if cast is not None and cast.input[0] in self._half else ""

    def _twin(self, name: str) -> str:
        if name not in self._twins:
            self._twins[name] = fresh_name(f"{name}_{self._narrow.title.lower()}", self._taken)
            array = numpy_helper.to_array(self._scales[name], str(self._folder)).astype(self._narrow.numpy)
            self._graph.initializer.append(numpy_helper.from_array(array, self._twins[name]))
        return self._twins[name]

    def _drop_unread(self, replaced: Mapping[str, str]) -> None:
        read = {name for node in all_nodes(self._graph) for name in node.input} | self._outputs
        for index in reversed(range(len(self._graph.node))):
            node = self._graph.node[index]
            is_ours = node.op_type == "Cast" and (node.output[0] in replaced or node.input[0] in self._half)
            if is_ours and node.output[0] not in read:
                del self._graph.node[index]
        for index in reversed(range(len(self._graph.initializer))):
            name = self._graph.initializer[index].name
            if name in self._twins and name not in read:
                del self._graph.initializer[index]
