"""Free space on a disk, and errors of a full disk."""

import errno
import os
import shutil
from pathlib import Path
from typing import Final

from enginesmith_contract.errors import StoreError

__all__ = ["failed_for_room", "free_bytes", "is_disk_full", "say_bytes", "scratch_full"]

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_KIB: Final = 1024
_FULL_WORDS: Final = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
_LITTLE_BYTES: Final = 1 << 20
"""Less free space than this means that a library failed because the disk is full."""


def is_disk_full(error: OSError) -> bool:
    """Whether the error means that the disk or the user's quota is full."""
    return error.errno in _FULL


def failed_for_room(error: BaseException, folder: Path) -> bool:
    """Whether work that writes into `folder` failed because its disk is full, however a library reports it."""
    if isinstance(error, OSError) and is_disk_full(error):
        return True
    return any(words in str(error) for words in _FULL_WORDS) or free_bytes(folder) < _LITTLE_BYTES


def scratch_full(what_writes: str) -> StoreError:
    """Return the error of work with a full scratch folder.

    Args:
        what_writes: Name of the work, such as "the builder".
    """
    return StoreError(
        "the disk is full",
        where="scratch folder",
        why=f"{what_writes} could not write its files",
        remedy="free some space there, use another folder (--home, TMPDIR), or raise the pod's ephemeral-storage limit",
        reason="DiskFull",
        retry=True,
    )


def free_bytes(path: Path) -> int:
    """Return the bytes that can still be written at `path`, or at the nearest folder above it that exists."""
    folder = path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def say_bytes(count: int) -> str:
    """Return a readable number of bytes: "512 bytes", "1.5 MiB"."""
    if count < _KIB:
        return f"{count} bytes"
    amount = float(count)
    unit = "bytes"
    for unit in ("KiB", "MiB", "GiB", "TiB"):  # noqa: B007 - the last value is used
        amount /= _KIB
        if amount < _KIB:
            break
    return f"{amount:.1f} {unit}"
