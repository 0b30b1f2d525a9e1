"""Tensors in the terms of the Open Inference Protocol, and the facts that an ONNX model states about its tensors."""

from enum import StrEnum
from typing import Final

import numpy as np

from enginesmith_contract.record import Record

__all__ = ["DTYPE_BYTES", "DType", "ExpectedDifference", "ModelFacts", "TensorSpec"]


class DType(StrEnum):
    """A tensor's datatype as clients spell it (Open Inference Protocol, "Tensor Data Types"; BF16 is Triton's)."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    BF16 = "BF16"
    BYTES = "BYTES"

    @property
    def numpy(self) -> "np.dtype[np.generic]":
        """Return the numpy dtype that holds it; BYTES is an object array, BF16 its raw uint16 bits."""
        return _NUMPY[self]

    @property
    def item_bytes(self) -> int | None:
        """Return the size of one element in bytes, or None where elements vary in size (BYTES)."""
        return DTYPE_BYTES[self]


_NUMPY: Final[dict[DType, "np.dtype[np.generic]"]] = {
    DType.BOOL: np.dtype(np.bool_),
    DType.UINT8: np.dtype(np.uint8),
    DType.UINT16: np.dtype(np.uint16),
    DType.UINT32: np.dtype(np.uint32),
    DType.UINT64: np.dtype(np.uint64),
    DType.INT8: np.dtype(np.int8),
    DType.INT16: np.dtype(np.int16),
    DType.INT32: np.dtype(np.int32),
    DType.INT64: np.dtype(np.int64),
    DType.FP16: np.dtype(np.float16),
    DType.FP32: np.dtype(np.float32),
    DType.FP64: np.dtype(np.float64),
    DType.BF16: np.dtype(np.uint16),
    DType.BYTES: np.dtype(np.object_),
}

DTYPE_BYTES: Final[dict[DType, int | None]] = {
    dtype: None if dtype is DType.BYTES else _NUMPY[dtype].itemsize for dtype in DType
}


class TensorSpec(Record):
    """One input or output of a model.

    Attributes:
        name: Name of the tensor in the ONNX graph.
        dtype: Datatype as clients send or receive it.
        shape: Size of each dimension; -1 for a dimension that the model leaves open.
        symbols: Name that the model gives to each open dimension. A dimension that is fixed or unnamed has no name.
            Dimensions with the same name must have the same size.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    symbols: tuple[str | None, ...] = ()

    @property
    def is_dynamic(self) -> bool:
        """Whether a profile must give the sizes of the open dimensions."""
        return any(dimension < 0 for dimension in self.shape)

    def symbol(self, axis: int) -> str | None:
        """Return the name that the model gives to a dimension, or None if it has no name."""
        return self.symbols[axis] if axis < len(self.symbols) else None


class ExpectedDifference(Record):
    """Difference of one output that was seen on a CPU, in the arithmetic that engines of the model have.

    Attributes:
        output: Name of the output.
        difference: Ratio max|a-b| / max|b| over the reference runs; 1000000 if there is NaN or infinity.
        limit: Largest ratio that passes if the spec names none.
    """

    output: str
    difference: float
    limit: float


class ModelFacts(Record):
    """Facts about a model that are known without running it.

    Attributes:
        inputs: Inputs that clients send, in the graph's order.
        outputs: Outputs that clients receive, in the graph's order.
        opset: Version of the default ONNX operator set.
        producer: Program that wrote the ONNX file, such as "PaddlePaddle" or "pytorch 2.9".
        size_bytes: Size of the ONNX file and its external weights in bytes.
        shape_inputs: Names of integer inputs whose values are sizes or shapes. TensorRT needs a value range for them.
        expected_differences: Largest differences that FP16 makes, computed on a CPU; None for other precisions.
        refused_nodes: Sentences about nodes that TensorRT does not support, each with its fix. ONNX Runtime supports
            them.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    producer: str = ""
    size_bytes: int
    shape_inputs: tuple[str, ...] = ()
    refused_nodes: tuple[str, ...] = ()
    expected_differences: tuple[ExpectedDifference, ...] | None = None
