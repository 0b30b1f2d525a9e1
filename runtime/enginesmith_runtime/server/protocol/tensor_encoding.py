"""Converts output arrays to the parts of a ModelInferResponse."""

import struct
from collections.abc import Mapping, Sequence

import numpy as np

from enginesmith_contract.protos.inference_pb2 import InferParameter, ModelInferResponse
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.engines.interface import Array, DeviceArray
from enginesmith_runtime.server.protocol.tensor_decoding import TYPED_FIELDS

__all__ = ["describe_outputs", "encode_tensor", "fill_typed", "on_host", "string_parameters"]


def encode_tensor(array: Array, spec: TensorSpec) -> bytes | memoryview:
    """Return a tensor's raw contents, as a view if it needs no conversion."""
    if spec.dtype is DType.BYTES:
        return _join_strings(array)
    # A flat view of bytes: memoryview.cast refuses empty arrays.
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def describe_outputs(
    response: ModelInferResponse, outputs: Mapping[str, Array | DeviceArray], specs: Sequence[TensorSpec]
) -> None:
    """Add the outputs' names, datatypes and shapes to `response`."""
    for spec in specs:
        response.outputs.add(name=spec.name, datatype=spec.dtype.value, shape=outputs[spec.name].shape)


def on_host(tensor: Array | DeviceArray) -> Array:
    """Return an output that is on the host, because the request has no device place for it."""
    assert not isinstance(tensor, DeviceArray)  # noqa: S101 - engines leave only requested outputs on a device
    return tensor


def fill_typed(response: ModelInferResponse, outputs: Mapping[str, Array | DeviceArray]) -> None:
    """Add typed contents to outputs that `describe_outputs` added."""
    for tensor in response.outputs:
        values = on_host(outputs[tensor.name]).ravel().tolist()
        getattr(tensor.contents, TYPED_FIELDS[DType(tensor.datatype)]).extend(values)


def string_parameters(values: Mapping[str, str]) -> dict[str, InferParameter]:
    """Return `values` as parameters of a message."""
    return {name: InferParameter(string_param=value) for name, value in values.items()}


def _join_strings(array: Array) -> bytes:
    parts: list[bytes] = []
    strings: list[bytes] = array.ravel().tolist()
    for value in strings:
        parts += (struct.pack("<I", len(value)), value)
    return b"".join(parts)
