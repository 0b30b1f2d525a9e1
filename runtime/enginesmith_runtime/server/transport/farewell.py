"""The moment at which a server ends for clients that are still there, chosen so that it crosses no request on the wire.

Most have gone by then (see `goaway`). For the others: gRPC's C core cancels what reaches it after it was told to shut
down, also what a client sent before it could know. So for a moment answers are held back. Clients that send their next
request when they have an answer stop sending; for those that send at a steady pace, the server waits until right after
a request, with a whole pause ahead. Then the server sends GOAWAY, and the answers follow it on each connection: a
client that has an answer knows that its next request must go elsewhere.
"""

import threading
import time
from typing import Final

__all__ = ["Farewell"]

_FALLING_SILENT_SECONDS: Final = 0.03
"""From an answer to the next request of a client that waits for nothing else, wherever in a cluster it is."""

_LISTENING_SECONDS: Final = 0.2
"""For the request of a steady client. Answers are as late as that once in the life of a server."""

_COMPANIONS_SECONDS: Final = 0.002
"""Between requests that a client sends together."""

_IDLE_SECONDS: Final = 2.0
"""A server that has had no request for this time ends at once."""

_MOST_HELD: Final = 64
"""Answers; each keeps a thread, and a request that finds none is refused."""


class Farewell:
    """Counts the calls that run, and holds their answers back. Safe from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._last_arrival = 0.0
        self._running = 0
        self._held = 0
        self._holding = False

    def arrive(self) -> None:
        """Note a call's begin."""
        with self._changed:
            self._running += 1
            self._last_arrival = time.monotonic()
            if self._holding:
                self._changed.notify_all()

    def leave(self) -> None:
        """Note a call's end, and return when its answer may go: at once, but for the moment of the farewell."""
        with self._changed:
            if self._holding:
                self._held += 1
                self._changed.wait_for(lambda: not self._holding, 2 * _LISTENING_SECONDS)
            self._running -= 1
            if not self._running:
                self._changed.notify_all()

    def fall_silent(self) -> None:
        """Hold answers back until the clients that wait for them are silent; then return right after a request.

        Returns also if no more requests come, if there was no recent request, or if many answers are held.
        """
        with self._changed:
            if not self._running and time.monotonic() - self._last_arrival > _IDLE_SECONDS:
                return
            self._holding = True
            if self._changed.wait_for(self._holds_enough, _FALLING_SILENT_SECONDS):
                return
            last = self._last_arrival
            if not self._changed.wait_for(
                lambda: self._last_arrival > last or self._holds_enough(), _LISTENING_SECONDS
            ):
                return
            until = time.monotonic() + _FALLING_SILENT_SECONDS
            while (now := time.monotonic()) < min(self._last_arrival + _COMPANIONS_SECONDS, until):
                self._changed.wait(self._last_arrival + _COMPANIONS_SECONDS - now)

    def release(self) -> None:
        """Let every answer go."""
        with self._changed:
            self._holding = False
            self._held = 0
            self._changed.notify_all()

    def wait_all_left(self, seconds: float) -> bool:
        """Return whether no call runs, at the latest after `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, seconds)

    def _holds_enough(self) -> bool:
        return self._held >= _MOST_HELD
