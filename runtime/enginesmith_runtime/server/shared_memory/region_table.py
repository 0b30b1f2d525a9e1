"""The registered regions and the number of requests that use each.

A request acquires its regions before it is queued and returns them when it has ended. A region that is unregistered
meanwhile is unknown to new requests at once, and it is closed after the last request that uses it.
"""

import threading
from collections.abc import Callable
from typing import Final, TypeVar

from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.shared_memory.region import Region

__all__ = ["RegionTable"]

_RegionT = TypeVar("_RegionT", bound=Region)

_MAX_REGIONS: Final = 512
"""A system region is an open file, and in many containers a process can have about a thousand open files."""


class RegionTable:
    """Regions by name. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._regions: dict[str, Region] = {}

    def register(self, name: str, open_region: Callable[[], Region]) -> None:
        """Register the region that `open_region` opens.

        Raises:
            ProtocolError: ALREADY_EXISTS, or an error of `open_region`.
        """
        with self._lock:
            self._refuse_unless_new(name)
        region = open_region()
        try:
            with self._lock:
                self._refuse_unless_new(name)
                self._regions[name] = region
        except ProtocolError:
            region.close()
            raise

    def find(self, kind: type[_RegionT], name: str) -> tuple[_RegionT, ...]:
        """Return the region `name`, or all regions of a kind if the name is empty.

        Raises:
            ProtocolError: NOT_FOUND.
        """
        with self._lock:
            found = self._find(kind, name)
        if name and not found:
            raise ProtocolError(Code.NOT_FOUND, f"no {kind.kind} shared memory region '{name}' is registered")
        return found

    def unregister(self, kind: type[Region], name: str) -> None:
        """Unregister the region `name`, or all regions of a kind if the name is empty. An unknown name is not an error.

        Raises:
            ProtocolError: INVALID_ARGUMENT if the region is of the other kind.
        """
        with self._lock:
            other = self._regions.get(name)
            if other is not None and not isinstance(other, kind):
                raise ProtocolError(
                    Code.INVALID_ARGUMENT, f"region '{name}' is {other.kind} shared memory, and not {kind.kind}"
                )
            gone = self._find(kind, name)
            for region in gone:
                del self._regions[region.name]
            unused = [region for region in gone if not region.users]
        for region in unused:
            region.close()

    def take(self, name: str) -> Region:
        """Return the region for a request, which must return it with `give_back`.

        Raises:
            ProtocolError: INVALID_ARGUMENT if the region does not exist.
        """
        with self._lock:
            region = self._regions.get(name)
            if region is None:
                raise ProtocolError(
                    Code.INVALID_ARGUMENT,
                    f"no shared memory region '{name}' is registered",
                    reason="RegionUnknown",
                )
            region.users += 1
            return region

    def give_back(self, region: Region) -> None:
        """Return a region from a request. Close it if it is unregistered and this was its last user."""
        with self._lock:
            region.users -= 1
            unused = not region.users and self._regions.get(region.name) is not region
        if unused:
            region.close()

    def close(self) -> None:
        """Unregister every region."""
        self.unregister(Region, "")  # type: ignore[type-abstract]  # asked for, never made

    def _find(self, kind: type[_RegionT], name: str) -> tuple[_RegionT, ...]:
        return tuple(one for one in self._regions.values() if isinstance(one, kind) and name in ("", one.name))

    def _refuse_unless_new(self, name: str) -> None:
        if not name:
            raise ProtocolError(Code.INVALID_ARGUMENT, "a shared memory region needs a name")
        if name in self._regions:
            raise ProtocolError(
                Code.ALREADY_EXISTS, f"shared memory region '{name}' is registered already; unregister it first"
            )
        if len(self._regions) >= _MAX_REGIONS:
            raise ProtocolError(
                Code.RESOURCE_EXHAUSTED, f"{_MAX_REGIONS} shared memory regions are registered, and no more can be"
            )
