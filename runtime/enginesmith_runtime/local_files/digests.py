"""Digests of files of any size. Only one chunk is in memory at a time.

A model's weights may be larger than the memory. A digest is only useful if it covers the bytes that are used, so the
digest of a copy is computed while it is written and not taken from its source.
"""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from enginesmith_contract.store_layout import StoredFile

__all__ = ["CHUNK_BYTES", "OnBytes", "copy_and_digest", "digest_file"]

CHUNK_BYTES: Final = 1 << 20

OnBytes = Callable[[int], None]
"""Function that receives the number of bytes of each chunk. It may raise to stop."""


def digest_file(path: Path, *, name: str = "", on_bytes: OnBytes | None = None) -> StoredFile:
    """Return the file's digest and size with the name `name`, by default its own.

    Raises:
        OSError: The file cannot be read.
    """
    hasher = sha256()
    size_bytes = 0
    buffer = bytearray(CHUNK_BYTES)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            hasher.update(view[:count])
            size_bytes += count
            if on_bytes is not None:
                on_bytes(count)
    return StoredFile(path=name or path.name, digest=hasher.hexdigest(), size_bytes=size_bytes)


def copy_and_digest(source: BinaryIO, target: BinaryIO, *, name: str) -> StoredFile:
    """Copy a stream to its end. Return digest and size of the written bytes.

    Raises:
        OSError: Reading or writing failed. `target` is then incomplete.
    """
    hasher = sha256()
    size_bytes = 0
    while chunk := source.read(CHUNK_BYTES):
        target.write(chunk)
        hasher.update(chunk)
        size_bytes += len(chunk)
    return StoredFile(path=name, digest=hasher.hexdigest(), size_bytes=size_bytes)
