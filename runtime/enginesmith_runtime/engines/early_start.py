"""What a builder's library does when it starts, done before there is a job."""

from typing import Protocol, runtime_checkable

__all__ = ["EarlyBuilder"]


@runtime_checkable
class EarlyBuilder(Protocol):
    """A Builder whose library takes seconds to start, and needs no job for that."""

    def start(self) -> None:
        """Start it; what fails is tried again, and said, by the build."""
        ...
