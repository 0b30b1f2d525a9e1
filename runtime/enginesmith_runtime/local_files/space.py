"""Room on a disk, before and after it ran out."""

import errno
import shutil
from pathlib import Path
from typing import Final

__all__ = ["free_bytes", "is_disk_full", "say_bytes"]

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_KIB: Final = 1024


def is_disk_full(error: OSError) -> bool:
    """Whether the error means that the disk or the user's quota is full."""
    return error.errno in _FULL


def free_bytes(path: Path) -> int:
    """Return the bytes that can still be written at `path`, or at the nearest folder above it that exists."""
    folder = path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def say_bytes(count: int) -> str:
    """Return a count of bytes as a person reads it: "512 bytes", "1.5 MiB"."""
    if count < _KIB:
        return f"{count} bytes"
    amount = float(count)
    unit = "bytes"
    for unit in ("KiB", "MiB", "GiB", "TiB"):  # noqa: B007 - the unit that the loop ends with is the result
        amount /= _KIB
        if amount < _KIB:
            break
    return f"{amount:.1f} {unit}"
