"""Shares with what chance alone does to them."""

import math
from dataclasses import dataclass
from typing import Final

from typing_extensions import override

__all__ = ["Share"]

_Z: Final = 1.959964


@dataclass(frozen=True, kw_only=True)
class Share:
    """Hits of a number of trials, with the Wilson interval that holds the true share in 95 of 100 cases."""

    hits: int
    trials: int

    @property
    def value(self) -> float:
        """Return the share."""
        return self.hits / self.trials if self.trials else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Return both ends, each 0 to 1."""
        if not self.trials:
            return 0.0, 1.0
        n, p = self.trials, self.value
        middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
        return max(0.0, middle - half), min(1.0, middle + half)

    @override
    def __str__(self) -> str:
        """Return it for a table."""
        low, high = self.interval
        return f"{100 * self.value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"

    def record(self) -> dict[str, object]:
        """Return it for a record."""
        low, high = self.interval
        return {
            "hits": self.hits,
            "trials": self.trials,
            "share": round(self.value, 5),
            "wilson95": [round(low, 5), round(high, 5)],
        }
