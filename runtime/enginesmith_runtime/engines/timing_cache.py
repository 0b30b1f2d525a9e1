"""What builds of one device and one library version have measured, kept from build to build."""

from collections.abc import Callable
from typing import Protocol

__all__ = ["TimingCache"]


class TimingCache(Protocol):
    """The measurements as the library's own bytes."""

    def read(self) -> bytes | None:
        """Return what is stored, None where there is nothing.

        Raises:
            enginesmith_contract.errors.StoreError: it is damaged or cannot be read.
        """
        ...

    def merge(self, combine: Callable[[bytes | None], bytes]) -> None:
        """Store `combine(what is stored now)`; no other build stores in between.

        Raises:
            enginesmith_contract.errors.StoreError: it cannot be written.
        """
        ...
