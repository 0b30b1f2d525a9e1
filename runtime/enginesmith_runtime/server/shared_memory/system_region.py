"""Regions in POSIX shared memory, read and written as the files that they are and never mapped.

A client can shrink its file at any moment, and SIGBUS then kills a process that touches a mapping of it; a client can
also change a value between a check and its use. Reading copies once, straight to where the engine wants the tensor
(which copies it to the device from there), and fails with an error that one request gets.
"""

import errno
import os
import stat
from pathlib import Path
from typing import ClassVar, Final

from typing_extensions import override

from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.shared_memory.region import Region

__all__ = ["SystemRegion"]

_FOLDER: Final = Path("/dev/shm")  # noqa: S108 - where shm_open(3) has its objects on Linux

# No link leads elsewhere, and no pipe or terminal under that name makes the server wait.
_FLAGS: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class SystemRegion(Region):
    """A part of a POSIX shared memory object.

    Args:
        name: what requests call it.
        key: the object's name, as shm_open(3) takes it.
        offset: of the region in the object, in bytes.
        size: of the region.

    Raises:
        ProtocolError: INVALID_ARGUMENT; the object cannot be had, or is smaller. RESOURCE_EXHAUSTED: too many files.
    """

    kind: ClassVar[str] = "system"

    def __init__(self, name: str, key: str, offset: int, size: int) -> None:
        super().__init__(name, size)
        self.key = key
        self.offset = offset
        if size <= 0:
            raise _invalid(name, "its size is 0 bytes")
        self._file = _open(name, key)
        held = os.fstat(self._file).st_size
        if offset + size > held:
            self.close()
            raise _invalid(
                name, f"{size} bytes from {offset} on end beyond the {held} bytes of the shared memory object '{key}'"
            )

    def read(self, offset: int, into: memoryview) -> None:
        """Fill `into` from `offset` bytes into the region on; the range lies within it.

        Raises:
            ProtocolError: INVALID_ARGUMENT; the client has shrunk the object.
        """
        position, rest = self.offset + offset, into
        while rest:
            count = os.preadv(self._file, [rest], position)
            if not count:
                raise _invalid(self.name, f"the shared memory object '{self.key}' has become smaller than the region")
            position, rest = position + count, rest[count:]

    def write(self, offset: int, content: memoryview | bytes) -> None:
        """Write `content` from `offset` bytes into the region on; the range lies within it.

        Raises:
            ProtocolError: RESOURCE_EXHAUSTED; the machine has no memory for it.
        """
        position, rest = self.offset + offset, memoryview(content)
        try:
            while rest:
                count = os.pwrite(self._file, rest, position)
                position, rest = position + count, rest[count:]
        except OSError as error:
            raise ProtocolError(
                Code.RESOURCE_EXHAUSTED, f"shared memory region '{self.name}' cannot be written: {error.strerror}"
            ) from error

    @override
    def close(self) -> None:
        os.close(self._file)


def _open(name: str, key: str) -> int:
    file = key.removeprefix("/")
    if not file or "/" in file or "\0" in file or file in (".", ".."):
        raise _invalid(name, f"key '{key}' is no name of a shared memory object: one slash at most, at its beginning")
    try:
        descriptor = os.open(_FOLDER / file, _FLAGS)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise ProtocolError(
                Code.RESOURCE_EXHAUSTED, f"shared memory region '{name}': {error.strerror}; unregister others"
            ) from error
        found = "there is none" if error.errno == errno.ENOENT else error.strerror
        raise _invalid(
            name, f"shared memory object '{key}' cannot be opened here: {found}; client and server must share /dev/shm"
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _invalid(name, f"'{key}' is no shared memory object")
    return descriptor


def _invalid(name: str, why: str) -> ProtocolError:
    return ProtocolError(Code.INVALID_ARGUMENT, f"shared memory region '{name}': {why}", reason="RegionInvalid")
