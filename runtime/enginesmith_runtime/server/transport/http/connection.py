"""One connection: its requests one after another, each within limits of size and time."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol, cast
from urllib.parse import unquote

import h11
from typing_extensions import override

from enginesmith_runtime.server.transport.http.context import HttpContext
from enginesmith_runtime.server.transport.http.encodings import BadEncodingError, accepted_encoding, decode
from enginesmith_runtime.server.transport.http.interface import (
    HttpAdmission,
    HttpAnswer,
    HttpReply,
    HttpRequest,
    refusal,
)

if TYPE_CHECKING:
    from enginesmith_runtime.server.transport.interface import CallContext

__all__ = ["Connection", "Connections"]

_MAX_HEAD_BYTES: Final = 64 << 10
"""Of a request's line and headers; more is refused with 431."""

_AHEAD_BYTES: Final = 64 << 10
"""Read from a client that sends its next request before it has an answer."""

_IDLE_SECONDS: Final = 120.0
_STALLED_SECONDS: Final = 20.0
_PROGRESS_BYTES: Final = 64 << 10
"""What must come of a request, or be taken of an answer, in each `_STALLED_SECONDS`."""

_LINGER_SECONDS: Final = 2.0
"""A client that is refused while it still sends must get the answer before the connection breaks."""

_CONTENT_TOO_LARGE: Final = 413
_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


class Connections(Protocol):
    """What connections share."""

    max_message_bytes: int
    draining: bool
    admit: HttpAdmission | None

    def enter(self, connection: "Connection") -> bool:
        """Count a new connection; False where there are enough."""
        ...

    def leave(self, connection: "Connection") -> None:
        """Forget a connection."""

    def reserve(self, size: int) -> bool:
        """Take `size` bytes of the room for bodies that are being received; negative: give them back."""
        ...

    def serve(self, request: HttpRequest, context: "CallContext", reply: HttpReply) -> None:
        """Answer a request; `reply` is called on the event loop."""

    def encode(self, encoding: str, answer: HttpAnswer, then: HttpReply) -> None:
        """Compress an answer; `then` is called on the event loop."""


