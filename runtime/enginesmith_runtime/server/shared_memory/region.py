"""Base class of registered regions."""

from abc import ABC, abstractmethod
from typing import ClassVar

from enginesmith_runtime.server.errors import Code, ProtocolError

__all__ = ["Region", "region_invalid"]


class Region(ABC):
    """A block of a client's memory under a name.

    Attributes:
        kind: "system" or "CUDA", for messages. Each kind has its own calls, and names are unique over both kinds.
        size: Size in bytes.
        users: Number of requests that use the region now. The table counts them.
    """

    kind: ClassVar[str]

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.users = 0

    @abstractmethod
    def close(self) -> None:
        """Release the memory, which no request uses any more."""


def region_invalid(name: str, why: str) -> ProtocolError:
    """Return the error of a region that cannot be registered or used."""
    return ProtocolError(Code.INVALID_ARGUMENT, f"shared memory region '{name}': {why}", reason="RegionInvalid")
