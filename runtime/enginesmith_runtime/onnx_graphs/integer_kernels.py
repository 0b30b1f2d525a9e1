"""Operators of ONNX and ONNX Runtime that compute in 8 bits as they are written."""

from typing import Final

import onnx

from enginesmith_runtime.onnx_graphs.graph import all_nodes

__all__ = ["has_integer_kernels"]

_OPERATORS: Final = frozenset(
    {
        "ConvInteger", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QAttention", "QGemm",
        "QLinearConv", "QLinearMatMul",
    }
)  # fmt: skip


def has_integer_kernels(model: onnx.ModelProto) -> bool:
    """Return whether the graph, or a graph inside it, has such an operator."""
    return any(node.op_type in _OPERATORS for node in all_nodes(model.graph))
