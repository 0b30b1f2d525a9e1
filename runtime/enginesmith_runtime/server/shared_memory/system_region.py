"""Regions in POSIX shared memory. They are mapped once, when they are registered.

A client can change a value at any time, even between a check and its use, so a reader copies values that must not
change. The client can also shrink the memory; see `mapping`.
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
"""An object (device and inode), and the start and the end of a range in it."""

_FOLDER: Final = Path("/dev/shm")  # noqa: S108 - folder of shm_open(3) on Linux

# Do not follow links, and do not block on a pipe or a terminal with this name.
_FLAGS: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class SystemRegion(Region):
    """A part of a POSIX shared memory object.

    Args:
        name: Name of the region in requests.
        key: Name of the object for shm_open(3).
        offset: Offset of the region in the object in bytes.
        size: Size of the region in bytes.

    Raises:
        ProtocolError: INVALID_ARGUMENT if the object cannot be opened or is too small, RESOURCE_EXHAUSTED if there are
            too many files or mappings.
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
        """Return `size` bytes from `offset` on as uint8. The range must be inside the region.

        The client may change them at any time. Call `check` afterwards to find out whether they were valid.
        """
        return self._mapping.bytes[offset : offset + size]

    def check(self) -> None:
        """Refuse a request that used the region after the client had removed its memory.

        Raises:
            ProtocolError: INVALID_ARGUMENT if the object has become smaller, RESOURCE_EXHAUSTED if it has its size but
                there was no memory for a page.
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
        """Return the range of the region in its object. Two regions can share an object."""
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
        raise region_invalid(name, f"'{key}' is not a shared memory object")
    return descriptor
