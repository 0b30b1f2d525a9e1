"""Locks between processes that die with their holder.

`flock` belongs to an open file, so the kernel frees it when the process ends however it ends; a file's existence, the
other common lock, would outlive a killed holder. Two threads that each hold a lock exclude each other as processes do.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["hold_lock"]

# Network file systems without a lock service, and media that nothing can be written to.
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EROFS, errno.EACCES})


@contextmanager
def hold_lock(path: Path) -> Iterator[bool]:
    """Hold the lock at `path`, waiting for it; Ctrl-C ends the wait.

    Yields:
        Whether there is a lock: False where the file system has none or cannot be written.

    Raises:
        OSError: the lock's folder cannot be made for another reason (no space).
    """
    descriptor = _acquire_if_possible(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            # Unlinked while held: a waiter that gets the old file's lock sees that it left `path`, and asks again.
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _acquire_if_possible(path: Path) -> int | None:
    try:
        return _acquire(path)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise


def _acquire(path: Path) -> int:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
