"""Several requests as one inference: which may be joined, their inputs in one buffer, the rows of the outputs."""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from enginesmith_runtime.engines.interface import Array, DeviceArray, Instance
from enginesmith_runtime.server.errors import ProtocolError
from enginesmith_runtime.server.model import LoadedModel
from enginesmith_runtime.server.protocol.tensor_headers import InputHeader

__all__ = ["JoinTerms", "RowBytes", "join_inputs", "join_terms", "rows_of"]


class JoinTerms(NamedTuple):
    """With what a request may be joined.

    Attributes:
        key: equal for requests that differ in their rows only; None: the request runs alone.
        most_rows: of a batch that it is in.
    """

    key: Hashable
    most_rows: int


_ALONE = JoinTerms(None, 1)


def join_terms(model: LoadedModel, headers: Sequence[InputHeader], outputs: Sequence[str]) -> JoinTerms:
    """Return with what a checked request may be joined.

    Args:
        model: that it is for.
        headers: of its inputs, none of which lies in shared memory.
        outputs: names of those that it asks for; none is left in shared memory.
    """
    if model.why_not_joined or len({header.shape[0] for header in headers}) != 1:
        return _ALONE
    rows = headers[0].shape[0]
    shapes = {header.spec.name: header.shape for header in headers}
    most = min(model.profiles.most_rows(shapes), model.most_joined_rows)
    if not 0 < rows < most:
        return _ALONE
    try:
        # The model may call the rows and another dimension alike.
        model.profiles.choose({name: (most, *shape[1:]) for name, shape in shapes.items()})
    except ProtocolError:
        return _ALONE
    # As text, which keeps its hash: the queue looks it up several times for each request.
    return JoinTerms(repr((*outputs, *sorted((name, shape[1:]) for name, shape in shapes.items()))), most)


def join_inputs(parts: Sequence[Mapping[str, Array]], instance: Instance) -> dict[str, Array | DeviceArray]:
    """Return each input with the rows of all parts, in the instance's own memory.

    Raises:
        enginesmith_contract.errors.InferenceError: `RequestTooLarge`: the instance's memory holds less.
    """
    joined: dict[str, Array | DeviceArray] = {}
    for name, first in parts[0].items():
        arrays = [part[name] for part in parts]
        rows = sum([len(array) for array in arrays])
        staged = instance.staging(name, (rows, *first.shape[1:]))
        if first.dtype == np.object_:
            np.concatenate(arrays, out=staged)
        else:
            # As bytes: arrays that are views of messages may be unaligned, which numpy would copy element by element.
            np.concatenate([_bytes_of(array) for array in arrays], out=_bytes_of(staged))
        joined[name] = staged
    return joined


class RowBytes:
    """The outputs of a joined run as bytes, of which each request gets its rows.

    Attributes:
        tails: shapes of the outputs without their rows.
        outputs: bytes of each output, and how many of them are a row.
    """

    __slots__ = ("outputs", "tails")

    def __init__(self, arrays: Sequence[Array]) -> None:
        self.tails = [array.shape[1:] for array in arrays]
        # Elements of BYTES are no bytes of the array; nothing asks for those.
        texts = any(array.dtype.hasobject for array in arrays)
        self.outputs = (
            []
            if texts
            else [(_bytes_of(np.ascontiguousarray(array)).data, array.nbytes // len(array)) for array in arrays]
        )


def rows_of(outputs: Mapping[str, Array], start: int, count: int) -> dict[str, Array | DeviceArray]:
    """Return `count` rows of each output from row `start` on, as views."""
    return {name: array[start : start + count] for name, array in outputs.items()}


def _bytes_of(array: Array) -> Array:
    return array.reshape(-1).view(np.uint8)
