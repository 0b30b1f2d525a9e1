"""The weights of layers, arranged by the elements of the result."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

__all__ = ["WINDOWS", "Columns", "LayerWeights"]

Columns = npt.NDArray[np.floating[Any]]

WINDOWS: Final = frozenset({"Conv", "ConvTranspose"})
_LAYERS: Final = WINDOWS | {"GRU", "Gemm", "LSTM", "MatMul", "RNN"}
_FLOATS: Final = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE})
_MATRIX_RANK: Final = 2


class LayerWeights:
    """The weights of one graph with initializers as its only constants. They are read when they are needed."""

    def __init__(self, graph: onnx.GraphProto, folder: Path) -> None:
        self._folder = folder
        self._tensors = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type in _FLOATS}
        self._turned: dict[str, str] = {}
        for node in graph.node:
            if node.op_type == "Transpose" and node.input[0] in self._tensors:
                self._turned[node.output[0]] = node.input[0]

    def is_layer(self, node: onnx.NodeProto) -> bool:
        """Whether a node sums its first input with constant weights."""
        known = node.op_type in _LAYERS and len(node.input) > 1
        return known and (node.input[1] in self._tensors or node.input[1] in self._turned)

    def columns(self, node: onnx.NodeProto) -> Columns | None:
        """Return the weights as [results, ...], one entry for each element of a result, or None for other forms.

        The other axes are [inputs] for matrices, and [channels of a group, ...] for windows; those of ConvTranspose are
        [channels, ...] for each channel of a group.
        """
        name = self._turned.get(node.input[1], node.input[1])
        values: Columns = numpy_helper.to_array(self._tensors[name], str(self._folder))
        if name != node.input[1] and values.ndim != _MATRIX_RANK:
            return None
        values = values if name == node.input[1] else values.T
        if node.op_type in {"GRU", "LSTM", "RNN"}:
            return values.reshape(-1, values.shape[-1])
        if node.op_type in WINDOWS:
            return values if node.op_type == "Conv" else np.swapaxes(values, 0, 1)
        if values.ndim != _MATRIX_RANK:
            return None
        return values if any(one.name == "transB" and one.i for one in node.attribute) else values.T
