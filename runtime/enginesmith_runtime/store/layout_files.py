"""Places blobs of a folder as files for an engine, and checks each of them.

The check is made after the link or copy, so that it covers the bytes that the reader will open.
"""

import os
from pathlib import Path, PurePosixPath

from enginesmith_contract.store_layout import StoredFile, blob_name
from enginesmith_runtime.local_files.digests import copy_and_digest, digest_file
from enginesmith_runtime.store.atomic_files import publish_over, temporary_file
from enginesmith_runtime.store.failures import blob_missing, blob_tampered, name_refused, translated

__all__ = ["lay_out"]


def lay_out(root: Path, file: StoredFile, folder: Path, *, private: bool) -> None:
    """Place one blob of the store at `root` under its path in `folder`, as a hard link if possible, or as a copy.

    Raises:
        enginesmith_contract.errors.StoreError: `Tampered`, `BlobMissing`, `InvalidName`, or a disk error.
    """
    relative = PurePosixPath(file.path)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise name_refused(root, file.path)
    blob = root / blob_name(file.digest)
    target = folder / relative
    with translated(folder, f"laying out {file.path}", needed_bytes=file.size_bytes):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            found = _copied(blob, target, file) if private else _linked(blob, target, file)
        except FileNotFoundError as error:
            if blob.exists():
                raise
            raise blob_missing(root, file) from error
        if found.digest != file.digest:
            target.unlink(missing_ok=True)
            raise blob_tampered(root, file, found)


def _linked(blob: Path, target: Path, file: StoredFile) -> StoredFile:
    target.unlink(missing_ok=True)
    try:
        os.link(blob, target)
    except FileNotFoundError:
        raise
    except OSError:
        # Another file system, one without links, or a kernel that forbids links to files of other owners.
        return _copied(blob, target, file)
    return digest_file(target, name=file.path)


def _copied(blob: Path, target: Path, file: StoredFile) -> StoredFile:
    with blob.open("rb", buffering=0) as reader, temporary_file(target.parent) as (temporary, stream):
        found = copy_and_digest(reader, stream, name=file.path)
        publish_over(temporary, stream, target)
    return found
