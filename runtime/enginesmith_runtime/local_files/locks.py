"""Locks between processes that are released when their holder ends.

`flock` belongs to an open file, so the kernel releases it when the process ends for any reason. A lock file without
`flock` would outlive a killed holder. Threads exclude each other in the same way as processes.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["hold_lock"]

# Errors of network file systems without a lock service, and of read-only media.
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EROFS, errno.EACCES})


@contextmanager
def hold_lock(path: Path) -> Iterator[bool]:
    """Wait for the lock at `path` and hold it. Ctrl-C ends the wait.

    Yields:
        Whether the lock is held: False if the file system has no locks or is read-only.

    Raises:
        OSError: The lock's folder cannot be created for another reason (no space).
    """
    descriptor = _acquire_if_possible(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            # Unlink it while it is held. A waiter that gets the lock of the old file sees that it is not at `path` and
            # retries.
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
