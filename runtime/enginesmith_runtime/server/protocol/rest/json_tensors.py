"""Converts tensors in JSON to raw contents and back. Lists are flat or nested. FP16 and BF16 have no JSON."""

import json
import math
import struct
import sys
from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

import numpy as np

from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.engines.interface import Array
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.protocol.tensor_headers import invalid

__all__ = ["has_json", "read_data", "write_data"]

_ELEMENTS: Final[Mapping[str, tuple[type, ...]]] = {
    "b": (bool,),
    "i": (int,),
    "u": (int,),
    "f": (float, int),
    "O": (str,),
}
"""Types of JSON values, by the numpy kind of the datatype."""

_SHOWN: Final = 40
"""Number of characters of an invalid element in a message."""

_WANTED: Final = {"b": "true or false", "i": "a whole number", "u": "a whole number", "f": "a number", "O": "a string"}


def has_json(dtype: DType) -> bool:
    """Whether JSON can represent the datatype, as typed contents can."""
    return dtype not in (DType.FP16, DType.BF16)


def read_data(data: object, spec: TensorSpec, shape: tuple[int, ...]) -> memoryview:
    """Return the raw contents of an input whose `data` is JSON.

    Raises:
        ProtocolError: INVALID_ARGUMENT with the input and, for an invalid element, its index and value.
    """
    if not has_json(spec.dtype):
        raise invalid(f"input '{spec.name}': {spec.dtype} can only be sent as binary data (binary_data_size)")
    values = _flatten(data, spec, shape)
    kind = spec.dtype.numpy.kind
    # Python creates a set of types in C. Elements are checked one by one only if a type is wrong.
    if not set(map(type, values)) <= set(_ELEMENTS[kind]):
        index = next(index for index, value in enumerate(values) if type(value) not in _ELEMENTS[kind])
        raise _element(spec, index, values[index], f"{spec.dtype} takes {_WANTED[kind]}")
    if kind == "O":
        return memoryview(_join(values, spec))
    return memoryview(_numbers(values, spec).view(np.uint8).data)


def write_data(array: Array, spec: TensorSpec) -> list[Any]:
    """Return an output's elements, flat and in order.

    Raises:
        ProtocolError: INVALID_ARGUMENT if JSON cannot represent a value. The client must request binary data.
    """
    values: list[Any] = array.ravel().tolist()
    if spec.dtype is DType.BYTES:
        try:
            return [value.decode() for value in values]
        except UnicodeDecodeError:
            raise _unwritable(spec, "has an element that is not valid UTF-8") from None
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        index = int(np.argmin(np.isfinite(array.ravel())))
        raise _unwritable(spec, f"element {index} is {values[index]}")
    return values


def _flatten(data: object, spec: TensorSpec, shape: tuple[int, ...]) -> list[Any]:
    if not isinstance(data, list):
        raise invalid(f"input '{spec.name}': 'data' is not a list")
    level: list[Any] = data
    if any(isinstance(one, list) for one in data):
        for depth, size in enumerate(shape[:-1]):
            _check_lists(level, spec, shape, depth)
            if depth == 0 and len(level) != size:
                raise invalid(f"input '{spec.name}': data has {len(level)} lists, but shape {list(shape)} takes {size}")
            for index, one in enumerate(level):
                if len(one) != shape[depth + 1]:
                    raise invalid(
                        f"input '{spec.name}': list {index} at depth {depth + 1} of data has {len(one)} elements, but "
                        f"shape {list(shape)} takes {shape[depth + 1]}"
                    )
            level = list(chain.from_iterable(level))
    count = math.prod(shape)
    if len(level) != count:
        raise invalid(f"input '{spec.name}': {len(level)} elements of data, but the shape takes {count}")
    return level


def _check_lists(level: list[Any], spec: TensorSpec, shape: tuple[int, ...], depth: int) -> None:
    for index, one in enumerate(level):
        if not isinstance(one, list):
            raise invalid(
                f"input '{spec.name}': element {index} at depth {depth + 1} of data is not a list; data is flat, or "
                f"nested as shape {list(shape)}"
            )


def _numbers(values: list[Any], spec: TensorSpec) -> Array:
    dtype = spec.dtype.numpy
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype.name)
        if values and not (bounds.min <= min(values) and max(values) <= bounds.max):
            index = next(at for at, value in enumerate(values) if not bounds.min <= value <= bounds.max)
            raise _element(spec, index, values[index], f"{spec.dtype} holds {bounds.min} to {bounds.max}")
        return np.array(values, dtype)
    if dtype.kind == "b":
        return np.array(values, dtype)
    try:
        doubles = np.array(values, np.float64)
    except OverflowError:
        index = next(at for at, value in enumerate(values) if abs(value) > sys.float_info.max)
        raise _element(spec, index, values[index], f"{spec.dtype} does not hold it") from None
    with np.errstate(over="ignore"):
        array = doubles.astype(dtype)
    if not np.isfinite(array).all():
        index = int(np.argmin(np.isfinite(array)))
        raise _element(spec, index, values[index], f"{spec.dtype} in JSON takes finite numbers that it holds")
    return array


def _join(values: list[str], spec: TensorSpec) -> bytes:
    parts: list[bytes] = []
    for index, value in enumerate(values):
        try:
            encoded = value.encode()
        except UnicodeEncodeError:
            raise _element(spec, index, value, "it is not valid text: half of a surrogate pair") from None
        parts += (struct.pack("<I", len(encoded)), encoded)
    return b"".join(parts)


def _element(spec: TensorSpec, index: int, value: object, why: str) -> ProtocolError:
    shown = json.dumps(value)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    return invalid(f"input '{spec.name}': element {index} of data is {shown}, and {why}")


def _unwritable(spec: TensorSpec, why: str) -> ProtocolError:
    return ProtocolError(
        Code.INVALID_ARGUMENT,
        f"output '{spec.name}': {why}, and JSON has no such value; ask for the output with binary_data",
        reason="NotInJson",
    )
