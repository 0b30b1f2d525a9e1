"""How a connection ends: told to go so that no request is lost, or given up because its client has vanished.

A client that gets GOAWAY with the last stream's number loses what it sent meanwhile. So it gets two (RFC 9113, section
6.8): first with the highest number that there is, and, when it has answered a PING and so has read that, with
the last one that it used.
"""

import random
from typing import TYPE_CHECKING, Final

from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.transport.http2.departure import Departure
from enginesmith_runtime.server.transport.http2.wire import LARGEST_STREAM, ErrorCode, Kind, frame, goaway

if TYPE_CHECKING:
    from enginesmith_runtime.server.transport.http2.connection import Connection

__all__ = ["Lifetime"]

_ALIVE: Final = b"alive?.."
_READ: Final = b"have you"
"""Eight bytes that come back."""

_SPREAD: Final = 0.1
"""Of the maximum age, by chance: clients that came together should not go together."""


class Lifetime:
    """The end of one connection.

    Attributes:
        last_accepted: streams above it are not begun any more.
        heard: whether something came since the last tick.
        paused_at: since when the client reads nothing; 0: it reads.
    """

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._bounds = connection.service.bounds
        limits = connection.service.limits
        now = connection.service.now()
        self._born = self._last_heard = self._idle_since = now
        self._grace = limits.grace_seconds
        age = limits.max_connection_age_seconds
        # Chance, not a secret.
        self._retires_at = None if age is None else now + age * random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311
        self._asked_at = 0.0
        self._told_at = 0.0
        self._departure: Departure | None = None
        self._closing_at = 0.0
        self.last_accepted = LARGEST_STREAM
        self.heard = False
        self.paused_at = 0.0

    def leave(self) -> None:
        """Tell the client to go, at a moment that `Departure` chooses; what it still sends is answered."""
        if self._departure is None:
            self._departure = Departure(self._connection, self._tell)
            self._departure.begin(self._idle_since)

    def take_pong(self, payload: bytes) -> None:
        """Note the answer to a PING."""
        if payload == _READ and self._told_at and self._departure is not None:
            self._accept_no_more()
            self._departure.note_read()

    def note_idle(self) -> None:
        """Note that the last open stream has ended."""
        self._idle_since = self._connection.service.now()
        if self.last_accepted != LARGEST_STREAM:
            self._say_goodbye()

    def abandon(self, error: ProtocolError) -> None:
        """End what is open with an error, and close."""
        self._connection.output.release()
        for stream in tuple(self._connection.streams.values()):
            stream.expire(error)
        self._connection.end(ErrorCode.NO_ERROR)

    def close(self) -> None:
        """Close when the client does, or after a moment; what still comes is dropped."""
        self._closing_at = self._closing_at or self._connection.service.now()
        self._end_output()

    def tick(self, now: float) -> None:
        """Look after the connection, about once a second."""
        connection, bounds = self._connection, self._bounds
        connection.patience.renew()
        if self._closing_at:
            if now - self._closing_at > bounds.leaving_seconds:
                connection.transport.abort()
            return
        if not connection.settled:
            if now - self._born > bounds.handshake_seconds:
                connection.end(ErrorCode.SETTINGS_TIMEOUT, "there was no handshake")
            return
        self._look_alive(now)
        self._tick_streams(now)
        if self._told_at:
            if self.last_accepted == LARGEST_STREAM and now - self._told_at > bounds.leaving_seconds:
                self._accept_no_more()
            elif self._retires_at is not None and now - self._retires_at > self._grace:
                self.abandon(ProtocolError(Code.UNAVAILABLE, "the connection is older than it may become"))
        elif (not connection.streams and now - self._idle_since > bounds.idle_seconds) or (
            self._retires_at is not None and now > self._retires_at
        ):
            self.leave()

    def _tell(self) -> None:
        self._told_at = self._connection.service.now()
        self._connection.output.control(goaway(LARGEST_STREAM, ErrorCode.NO_ERROR) + frame(Kind.PING, 0, 0, _READ))

    def _accept_no_more(self) -> None:
        if self.last_accepted == LARGEST_STREAM:
            connection = self._connection
            self.last_accepted = connection.last
            connection.output.control(goaway(connection.last, ErrorCode.NO_ERROR))
            if not connection.streams:
                self._say_goodbye()

    def _say_goodbye(self) -> None:
        """Send nothing more, and let the client close: what it has not read yet would go with our end."""
        connection = self._connection
        if self._closing_at or connection.broken:
            return
        self._closing_at = connection.service.now()
        self._end_output()

    def _end_output(self) -> None:
        connection = self._connection
        connection.output.flush()
        if connection.transport.can_write_eof():
            # The kernel drops what it has not sent, GOAWAY for one, if a socket is closed that has something to read.
            connection.transport.write_eof()
        else:
            connection.transport.close()

    def _look_alive(self, now: float) -> None:
        connection, bounds = self._connection, self._bounds
        if self.heard:
            self.heard = False
            self._last_heard = now
            self._asked_at = 0.0
        elif self._asked_at:
            if now - self._asked_at > bounds.keepalive_timeout_seconds:
                connection.transport.abort()
        elif now - self._last_heard > bounds.keepalive_seconds:
            self._asked_at = now
            connection.output.control(frame(Kind.PING, 0, 0, _ALIVE))
        if self.paused_at and now - self.paused_at > bounds.keepalive_seconds + bounds.keepalive_timeout_seconds:
            connection.transport.abort()

    def _tick_streams(self, now: float) -> None:
        connection, bounds = self._connection, self._bounds
        for stream in tuple(connection.streams.values()):
            if stream.answered:
                if stream.ends and not stream.outgoing and now - stream.idle_since > bounds.leaving_seconds:
                    connection.reset(stream.number, ErrorCode.NO_ERROR)
            elif stream.until is not None and now > stream.until:
                stream.expire()
            elif stream.is_stuck(now, bounds.arrival_seconds):
                stream.fail(
                    ProtocolError(
                        Code.UNAVAILABLE, f"nothing more of a message came for {bounds.arrival_seconds:g} seconds"
                    )
                )
