"""Weights that several sessions of ONNX Runtime share, so that sessions and models have no copies."""

from collections.abc import Collection
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, numpy_helper

__all__ = ["detach_weights"]

# Smaller weights hold shapes and axes, which ONNX Runtime reads from the model.
_SHARED_BYTES: Final = 1 << 10
_SHARED_TYPES: Final = frozenset(
    {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8}
)


def detach_weights(
    model: onnx.ModelProto, kept: Collection[str] = ()
) -> tuple[onnx.ModelProto, dict[str, ort.OrtValue]]:
    """Remove large weights from a model.

    Args:
        model: Model, which must not be used afterwards. External weights stay in their files.
        kept: Names of weights that stay in the model.

    Returns:
        The model, and the weights by name, for `SessionOptions.add_external_initializers`.
    """
    found = {}
    for tensor in model.graph.initializer:
        is_large = tensor.data_location != TensorProto.EXTERNAL and tensor.ByteSize() >= _SHARED_BYTES
        if not is_large or tensor.data_type not in _SHARED_TYPES or tensor.name in kept:
            continue
        array = numpy_helper.to_array(tensor)
        found[tensor.name] = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
        name, dtype, dims = tensor.name, tensor.data_type, list(tensor.dims)
        tensor.Clear()
        tensor.name, tensor.data_type, tensor.data_location = name, dtype, TensorProto.EXTERNAL
        tensor.dims.extend(dims)
        for key, value in (("location", "shared"), ("offset", "0"), ("length", str(array.nbytes))):
            tensor.external_data.add(key=key, value=value)
    # A message keeps the memory of removed data, so copy the rest.
    light = onnx.ModelProto()
    light.CopyFrom(model)
    return light, found
