"""What a registered region is, whichever memory it lies in."""

from abc import ABC, abstractmethod
from typing import ClassVar

from enginesmith_runtime.server.errors import Code, ProtocolError

__all__ = ["Region", "region_invalid"]


class Region(ABC):
    """A block of a client's memory under a name.

    Attributes:
        kind: "system" or "CUDA", for sentences; each has calls of its own, and names are unique over both.
        size: in bytes; tensors lie within it.
        users: requests that have it at this moment, counted by the table.
    """

    kind: ClassVar[str]

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.users = 0

    @abstractmethod
    def close(self) -> None:
        """Let the memory go; no request has it any more."""


def region_invalid(name: str, why: str) -> ProtocolError:
    """Return the error of a region that cannot be registered or used."""
    return ProtocolError(Code.INVALID_ARGUMENT, f"shared memory region '{name}': {why}", reason="RegionInvalid")
