"""Output tensors: from arrays to a serialised ModelInferResponse, copied once."""

import struct
from collections.abc import Mapping, Sequence

import numpy as np

from enginesmith_contract.protos.inference_pb2 import InferParameter, ModelInferResponse
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.engines.interface import Array
from enginesmith_runtime.server.protocol.tensor_decoding import TYPED_FIELDS
from enginesmith_runtime.server.protocol.wire import join_raw_outputs

__all__ = ["encode_response", "string_parameters"]


def encode_response(
    response: ModelInferResponse, outputs: Mapping[str, Array], specs: Sequence[TensorSpec], *, typed: bool
) -> bytes:
    """Return the response with its outputs.

    Args:
        response: everything but the outputs.
        outputs: arrays by name.
        specs: the outputs that were asked for, in order.
        typed: answer in typed contents, as the request came; raw all the same where an output's datatype has none.
    """
    typed = typed and all(spec.dtype in TYPED_FIELDS for spec in specs)
    raw: list[bytes | memoryview] = []
    for spec in specs:
        array = outputs[spec.name]
        tensor = response.outputs.add(name=spec.name, datatype=spec.dtype.value, shape=array.shape)
        if typed:
            getattr(tensor.contents, TYPED_FIELDS[spec.dtype]).extend(array.ravel().tolist())
        elif spec.dtype is DType.BYTES:
            raw.append(_join_strings(array))
        else:
            # A flat view of bytes: memoryview.cast refuses empty arrays.
            raw.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return join_raw_outputs(response.SerializeToString(), raw)


def string_parameters(values: Mapping[str, str]) -> dict[str, InferParameter]:
    """Return `values` as parameters of a message."""
    return {name: InferParameter(string_param=value) for name, value in values.items()}


def _join_strings(array: Array) -> bytes:
    parts: list[bytes] = []
    strings: list[bytes] = array.ravel().tolist()
    for value in strings:
        parts += (struct.pack("<I", len(value)), value)
    return b"".join(parts)
