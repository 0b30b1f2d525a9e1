"""Interface to start a builder's library before there is a job."""

from typing import Protocol, runtime_checkable

__all__ = ["EarlyBuilder"]


@runtime_checkable
class EarlyBuilder(Protocol):
    """A Builder whose library takes seconds to start and can start without a job."""

    def start(self) -> None:
        """Start the library. If this fails, the build tries again and reports the error."""
        ...
