"""Regions in POSIX shared memory, mapped once, when they are registered.

A client can change a value at any moment, also between a check and its use: a reader copies what must not
change. It can also take the memory away; see `mapping`.
"""

import errno
import os
import stat
from pathlib import Path
from typing import ClassVar, Final

from typing_extensions import override

from enginesmith_runtime.engines.interface import Array
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.shared_memory.mapping import Mapping
from enginesmith_runtime.server.shared_memory.region import Region, region_invalid

__all__ = ["Extent", "SystemRegion"]

Extent = tuple[tuple[int, int], int, int]
"""An object (device and inode), and the begin and the end of a range in it."""

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
        ProtocolError: INVALID_ARGUMENT; the object cannot be had, or is smaller. RESOURCE_EXHAUSTED: too many files or
            mappings.
    """

    kind: ClassVar[str] = "system"

    def __init__(self, name: str, key: str, offset: int, size: int) -> None:
        super().__init__(name, size)
        self.key = key
        self.offset = offset
        if size <= 0:
            raise region_invalid(name, "its size is 0 bytes")
        descriptor = _open(name, key)
        try:
            found = os.fstat(descriptor)
            if offset + size > found.st_size:
                raise region_invalid(
                    name,
                    f"{size} bytes from {offset} on end beyond the {found.st_size} bytes of the shared memory object "
                    f"'{key}'",
                )
            self._object = (found.st_dev, found.st_ino)
            self._mapping = _map(name, descriptor, offset, size)
        finally:
            os.close(descriptor)

    def view(self, offset: int, size: int) -> Array:
        """Return `size` bytes from `offset` on, as uint8; the range lies within the region.

        The client may change them at any moment. `check` tells afterwards whether they were the client's at all.
        """
        return self._mapping.bytes[offset : offset + size]

    def check(self) -> None:
        """Refuse a request that used the region after the client took its memory away.

        Raises:
            ProtocolError: INVALID_ARGUMENT: the object has become smaller. RESOURCE_EXHAUSTED: it is as large as it
                was, and a page of it could not be had.
        """
        if self._mapping.shrunk:
            raise region_invalid(self.name, f"the shared memory object '{self.key}' has become smaller than the region")
        if self._mapping.lost:
            raise ProtocolError(
                Code.RESOURCE_EXHAUSTED,
                f"shared memory region '{self.name}': the machine had no memory for a page of '{self.key}', or the "
                "object was smaller for a while; unregister the region, and register it again",
                reason="RegionLost",
            )

    def extent(self, offset: int, size: int) -> Extent:
        """Return where a range of the region lies in its object; two regions can have one object."""
        return self._object, self.offset + offset, self.offset + offset + size

    @override
    def close(self) -> None:
        self._mapping.close()


def _map(name: str, descriptor: int, offset: int, size: int) -> Mapping:
    try:
        return Mapping(descriptor, offset, size)
    except (OSError, ValueError, OverflowError) as error:
        raise ProtocolError(
            Code.RESOURCE_EXHAUSTED, f"shared memory region '{name}' cannot be mapped: {error}"
        ) from error


def _open(name: str, key: str) -> int:
    file = key.removeprefix("/")
    if not file or "/" in file or "\0" in file or file in (".", ".."):
        raise region_invalid(name, f"key '{key}' does not name a shared memory object: at most one slash, at the start")
    try:
        descriptor = os.open(_FOLDER / file, _FLAGS)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise ProtocolError(
                Code.RESOURCE_EXHAUSTED, f"shared memory region '{name}': {error.strerror}; unregister others"
            ) from error
        found = "there is none" if error.errno == errno.ENOENT else error.strerror
        raise region_invalid(
            name, f"shared memory object '{key}' cannot be opened here: {found}; client and server must share /dev/shm"
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise region_invalid(name, f"'{key}' is no shared memory object")
    return descriptor
