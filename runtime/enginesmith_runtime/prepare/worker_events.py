"""How a job in a child process says what happened."""

from typing import Protocol

from pydantic import JsonValue

from enginesmith_runtime.prepare.jobs import EventKind

__all__ = ["Emit"]


class Emit(Protocol):
    """Writes one event to the parent."""

    def __call__(self, kind: EventKind, data: JsonValue, /) -> None:
        """Write it at once, so that it outlives a crash of this process."""
