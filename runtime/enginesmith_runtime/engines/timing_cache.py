"""Interface to stored timings of earlier builds for one device and one library version."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["KeptTimings", "TimingCache"]


@dataclass(frozen=True, kw_only=True)
class KeptTimings:
    """Measurements in the library's format.

    Attributes:
        name: Name of the stored object.
        data: Bytes in the library's format; None if they are damaged or missing.
        problem: Reason why there is no data.
    """

    name: str
    data: bytes | None
    problem: str = ""


class TimingCache(Protocol):
    """Storage of measurements. Builds that end at the same time store several parts, which the next build merges."""

    def read(self) -> tuple[KeptTimings, ...]:
        """Return the stored parts, the newest first.

        Raises:
            enginesmith_contract.errors.StoreError: The store cannot be read.
        """
        ...

    def replace(self, kept: Sequence[KeptTimings], data: bytes, entries: int | None) -> None:
        """Replace the parts `kept` with `data`, which contains them. Parts that another build stored since then stay.

        Args:
            kept: Parts as `read` returned them.
            data: Bytes in the library's format.
            entries: Number of measurements in `data`, if the library reports it.

        Raises:
            enginesmith_contract.errors.StoreError: The store cannot be written.
        """
        ...
