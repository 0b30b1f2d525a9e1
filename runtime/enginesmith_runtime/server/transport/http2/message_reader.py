"""gRPC's messages, put together from the DATA frames of a stream: a byte of flags, four of length, the message."""

import zlib
from struct import Struct
from typing import Final

import numpy as np

from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.transport.compression import WINDOW_BITS, decompress
from enginesmith_runtime.server.transport.interface import Body

__all__ = ["PREFIX", "PREFIX_BYTES", "MessageReader", "inflate"]

PREFIX: Final = Struct(">BI")
"""Before each message: flags and length."""

PREFIX_BYTES: Final = PREFIX.size

_IDENTITY: Final = "identity"

_ALIGNMENT: Final = 64
"""Bytes; more than the largest element of a tensor, and a processor's line."""


class MessageReader:
    """Takes the payloads of one stream.

    Attributes:
        missing: bytes of the message that has begun; 0: none has.
        held: bytes of it that have arrived.
    """

    __slots__ = ("_buffer", "_compressed", "_encoding", "_largest", "_prefix", "held", "missing")

    def __init__(self, encoding: str, largest: int) -> None:
        self._encoding = encoding
        self._largest = largest
        self._prefix = bytearray()
        self._buffer: memoryview | None = None
        self._compressed = False
        self.missing = 0
        self.held = 0

    @property
    def unfinished(self) -> bool:
        """Whether the stream's end would cut a message off."""
        return bool(self._prefix) or self._buffer is not None

    def room(self) -> memoryview | None:
        """Return where the next bytes belong, where they belong to a message that has begun."""
        return None if self._buffer is None else self._buffer[self.held :]

    def arrived(self, count: int) -> tuple[bool, Body] | None:
        """Note bytes that were written to `room`; returns the message if they complete it."""
        self.held += count
        self.missing -= count
        if self.missing or self._buffer is None:
            return None
        message, self._buffer = self._buffer, None
        self.held = 0
        return self._compressed, message

    def take(self, payload: memoryview) -> list[tuple[bool, Body]]:
        """Return the messages that a payload completes, each with whether it is compressed.

        Raises:
            ProtocolError: a message is too large, or compressed in a way that was not said.
        """
        found: list[tuple[bool, Body]] = []
        while payload:
            if self._buffer is not None:
                count = min(self.missing, len(payload))
                self._buffer[self.held : self.held + count] = payload[:count]
                whole = self.arrived(count)
                if whole is not None:
                    found.append(whole)
                payload = payload[count:]
                continue
            count = PREFIX_BYTES - len(self._prefix)
            self._prefix += payload[:count]
            payload = payload[count:]
            if len(self._prefix) == PREFIX_BYTES:
                length = self._read_prefix()
                if length <= len(payload):
                    found.append((self._compressed, bytes(payload[:length])))
                    payload = payload[length:]
                else:
                    self._buffer = _memory(length)
                    self.missing, self.held = length, 0
        return found

    def _read_prefix(self) -> int:
        flags, length = self._prefix[0], int.from_bytes(self._prefix[1:], "big")
        self._prefix.clear()
        if length > self._largest:
            raise ProtocolError(
                Code.RESOURCE_EXHAUSTED, f"SERVER: Received message larger than max ({length} vs. {self._largest})"
            )
        if flags > 1:
            raise ProtocolError(Code.INTERNAL, f"the flags before a message are {flags}; they are 0 or 1")
        self._compressed = bool(flags)
        if self._compressed and self._encoding not in WINDOW_BITS:
            raise _not_offered(self._encoding)
        return length


def _not_offered(encoding: str) -> ProtocolError:
    if encoding == _IDENTITY:
        return ProtocolError(Code.INTERNAL, "a message is compressed, and grpc-encoding does not say how")
    return ProtocolError(
        Code.UNIMPLEMENTED,
        f"messages compressed with '{encoding}' are not taken; send gzip, deflate or none",
    )


def _memory(size: int) -> memoryview:
    try:
        # Not cleared, and the kernel gives pages only to what is written. Aligned at its end: the last field of an
        # inference is a tensor, which an engine then reads where it lies.
        memory = np.empty(size + _ALIGNMENT, np.uint8)
        start = -(memory.ctypes.data + size) % _ALIGNMENT
        return memory[start : start + size].data
    except MemoryError:
        raise ProtocolError(
            Code.RESOURCE_EXHAUSTED, f"there is no memory for a message of {size} bytes; try again later"
        ) from None


def inflate(message: Body, encoding: str, largest: int) -> bytes:
    """Return a message that was compressed.

    Raises:
        ProtocolError: RESOURCE_EXHAUSTED; it has more than `largest` bytes. INVALID_ARGUMENT; it is not what it says.
    """
    try:
        plain = decompress(encoding, message, largest)
    except zlib.error as error:
        raise ProtocolError(Code.INTERNAL, f"a message is no {encoding}: {error}") from None
    if len(plain.content) > largest:
        raise ProtocolError(
            Code.RESOURCE_EXHAUSTED, f"SERVER: Received message larger than max (more vs. {largest}), decompressed"
        )
    if not plain.is_whole:
        raise ProtocolError(Code.INTERNAL, f"a message of {encoding} is cut off")
    return plain.content
