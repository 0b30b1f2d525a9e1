"""Error messages for all kinds of stores."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from enginesmith_contract.errors import StoreError
from enginesmith_contract.store_layout import StoredFile, blob_name
from enginesmith_runtime.local_files.space import free_bytes, is_disk_full, say_bytes
from enginesmith_runtime.storage_clients import INSTALL, StorageClient, missing_module

__all__ = [
    "access_denied",
    "blob_damaged",
    "blob_missing",
    "blob_tampered",
    "client_missing",
    "connection_lost",
    "disk_full",
    "name_refused",
    "translated",
]

_READ_ONLY: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


@contextmanager
def translated(root: Path, doing: str, *, needed_bytes: int = 0) -> Iterator[None]:
    """Translate an OSError of the body to a StoreError. `doing` names the operation at `root`."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(root, needed_bytes) from error
        if error.errno in _READ_ONLY:
            raise StoreError(
                f"{doing} is not allowed",
                where=str(root),
                why=error.strerror or "permission denied",
                remedy="give this user the rights to the folder, or name another store",
                reason="ReadOnly" if error.errno == errno.EROFS else "AccessDenied",
            ) from error
        raise StoreError(
            f"{doing} failed", where=str(root), why=error.strerror or str(error), retry=error.errno == errno.EIO
        ) from error


def disk_full(root: Path, needed_bytes: int) -> StoreError:
    """Return the error of a store without free space for `needed_bytes` (0 if not known)."""
    needed = f"{say_bytes(needed_bytes)} are needed, " if needed_bytes else ""
    return StoreError(
        "the disk is full",
        where=str(root),
        why=f"{needed}{say_bytes(free_bytes(root))} are free",
        remedy="free some space or use another store; nothing of this write was kept",
        reason="DiskFull",
        retry=True,
    )


def blob_missing(where: Path | str, file: StoredFile) -> StoreError:
    """Return the error of a file whose blob is not in the store."""
    return StoreError(
        f"the blob of {file.path} is missing",
        where=str(where),
        why=f"{blob_name(file.digest)} does not exist, but a pointer names it",
        remedy="delete the pointer that names it and build again",
        reason="BlobMissing",
    )


def blob_tampered(where: Path | str, file: StoredFile, found: StoredFile) -> StoreError:
    """Return the error of a blob with another digest than its name."""
    size = "" if found.size_bytes == file.size_bytes else f" and {found.size_bytes} bytes where {file.size_bytes} were"
    return StoreError(
        f"{file.path} is not what was stored",
        where=str(where),
        why=f"{blob_name(file.digest)} has the digest {found.digest}{size}",
        remedy=f"delete {where}/{blob_name(file.digest)} and the pointer that names it, then build again",
        reason="Tampered",
    )


def blob_damaged(where: Path | str, file: StoredFile, why: str) -> StoreError:
    """Return the error of a blob that the service itself reports as damaged."""
    return StoreError(
        f"{file.path} is not what was stored",
        where=str(where),
        why=f"{blob_name(file.digest)}: {why}",
        remedy=f"delete {where}/{blob_name(file.digest)} and the pointer that names it, then build again",
        reason="Tampered",
    )


def name_refused(where: Path | str, name: str) -> StoreError:
    """Return the error of a name that would leave the folder of the store or caller, or is not supported."""
    return StoreError(
        "this name leaves its folder",
        where=str(where),
        why=repr(name),
        remedy="delete the pointer that contains it; Enginesmith never writes such a name",
        reason="InvalidName",
    )


def access_denied(where: str, doing: str, why: str, credentials: str) -> StoreError:
    """Return the error of a remote store that denies access. `credentials` names the variables to set."""
    return StoreError(
        f"{doing} is not allowed",
        where=where,
        why=why,
        remedy=f"check the rights of the account, and set {credentials}",
        reason="AccessDenied",
    )


def connection_lost(where: str, doing: str, why: str) -> StoreError:
    """Return the error of a remote store that does not answer or is temporarily unavailable."""
    return StoreError(
        f"{doing} failed",
        where=where,
        why=why,
        remedy="try again; check the address and the service behind it",
        reason="ConnectionLost",
        retry=True,
    )


def client_missing(where: str, client: StorageClient, error: ImportError) -> StoreError:
    """Return the error of a store with a client library that is not installed."""
    return StoreError(
        "the client for this kind of store is not installed",
        where=where,
        why=missing_module(client, error),
        remedy=INSTALL,
        reason="MissingClient",
    )