class Connection(asyncio.Protocol):
    """The protocol of one connection; everything runs on the event loop."""

    _transport: asyncio.Transport

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        self._timer: asyncio.TimerHandle | None = None
        self._request: h11.Request | None = None
        self._body: list[bytes] = []
        self._received = 0
        self._ahead = 0
        self._context: HttpContext | None = None
        self._refused = False
        self._full = False
        self._client: str | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is being received or answered."""
        return self._request is not None

    def close(self) -> None:
        """Close the connection once what was written is sent."""
        self._transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self._transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._connections.enter(self):
            self._arm(_STALLED_SECONDS, self.abort)
        else:
            self._refused = True
            self._write(refusal(503, "too many connections are open; try again later or elsewhere"), close=True)
            self.close()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._forget_body()
        self._connections.leave(self)
        if self._context is not None:
            self._context.cancel()
            self._context = None

    @override
    def eof_received(self) -> bool:
        # A client that ends its side while it waits has gone.
        return False

    @override
    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._http.receive_data(data)
        if self._context is None and not self._full:
            self._advance()
            return
        self._ahead += len(data)
        if self._ahead > _AHEAD_BYTES:
            self._transport.pause_reading()

    @override
    def pause_writing(self) -> None:
        self._full = True
        left = self._transport.get_write_buffer_size()
        self._arm(_STALLED_SECONDS, lambda: self._check_taken(left))

    @override
    def resume_writing(self) -> None:
        self._full = False
        if self._context is None and not self._refused:
            self._take_next()

    def _check_taken(self, left: int) -> None:
        if left - self._transport.get_write_buffer_size() < _PROGRESS_BYTES:
            self.abort()
        else:
            self.pause_writing()

    def _advance(self) -> None:
        """Take what has come of a request, until it is complete or more is needed."""
        while self._context is None and not self._refused and not self._full:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                self._refuse(error.error_status_hint, f"the request is no HTTP/1.1: {error}")
                return
            match event:
                case h11.Request():
                    self._begin(event)
                case h11.Data():
                    self._receive(bytes(event.data))
                case h11.EndOfMessage() if self._request is not None:
                    self._dispatch(self._request)
                case h11.ConnectionClosed():
                    self.close()
                    return
                case _:  # NEED_DATA or PAUSED
                    if self._http.they_are_waiting_for_100_continue:
                        self._send(h11.InformationalResponse(status_code=100, headers=[]))
                    return

    def _begin(self, request: h11.Request) -> None:
        self._request = request
        self._arm(_STALLED_SECONDS, self._time_out)
        if not request.http_version.startswith(b"1."):
            self._refuse(505, "this port speaks HTTP/1.1; gRPC has a port of its own")
            return
        headers = dict(request.headers)
        if self._connections.admit is not None:
            outcome = self._connections.admit(_path(request), headers.get(b"authorization", b"").decode("latin-1"))
            if isinstance(outcome, HttpAnswer):
                self._refuse_with(outcome)
                return
            self._client = outcome
        length = headers.get(b"content-length")
        if length is not None and int(length) > self._connections.max_message_bytes:
            self._refuse(_CONTENT_TOO_LARGE, self._too_large(f"{int(length)} bytes"))

    def _receive(self, data: bytes) -> None:
        if not self._connections.reserve(len(data)):
            self._refuse(503, "too many large requests are being received; try again later or on another replica")
            return
        before, self._received = self._received, self._received + len(data)
        self._body.append(data)
        if self._received > self._connections.max_message_bytes:
            self._refuse(_CONTENT_TOO_LARGE, self._too_large("more bytes"))
        elif before // _PROGRESS_BYTES != self._received // _PROGRESS_BYTES:
            self._arm(_STALLED_SECONDS, self._time_out)

    def _dispatch(self, head: h11.Request) -> None:
        self._disarm()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        body = b"".join(self._body)
        self._forget_body()
        try:
            body = decode(headers.get("content-encoding", ""), body, self._connections.max_message_bytes)
        except BadEncodingError as error:
            self._refuse(error.status, str(error))
            return
        request = HttpRequest(
            method=head.method.decode("latin-1"),
            path=_path(head),
            headers=headers,
            body=body,
        )
        context = self._context = HttpContext(self, self._client, headers)
        encoding = accepted_encoding(headers.get("accept-encoding", ""))
        self._connections.serve(request, context, lambda answer: self._encode(context, encoding, answer))

    def _encode(self, context: HttpContext, encoding: str, answer: HttpAnswer) -> None:
        if encoding and answer.body:
            self._connections.encode(encoding, answer, lambda encoded: self._answer(context, encoded))
        else:
            self._answer(context, answer)

    def _answer(self, context: HttpContext, answer: HttpAnswer) -> None:
        if self._context is not context:  # the client has gone
            return
        self._write(answer, close=self._connections.draining)
        self._context = self._request = None
        if self._http.our_state is h11.MUST_CLOSE:
            self.close()
            return
        self._http.start_next_cycle()
        if not self._full:
            self._take_next()

    def _take_next(self) -> None:
        self._ahead = 0
        self._transport.resume_reading()
        self._arm(_IDLE_SECONDS, self.abort)
        self._advance()

    def _refuse(self, status: int, message: str) -> None:
        """Answer before the request was read; see `_refuse_with`."""
        self._refuse_with(refusal(status, message))

    def _refuse_with(self, answer: HttpAnswer) -> None:
        """Answer before the request was read, and give the client time to take the answer."""
        self._forget_body()
        self._refused = True
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.close()
            return
        self._write(answer, close=True)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._arm(_LINGER_SECONDS, self.abort)

    def _write(self, answer: HttpAnswer, *, close: bool) -> None:
        headers = [*answer.headers, ("content-length", str(len(answer.body)))]
        if close:
            headers.append(("connection", "close"))
        reason = _REASONS.get(answer.status, "")
        self._send(h11.Response(status_code=answer.status, headers=headers, reason=reason))
        self._send(h11.Data(data=answer.body))
        self._send(h11.EndOfMessage())

    def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._transport.write(data)

    def _too_large(self, found: str) -> str:
        return (
            f"the request has {found}, more than serving.maxMessageBytes allows here: "
            f"{self._connections.max_message_bytes}; send a smaller batch or raise the field"
        )

    def _time_out(self) -> None:
        self._refuse(408, f"less than {_PROGRESS_BYTES} bytes of the request came in {_STALLED_SECONDS:g} s")

    def _forget_body(self) -> None:
        self._connections.reserve(-self._received)
        self._received = 0
        self._body = []

    def _arm(self, seconds: float, callback: Callable[[], None]) -> None:
        self._disarm()
        self._timer = self._loop.call_later(seconds, callback)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _path(head: h11.Request) -> tuple[str, ...]:
    path = head.target.decode("latin-1").partition("?")[0]
    return tuple(unquote(part) for part in path.strip("/").split("/"))
