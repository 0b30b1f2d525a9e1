"""Converts the raw or typed contents of a request to arrays, and checks the number of bytes."""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from enginesmith_contract.protos.inference_pb2 import InferTensorContents, ModelInferRequest
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.engines.interface import Array, Instance
from enginesmith_runtime.server.protocol.tensor_headers import InputHeader, invalid, quoted

__all__ = [
    "TYPED_FIELDS",
    "align",
    "check_values",
    "read_raw",
    "read_strings",
    "read_typed",
    "refuse_typed",
]

_SMALL_BYTES: Final = 4096
"""Size up to which an avoidable copy of a tensor costs less than a request for the instance's memory."""

TYPED_FIELDS: Final[Mapping[DType, str]] = {
    DType.BOOL: "bool_contents",
    DType.INT8: "int_contents",
    DType.INT16: "int_contents",
    DType.INT32: "int_contents",
    DType.INT64: "int64_contents",
    DType.UINT8: "uint_contents",
    DType.UINT16: "uint_contents",
    DType.UINT32: "uint_contents",
    DType.UINT64: "uint64_contents",
    DType.FP32: "fp32_contents",
    DType.FP64: "fp64_contents",
    DType.BYTES: "bytes_contents",
}
"""Field of InferTensorContents for each datatype. FP16 and BF16 have no field."""

_WIDE: Final[Mapping[str, "np.dtype[np.generic]"]] = {
    "int_contents": np.dtype(np.int32),
    "uint_contents": np.dtype(np.uint32),
}
"""Datatypes of fields that also contain narrower datatypes, since protobuf has no integers of 8 and 16 bits."""

_LENGTH: Final = struct.Struct("<I")


def read_raw(headers: Sequence[InputHeader], raw: Sequence[memoryview]) -> dict[str, Array]:
    """Return an array for each input, from the raw contents in the same order.

    Args:
        headers: Headers of the inputs that are not in shared memory.
        raw: Raw contents of these inputs.

    Returns:
        C-contiguous, read-only arrays that may be views of `raw`. A view may not be aligned to its element size.

    Raises:
        ProtocolError: INVALID_ARGUMENT naming the input.
    """
    if len(raw) != len(headers):
        raise invalid(
            f"raw_input_contents has {len(raw)} entries for {len(headers)} inputs; it needs one for each, or none "
            "where contents are typed"
        )
    return {
        header.spec.name: _from_raw(content, header.spec, header.shape)
        for header, content in zip(headers, raw, strict=True)
    }


def read_typed(request: ModelInferRequest, headers: Sequence[InputHeader]) -> dict[str, Array]:
    """Return an array for each input that is not in shared memory, from the typed contents.

    Raises:
        ProtocolError: INVALID_ARGUMENT naming the input.
    """
    return {
        header.spec.name: _from_typed(tensor.contents, header.spec, header.shape)
        for tensor, header in zip(request.inputs, headers, strict=True)
        if header.place is None
    }


def read_strings(content: memoryview, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    """Return the BYTES tensor in `content`, which has a length before each element.

    Raises:
        ProtocolError: INVALID_ARGUMENT naming the input.
    """
    return _strings(_split_strings(content, spec, math.prod(shape)), shape)


def check_values(array: Array, spec: TensorSpec) -> None:
    """Refuse bytes that are not values of the datatype.

    Raises:
        ProtocolError: INVALID_ARGUMENT naming the input.
    """
    if spec.dtype is DType.BOOL and array.view(np.uint8).max(initial=0) > 1:
        raise invalid(f"input '{spec.name}': BOOL contents hold a byte that is neither 0 nor 1")


def refuse_typed(request: ModelInferRequest, headers: Sequence[InputHeader], *, raw: bool) -> None:
    """Refuse typed contents of an input that also has other contents.

    Raises:
        ProtocolError: INVALID_ARGUMENT naming the first such input.
    """
    for tensor, header in zip(request.inputs, headers, strict=True):
        if tensor.HasField("contents") and (raw or header.place is not None):
            other = "raw_input_contents" if header.place is None else f"region '{header.place.region}'"
            raise invalid(f"input '{tensor.name}' has typed contents and also {other}; use one of them")


def _from_raw(content: memoryview, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    count = math.prod(shape)
    if spec.dtype is DType.BYTES:
        return read_strings(content, spec, shape)
    wanted = count * spec.dtype.numpy.itemsize
    if len(content) != wanted:
        raise invalid(
            f"input '{spec.name}': {len(content)} bytes of raw contents, but {spec.dtype} {list(shape)} takes {wanted}"
        )
    array = np.frombuffer(content, dtype=spec.dtype.numpy).reshape(shape)
    check_values(array, spec)
    return array


def _split_strings(content: memoryview, spec: TensorSpec, count: int) -> list[bytes]:
    strings: list[bytes] = []
    position, end = 0, len(content)
    while position < end:
        start = position + _LENGTH.size
        position = start + _LENGTH.unpack_from(content, position)[0] if start <= end else end + 1
        if position > end:
            raise invalid(f"input '{spec.name}': element {len(strings)} of the BYTES contents is cut off")
        strings.append(bytes(content[start:position]))
    if len(strings) != count:
        raise invalid(f"input '{spec.name}': {len(strings)} BYTES elements, but the shape takes {count}")
    return strings


def _from_typed(contents: InferTensorContents, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    field = TYPED_FIELDS.get(spec.dtype)
    if field is None:
        raise invalid(f"input '{spec.name}': {spec.dtype} can only be sent in raw_input_contents")
    present = [descriptor.name for descriptor, _ in contents.ListFields()]
    if any(name != field for name in present):
        raise invalid(f"input '{spec.name}': {spec.dtype} belongs in {field}, the request has {quoted(present)}")
    values = getattr(contents, field)
    count = math.prod(shape)
    if len(values) != count:
        raise invalid(f"input '{spec.name}': {len(values)} elements in {field}, but the shape takes {count}")
    if spec.dtype is DType.BYTES:
        return _strings(list(values), shape)
    array = np.array(values, dtype=_WIDE.get(field, spec.dtype.numpy))
    if array.dtype != spec.dtype.numpy:
        _check_range(array, spec, field)
    return array.astype(spec.dtype.numpy, copy=False).reshape(shape)


def _check_range(array: Array, spec: TensorSpec, field: str) -> None:
    """Refuse a value that the datatype cannot hold: numpy would wrap it around."""
    bounds, values = np.iinfo(spec.dtype.numpy.name), array.astype(np.int64)
    outside = (values < bounds.min) | (values > bounds.max)
    if outside.any():
        index = int(outside.argmax())
        raise invalid(
            f"input '{spec.name}': element {index} of {field} is {values[index]}, and {spec.dtype} holds "
            f"{bounds.min} to {bounds.max}"
        )


def _strings(values: list[bytes], shape: tuple[int, ...]) -> Array:
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array.reshape(shape)


def align(array: Array, name: str, instance: Instance) -> Array:
    """Return `array`, or a copy if its address is not a multiple of the element size.

    The copy is in the instance's memory, to which an engine on a GPU would copy it anyway.
    """
    if array.flags.aligned:
        return array
    if array.nbytes <= _SMALL_BYTES:
        return array.copy()
    staged = instance.staging(name, array.shape)
    # Copy bytes: numpy then releases the interpreter's lock.
    staged.reshape(-1).view(np.uint8)[:] = array.reshape(-1).view(np.uint8)
    return staged
