"""Tensors as the Open Inference Protocol names them, and what an ONNX model says about its own."""

from enum import StrEnum
from typing import Final

import numpy as np

from enginesmith_contract.record import Record

__all__ = ["DTYPE_BYTES", "DType", "ModelFacts", "TensorSpec"]


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
    """One input or output.

    Attributes:
        name: as in the ONNX graph.
        dtype: as clients send it.
        shape: by dimension; -1 where the model leaves a dimension open.
        symbols: the model's own name of each open dimension, None where it has none or the dimension is fixed. Two
            inputs with one symbol must agree on its value.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    symbols: tuple[str | None, ...] = ()

    @property
    def is_dynamic(self) -> bool:
        """Whether a profile must say what the open dimensions may be."""
        return any(dimension < 0 for dimension in self.shape)


class ModelFacts(Record):
    """What is known of a model without running it.

    Attributes:
        inputs: what clients send, in the graph's order.
        outputs: what they get, in the graph's order.
        opset: version of the default ONNX operator set.
        producer: what wrote the file, as it says itself ("PaddlePaddle", "pytorch 2.9").
        size_bytes: the file and its external weights.
        shape_inputs: names of integer inputs whose values are sizes or shapes; TensorRT needs a range of them.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    producer: str = ""
    size_bytes: int
    shape_inputs: tuple[str, ...] = ()
