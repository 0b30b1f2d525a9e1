"""What a user asks for; the command line's help needs no more than this."""

from enum import StrEnum
from typing import Final

__all__ = ["DIMENSIONS", "Objective"]

DIMENSIONS: Final = ("instances", "threads", "batching", "frontEnds")
"""What is varied, in this order."""


class Objective(StrEnum):
    """What is wanted."""

    THROUGHPUT = "throughput"
    LATENCY = "latency"
