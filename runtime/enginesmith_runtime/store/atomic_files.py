"""Writes files atomically and durably.

    write to `.tmp-*` in the same folder -> fsync -> link to the final name (fails if it exists, so the first writer
    wins) -> unlink the temporary name -> fsync the folder

The writer holds a lock on its temporary file, so a cleanup can distinguish files of dead and of slow writers.
"""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from enginesmith_runtime.local_files.locks import hold_lock

__all__ = ["TEMPORARY_PREFIX", "make_folder", "publish_first", "publish_over", "remove_leftovers", "temporary_file"]

TEMPORARY_PREFIX: Final = ".tmp-"
_MODE: Final = 0o444
_NO_HARD_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def make_folder(folder: Path) -> None:
    """Create a folder and its parents durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


@contextmanager
def temporary_file(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Yield a new file in `folder` to write to. It is removed afterwards unless it was published."""
    path = folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(12)}"
    try:
        with path.open("xb") as stream:
            # On a file system without locks, only its age protects it.
            with suppress(OSError):
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield path, stream
    finally:
        path.unlink(missing_ok=True)


def publish_first(temporary: Path, stream: BinaryIO, final: Path) -> bool:
    """Give a temporary file its final name unless that exists. The file is durable on return.

    Returns:
        Whether it was published; False if the name already existed.
    """
    _settle(stream)
    try:
        os.link(temporary, final)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if not _rename_if_absent(temporary, final):
            return False
    _sync_folder(final.parent)
    return True


def publish_over(temporary: Path, stream: BinaryIO, final: Path) -> None:
    """Give a temporary file its final name and replace an existing file. The file is durable on return."""
    _settle(stream)
    temporary.replace(final)
    _sync_folder(final.parent)


def remove_leftovers(folder: Path, older_than: float) -> None:
    """Remove temporary files of dead writers that were last written before `older_than` (seconds since the epoch).

    Files that cannot be read or removed stay.
    """
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.name.startswith(TEMPORARY_PREFIX)]
    except OSError:
        return
    for name in names:
        with suppress(OSError):
            _remove_if_dead(folder / name, older_than)


def _remove_if_dead(path: Path, older_than: float) -> None:
    if path.stat().st_mtime >= older_than:
        return
    with path.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()


def _rename_if_absent(temporary: Path, final: Path) -> bool:
    # Without hard links there is no atomic "rename unless it exists", so a lock makes check and rename one step.
    with hold_lock(final.with_name(f".lock-{final.name}")):
        if final.exists():
            return False
        temporary.replace(final)
        return True


def _settle(stream: BinaryIO) -> None:
    stream.flush()
    # Make it read-only, because readers get hard links to this file.
    with suppress(PermissionError):
        os.fchmod(stream.fileno(), _MODE)
    os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems refuse to sync a folder because they have nothing to sync.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)
