"""Downloads blobs of a remote store as files for an engine, and checks their digests."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path, PurePosixPath

from enginesmith_contract.store_layout import StoredFile
from enginesmith_runtime.local_files.space import free_bytes
from enginesmith_runtime.store.atomic_files import publish_over, temporary_file
from enginesmith_runtime.store.failures import blob_tampered, disk_full, name_refused, translated

__all__ = ["OpenChunks", "lay_out_remote"]

OpenChunks = Callable[[StoredFile], AbstractContextManager[Iterator[bytes]]]
"""Function that opens a blob for reading. It raises StoreError if the blob is missing."""


def lay_out_remote(where: str, files: Iterable[StoredFile], folder: Path, open_chunks: OpenChunks) -> Path:
    """Download blobs to their paths in `folder`. A file appears there only if its digest is correct.

    Returns:
        Path of the first file.

    Raises:
        enginesmith_contract.errors.StoreError: `Tampered`, `InvalidName`, `DiskFull`, or an error of `open_chunks`.
    """
    wanted = tuple(files)
    for file in wanted:
        _lay_out(where, file, folder, open_chunks)
    return folder / wanted[0].path


def _lay_out(where: str, file: StoredFile, folder: Path, open_chunks: OpenChunks) -> None:
    relative = PurePosixPath(file.path)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise name_refused(where, file.path)
    target = folder / relative
    with translated(folder, f"laying out {file.path}", needed_bytes=file.size_bytes):
        target.parent.mkdir(parents=True, exist_ok=True)
        if free_bytes(target.parent) < file.size_bytes:
            raise disk_full(target.parent, file.size_bytes)
    hasher, size_bytes = sha256(), 0
    # Translate only errors of writing, because the chunks come from the remote store.
    with (
        translated(folder, f"laying out {file.path}", needed_bytes=file.size_bytes),
        temporary_file(target.parent) as (temporary, stream),
        open_chunks(file) as chunks,
    ):
        for chunk in chunks:
            size_bytes += len(chunk)
            if size_bytes > file.size_bytes:
                break
            stream.write(chunk)
            hasher.update(chunk)
        found = StoredFile(path=file.path, digest=hasher.hexdigest(), size_bytes=size_bytes)
        if found != file:
            raise blob_tampered(where, file, found)
        publish_over(temporary, stream, target)
