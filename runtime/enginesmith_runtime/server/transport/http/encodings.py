"""Content encodings: gzip and deflate."""

import zlib
from typing import Final

from enginesmith_runtime.server.transport.compression import WINDOW_BITS, decompress

__all__ = ["BadEncodingError", "accepted_encoding", "decode", "encode"]

_LEVEL: Final = 1
"""Tensors hardly shrink, and any higher level takes several times as long."""


class BadEncodingError(Exception):
    """A body that cannot be decoded.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def decode(encoding: str, body: bytes, most: int) -> bytes:
    """Return `body` without its content encoding, and not more than `most` bytes of it.

    Raises:
        BadEncodingError: the encoding is unknown, the body is damaged, or there would be more.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in WINDOW_BITS:
        raise BadEncodingError(415, f"content encoding '{encoding}' is unknown; use gzip, deflate or none")
    try:
        decoded = decompress(encoding, body, most)
    except zlib.error as error:
        raise BadEncodingError(400, f"the body is no {encoding}: {error}") from None
    if len(decoded.content) > most:
        raise BadEncodingError(
            413,
            f"the request has more than {most} bytes without its encoding, which serving.maxMessageBytes allows here; "
            "send a smaller batch or raise the field",
        )
    if not decoded.is_whole or decoded.is_followed:
        raise BadEncodingError(400, f"the body is no {encoding}: it is cut off, or something follows it")
    return decoded.content


def encode(encoding: str, body: bytes) -> bytes:
    """Return `body` in one of the encodings that `accepted_encoding` returns."""
    writer = zlib.compressobj(_LEVEL, wbits=WINDOW_BITS[encoding])
    return writer.compress(body) + writer.flush()


def accepted_encoding(accepted: str) -> str:
    """Return the first known encoding that an Accept-Encoding header allows; "" for none."""
    for choice in accepted.lower().split(","):
        name, _, weight = choice.partition(";")
        if name.strip() in WINDOW_BITS and weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            return name.strip()
    return ""
