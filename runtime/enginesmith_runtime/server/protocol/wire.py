"""The raw tensors of a message without a copy.

A protobuf library copies `raw_input_contents` into the message and again out of it. For a request of several megabytes
these copies are most of the cost. So this module parses the top level of the message: raw fields become views into the
received bytes, and the library parses everything else. For the wire format see
https://protobuf.dev/programming-guides/encoding/.
"""

from collections.abc import Sequence
from typing import NamedTuple

from enginesmith_runtime.server.errors import Code, ProtocolError

__all__ = ["SplitRequest", "id_prefix", "join_raw_outputs", "raw_output_prefix", "split_request", "wrap_message"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_ID_TAG = 3 << 3 | _BYTES
"""Tag of the id in a request and in its response."""

_RAW_INPUT_TAG = 7 << 3 | _BYTES
_RAW_OUTPUT_TAG = bytes([6 << 3 | _BYTES])
_MAX_VARINT_BYTES = 10
_LAST_BYTE = 0x7F
"""Largest byte of a varint without the continuation bit."""

Buffer = bytes | memoryview


class SplitRequest(NamedTuple):
    """The parts of a ModelInferRequest.

    Attributes:
        head: Bytes of all other fields.
        raw: Raw contents, as views into the request.
        request_id: Id as a view into the request; None if the request has no id.
    """

    head: bytes
    raw: list[memoryview]
    request_id: memoryview | None

    @property
    def id_field(self) -> bytes:
        """Return the serialised field `id` of the response, or b"" if the request has no id.

        Raises:
            ProtocolError: INVALID_ARGUMENT if the id is not valid UTF-8.
        """
        if self.request_id is None:
            return b""
        text = bytes(self.request_id)
        try:
            text.decode()
        except UnicodeDecodeError:
            raise _malformed() from None
        return id_prefix(len(text)) + text


def split_request(data: Buffer) -> SplitRequest:
    """Return the parts of a ModelInferRequest.

    Raises:
        ProtocolError: INVALID_ARGUMENT if the bytes are cut off or have an unknown wire type.
    """
    view, end = memoryview(data), len(data)
    kept: list[memoryview] = []
    raw: list[memoryview] = []
    request_id: memoryview | None = None
    position = start = 0
    while position < end:
        tag_at = position
        # Tags and most sizes are single bytes. Reading them here halves the time for a small request.
        tag = data[position]
        if tag > _LAST_BYTE:
            tag, position = _varint(data, position)
        else:
            position += 1
        if tag & 7 != _BYTES:
            position = _skip(data, position, tag & 7)
            continue
        size, position = _varint(data, position)
        position += size
        if position > end:
            raise _malformed()
        if tag == _RAW_INPUT_TAG:
            kept.append(view[start:tag_at])
            raw.append(view[position - size : position])
            start = position
        elif tag == _ID_TAG:
            kept.append(view[start:tag_at])
            # The last id applies, and an empty id counts as missing.
            request_id = view[position - size : position] if size else None
            start = position
    if not kept:
        return SplitRequest(bytes(data), raw, None)
    kept.append(view[start:])
    return SplitRequest(b"".join(kept), raw, request_id)


def id_prefix(size: int) -> bytes:
    """Return the bytes before an id of `size` bytes, in a request and in its response."""
    return bytes([_ID_TAG]) + _encode_varint(size)


def join_raw_outputs(head: bytes, raw: Sequence[Buffer]) -> bytes:
    """Return a serialised ModelInferResponse with `raw` appended as its raw_output_contents."""
    parts: list[Buffer] = [head]
    for content in raw:
        parts += (raw_output_prefix(len(content)), content)
    return b"".join(parts)


def raw_output_prefix(size: int) -> bytes:
    """Return the bytes before an output's raw contents of `size` bytes."""
    return _RAW_OUTPUT_TAG + _encode_varint(size)


def wrap_message(number: int, body: bytes) -> bytes:
    """Return a message whose field `number` is the message `body`."""
    return b"".join((_encode_varint(number << 3 | _BYTES), _encode_varint(len(body)), body))


def _skip(data: Buffer, position: int, wire_type: int) -> int:
    match wire_type:
        case 0:
            _, position = _varint(data, position)
        case 1:
            position += 8
        case 5:
            position += 4
        case _:
            raise _malformed()
    if position > len(data):
        raise _malformed()
    return position


def _varint(data: Buffer, position: int) -> tuple[int, int]:
    value = 0
    for shift, byte in enumerate(data[position : position + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * shift
        if byte <= _LAST_BYTE:
            return value, position + shift + 1
    raise _malformed()


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > _LAST_BYTE:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _malformed() -> ProtocolError:
    return ProtocolError(Code.INVALID_ARGUMENT, "the bytes are no ModelInferRequest: the message is cut off or garbled")
