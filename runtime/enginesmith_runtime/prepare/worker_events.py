"""Interface for events of a job in a child process."""

from typing import Protocol

from pydantic import JsonValue

from enginesmith_runtime.prepare.jobs import EventKind

__all__ = ["Emit"]


class Emit(Protocol):
    """Writes one event to the parent."""

    def __call__(self, kind: EventKind, data: JsonValue, /) -> None:
        """Write the event at once, so that a crash of this process does not lose it."""
