"""The header blocks that a server sends. They change no dynamic table, so a block is the same on every connection.

Fields are literals without indexing (RFC 7541, section 6.2.2), without Huffman coding: it saves bytes where bytes are
not what costs.
"""

from functools import lru_cache
from typing import Final

from enginesmith_runtime.server.errors import Code, ProtocolError

__all__ = ["OK_TRAILERS", "answer_head", "failure_head", "failure_trailers", "http_head", "ok_trailers"]

_SHORT: Final = 127
"""Bytes whose number fits one byte of HPACK."""

_STATUS_200: Final = b"\x88"
# A name of the static table by its index: 15 and the rest.
_CONTENT_TYPE: Final = b"\x0f\x10"
_STATUS: Final = b"\x08"
_CONTENT_LENGTH: Final = b"\x0f\x0d"
_UNESCAPED: Final = frozenset(range(0x20, 0x7F)) - {ord("%")}
"""Bytes of a message that gRPC sends as they are."""

_ACCEPT_ENCODING: Final = ("grpc-accept-encoding", "identity,deflate,gzip")
_LONGEST_MESSAGE: Final = 4096
"""Bytes of a status message: clients refuse 8 KiB of metadata and more."""


def _text(value: bytes) -> bytes:
    size = len(value)
    if size < _SHORT:
        return bytes([size]) + value
    length, size = bytearray([_SHORT]), size - _SHORT
    while size > _SHORT:
        length.append(size & _SHORT | 0x80)
        size >>= 7
    length.append(size)
    return bytes(length) + value


def _field(name: str, value: str) -> bytes:
    """Return one field of a block."""
    return b"\x00" + _text(name.encode("latin-1")) + _text(value.encode("latin-1", "replace"))


_GRPC: Final = _STATUS_200 + _CONTENT_TYPE + _text(b"application/grpc")

OK_TRAILERS: Final = _field("grpc-status", "0")


@lru_cache(maxsize=256)
def answer_head(metadata: tuple[tuple[str, str], ...]) -> bytes:
    """Return the block before an answer's messages."""
    return _GRPC + b"".join(_field(name.lower(), value) for name, value in metadata)


def ok_trailers(metadata: tuple[tuple[str, str], ...]) -> bytes:
    """Return the block after the last message of a call that succeeded."""
    return OK_TRAILERS + b"".join(_field(name.lower(), value) for name, value in metadata)


def failure_trailers(error: ProtocolError) -> bytes:
    """Return the block after the last message of a call that failed."""
    return _trailers(error.code, error.message)


def failure_head(error: ProtocolError) -> bytes:
    """Return the only block of a call that failed without a message."""
    # A client learns from it which of its encodings it could have used.
    accepted = _field(*_ACCEPT_ENCODING) if error.code is Code.UNIMPLEMENTED else b""
    return _GRPC + accepted + failure_trailers(error)


def http_head(status: int, length: int) -> bytes:
    """Return the block of an answer to a request that is no call of gRPC."""
    return (
        _STATUS
        + _text(str(status).encode())
        + _CONTENT_TYPE
        + _text(b"text/plain")
        + _CONTENT_LENGTH
        + _text(str(length).encode())
    )


def _trailers(code: Code, message: str) -> bytes:
    escaped = "".join(chr(byte) if byte in _UNESCAPED else f"%{byte:02X}" for byte in message.encode())
    if len(escaped) > _LONGEST_MESSAGE:
        # Not in the middle of an escape.
        end = _LONGEST_MESSAGE
        while "%" in escaped[end - 2 : end]:
            end -= 1
        escaped = escaped[:end]
    return _field("grpc-status", str(code.value)) + _field("grpc-message", escaped)
