"""gzip and deflate (which is zlib's format) as gRPC and HTTP name them, with a bound on what comes out."""

import zlib
from dataclasses import dataclass
from typing import Final

__all__ = ["WINDOW_BITS", "Decompressed", "decompress"]

WINDOW_BITS: Final = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""zlib's number for the frame around the compressed bytes, by the encoding's name."""


@dataclass(frozen=True, slots=True)
class Decompressed:
    """What compressed bytes hold.

    Attributes:
        content: one byte more than was allowed, where there would be more.
        is_whole: whether the compressed bytes reach their end.
        is_followed: whether other bytes come behind them.
    """

    content: bytes
    is_whole: bool
    is_followed: bool


def decompress(encoding: str, data: bytes | memoryview, most: int) -> Decompressed:
    """Return what `data` holds, `most` bytes and one more at most.

    Raises:
        zlib.error: it is damaged.
    """
    reader = zlib.decompressobj(WINDOW_BITS[encoding])
    content = reader.decompress(data, most + 1)
    return Decompressed(content, reader.eof, bool(reader.unused_data))
