"""Builds that begin while their model is still being prepared: how long they wait, and how they end after that."""

from typing import Final

__all__ = ["PREPARATION_LATE", "PREPARATION_WAIT_SECONDS"]

PREPARATION_WAIT_SECONDS: Final = 120.0
"""How long such a build waits for the preparation, with the GPU: long enough for most models, short for a GPU."""
PREPARATION_LATE: Final = "PreparationLate"
"""Reason of a build that waited so long. It is no failure of the engine: the build is made again."""
