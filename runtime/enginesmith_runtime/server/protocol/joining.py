"""Joins several requests into one inference: which may be joined, the joined inputs, and the rows of the outputs."""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from enginesmith_runtime.engines.interface import Array, DeviceArray, Instance
from enginesmith_runtime.server.errors import ProtocolError
from enginesmith_runtime.server.model import LoadedModel
from enginesmith_runtime.server.protocol.tensor_headers import InputHeader

__all__ = ["JoinTerms", "RowBytes", "join_inputs", "join_terms", "rows_of"]


class JoinTerms(NamedTuple):
    """Which other requests a request may be joined with.

    Attributes:
        key: Equal for requests that differ only in their rows; None if the request runs alone.
        most_rows: Largest number of rows of a batch with this request.
    """

    key: Hashable
    most_rows: int


_ALONE = JoinTerms(None, 1)


def join_terms(model: LoadedModel, headers: Sequence[InputHeader], outputs: Sequence[str]) -> JoinTerms:
    """Return which requests a checked request may be joined with.

    Args:
        model: Model of the request.
        headers: Headers of its inputs. None of the inputs is in shared memory.
        outputs: Names of the requested outputs. None of them is written to shared memory.
    """
    if model.why_not_joined or len({header.shape[0] for header in headers}) != 1:
        return _ALONE
    rows = headers[0].shape[0]
    shapes = {header.spec.name: header.shape for header in headers}
    most = min(model.profiles.most_rows(shapes), model.most_joined_rows)
    if not 0 < rows < most:
        return _ALONE
    try:
        # The model may use one symbol for the rows and another dimension.
        model.profiles.choose({name: (most, *shape[1:]) for name, shape in shapes.items()})
    except ProtocolError:
        return _ALONE
    # A string caches its hash, and the queue looks the key up several times for each request.
    return JoinTerms(repr((*outputs, *sorted((name, shape[1:]) for name, shape in shapes.items()))), most)


def join_inputs(parts: Sequence[Mapping[str, Array]], instance: Instance) -> dict[str, Array | DeviceArray]:
    """Return each input with the rows of all parts, in memory of the instance.

    Raises:
        enginesmith_contract.errors.InferenceError: `RequestTooLarge` if the memory of the instance is too small.
    """
    joined: dict[str, Array | DeviceArray] = {}
    for name, first in parts[0].items():
        arrays = [part[name] for part in parts]
        rows = sum([len(array) for array in arrays])
        staged = instance.staging(name, (rows, *first.shape[1:]))
        if first.dtype == np.object_:
            np.concatenate(arrays, out=staged)
        else:
            # Copy bytes: views of messages may be unaligned, and numpy would copy them element by element.
            np.concatenate([_bytes_of(array) for array in arrays], out=_bytes_of(staged))
        joined[name] = staged
    return joined


class RowBytes:
    """The outputs of a joined run as bytes. Each request gets its rows of them.

    Attributes:
        tails: Shapes of the outputs without the first dimension.
        outputs: Bytes of each output, and the number of bytes of a row.
    """

    __slots__ = ("outputs", "tails")

    def __init__(self, arrays: Sequence[Array]) -> None:
        self.tails = [array.shape[1:] for array in arrays]
        # The bytes of a BYTES array are not its elements. The caller never uses them.
        texts = any(array.dtype.hasobject for array in arrays)
        self.outputs = (
            []
            if texts
            else [(_bytes_of(np.ascontiguousarray(array)).data, array.nbytes // len(array)) for array in arrays]
        )


def rows_of(outputs: Mapping[str, Array], start: int, count: int) -> dict[str, Array | DeviceArray]:
    """Return `count` rows of each output, beginning with row `start`, as views."""
    return {name: array[start : start + count] for name, array in outputs.items()}


def _bytes_of(array: Array) -> Array:
    return array.reshape(-1).view(np.uint8)
