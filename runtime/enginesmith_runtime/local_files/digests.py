"""Digests of files of any size, a chunk in memory at a time.

A model's weights may be larger than the memory, and a digest is only worth something if it is of the bytes that are
used: so a copy is digested as it is written, and never by what its source said before.
"""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from enginesmith_contract.store_layout import StoredFile

__all__ = ["CHUNK_BYTES", "OnBytes", "copy_and_digest", "digest_file"]

CHUNK_BYTES: Final = 1 << 20

OnBytes = Callable[[int], None]
"""Called with the count of each chunk's bytes; may raise to stop."""


def digest_file(path: Path, *, name: str = "", on_bytes: OnBytes | None = None) -> StoredFile:
    """Return the file's digest and size, under `name` (its own by default).

    Raises:
        OSError: it cannot be read.
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
    """Copy a stream to its end; returns digest and size of what was written.

    Raises:
        OSError: one of the two failed; `target` holds a part then.
    """
    hasher = sha256()
    size_bytes = 0
    while chunk := source.read(CHUNK_BYTES):
        target.write(chunk)
        hasher.update(chunk)
        size_bytes += len(chunk)
    return StoredFile(path=name, digest=hasher.hexdigest(), size_bytes=size_bytes)
