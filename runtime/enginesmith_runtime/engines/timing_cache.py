"""What builds of one device and one library version have measured, kept from build to build."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["KeptTimings", "TimingCache"]


@dataclass(frozen=True, kw_only=True)
class KeptTimings:
    """Measurements as the library's own bytes.

    Attributes:
        name: where they are kept.
        data: the library's bytes; None where they are damaged or gone.
        problem: why there are none.
    """

    name: str
    data: bytes | None
    problem: str = ""


class TimingCache(Protocol):
    """Where measurements are kept: in several parts where builds ended at once, until the next one makes them one."""

    def read(self) -> tuple[KeptTimings, ...]:
        """Return what is kept, the newest first.

        Raises:
            enginesmith_contract.errors.StoreError: the store cannot be read.
        """
        ...

    def replace(self, kept: Sequence[KeptTimings], data: bytes, entries: int | None) -> None:
        """Keep `data`, which has all that `kept` has, in its place; what another build kept meanwhile stays.

        Args:
            kept: as `read` returned it.
            data: the library's bytes.
            entries: measurements in it, where the library says.

        Raises:
            enginesmith_contract.errors.StoreError: the store cannot be written.
        """
        ...
