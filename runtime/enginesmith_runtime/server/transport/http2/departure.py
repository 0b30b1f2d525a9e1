"""When a client gets GOAWAY, so that it begins no call in the moment in which it reads it.

A client that begins a call right then may lose it: gRPC's C core fails it if retries are off ("Stream removed (GOAWAY
received)"), because the call has chosen the connection before the channel has left it. So answers are held back for a
moment: clients that send a request when they have an answer become silent, and for those that send at a steady pace
GOAWAY follows right after a request, with a whole pause ahead. The answers follow when the client has read it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from enginesmith_runtime.server.transport.http2.connection import Connection

__all__ = ["Departure"]

_IDLE_SECONDS: Final = 2.0
"""A connection without a call for so long gets GOAWAY at once."""

_ANSWERED_SECONDS: Final = 0.005
"""For requests that follow answers which were sent before answers were held."""

_SILENT_SECONDS: Final = 0.025
"""A client that begins no call for so long waits for an answer."""

_STEADY_SECONDS: Final = 0.2
"""For the request of a client that does not wait for answers."""

_LOOK_SECONDS: Final = 0.002
"""Between two looks at whether calls begin; also between calls that a client begins together."""

_READING_SECONDS: Final = 0.1
"""For the answer to the PING behind GOAWAY."""

_LEAVING_SECONDS: Final = 0.01
"""For a client that has read GOAWAY to choose another connection for its next call."""


class Departure:
    """Holds the answers of one connection while its client receives GOAWAY.

    Args:
        say: sends GOAWAY and a PING.
    """

    def __init__(self, connection: "Connection", say: Callable[[], None]) -> None:
        self._connection = connection
        self._say = say
        self._since = 0.0
        self._last = 0
        self._begun = False

    def begin(self, idle_since: float) -> None:
        """Send GOAWAY at a good moment; `idle_since`: when the last call ended, if none is open."""
        connection = self._connection
        self._since = connection.service.now()
        if not connection.streams and self._since - idle_since > _IDLE_SECONDS:
            self._say()
            return
        connection.output.hold()
        self._later(_ANSWERED_SECONDS, self._listen)

    def note_read(self) -> None:
        """Note that the client has answered the PING."""
        self._later(_LEAVING_SECONDS, self._end)

    def _listen(self) -> None:
        self._last = self._connection.last
        self._later(_SILENT_SECONDS, self._decide)

    def _decide(self) -> None:
        if self._connection.last == self._last:
            self._send_away()
        else:
            self._last = self._connection.last
            self._later(_LOOK_SECONDS, self._await_call)

    def _await_call(self) -> None:
        """Wait for the next call of a client that does not wait for answers, and for those that come with it."""
        last, self._last = self._last, self._connection.last
        begun, self._begun = self._begun, self._last != last
        late = self._connection.service.now() - self._since > _STEADY_SECONDS
        if late or (begun and not self._begun):
            self._send_away()
        else:
            self._later(_LOOK_SECONDS, self._await_call)

    def _send_away(self) -> None:
        self._say()
        self._later(_READING_SECONDS, self._end)

    def _end(self) -> None:
        self._connection.output.release()

    def _later(self, seconds: float, step: Callable[[], None]) -> None:
        self._connection.service.call_later(seconds, lambda: self._run(step))

    def _run(self, step: Callable[[], None]) -> None:
        if self._connection.broken:
            return
        self._connection.run(lambda _: step(), None)
        self._connection.flush()
