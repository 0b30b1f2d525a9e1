"""The kinds of calls: from a stream's messages to a handler, and from its outcome to the stream."""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.transport.http2.answer_head import ok_trailers
from enginesmith_runtime.server.transport.http2.message_reader import PREFIX_BYTES
from enginesmith_runtime.server.transport.http2.request_head import RequestHead
from enginesmith_runtime.server.transport.http2.stream import Stream
from enginesmith_runtime.server.transport.interface import (
    Body,
    CallContext,
    Method,
    StreamMethod,
    UnaryMethod,
    WatchMethod,
)
from enginesmith_runtime.server.transport.pending import Outcome

if TYPE_CHECKING:
    from enginesmith_runtime.server.transport.http2.connection import Connection

__all__ = ["DeadStream", "UnaryCall", "open_call"]

_MESSAGE_BYTES: Final = 256
"""That a request of a stream takes in addition to its own: a client could send many empty ones."""


class _SingleRequest(Stream):
    """A call that takes exactly one request."""

    def __init__(self, connection: "Connection", number: int, head: RequestHead, kind: int) -> None:
        super().__init__(connection, number, head, kind)
        self._request: Body | None = None

    def _expect_first(self) -> None:
        if self._request is not None:
            raise ProtocolError(Code.UNIMPLEMENTED, "the call takes one request and got another")

    def _take_request(self) -> Body:
        """Return the request, which the call does not keep."""
        body, self._request = self._request, None
        if body is None:
            raise ProtocolError(Code.UNIMPLEMENTED, "the call takes one request and got none")
        return body


class UnaryCall(_SingleRequest):
    """One request, one answer."""

    def __init__(
        self, connection: "Connection", number: int, head: RequestHead, kind: int, method: UnaryMethod
    ) -> None:
        super().__init__(connection, number, head, kind)
        self._method = method
        self._compressed = False

    @override
    def take_message(self, body: Body, *, compressed: bool) -> None:
        self._expect_first()
        self._request, self._compressed = body, compressed

    @override
    def take_end(self) -> None:
        body = self._take_request()
        self.start(body, self.head.encoding if self._compressed else "")

    def start(self, body: Body, encoding: str = "") -> None:
        """Call the handler with the request; `encoding` as for `Service.handle`."""
        if self.until is not None and self.connection.service.now() >= self.until:
            self.expire()
            return
        self.connection.service.handle(self._method, body, self, self.reply, encoding)
        if self.until is not None and not self.gathered:
            self.watch_deadline()

    def reply(self, outcome: Outcome) -> None:
        """Take the outcome, from any thread."""
        service = self.connection.service
        if service.is_loop_thread():
            self.finish(outcome)
        else:
            service.post(self.connection, self.finish, outcome)

    def finish(self, outcome: Outcome) -> None:
        """Send the outcome, unless the call has ended without."""
        if self.answered:
            return
        if isinstance(outcome, ProtocolError):
            self.fail(outcome)
            return
        content = outcome.content
        if (
            isinstance(content, bytes)
            and not outcome.trailers
            and self.connection.output.answer(self, content, outcome.metadata)
        ):
            self.ends = True
            self._conclude()
            self.sent_all()
        elif outcome.size > self.connection.service.limits.largest_message:
            self.fail(_too_large(self.connection, outcome.size))
        else:
            self.begin_answer(outcome.metadata)
            self.send(content)
            self.succeed(ok_trailers(outcome.trailers))


class _Turn(CallContext):
    """One request of a stream: its own deadline, and its place in the order of the answers."""

    def __init__(self, call: "StreamCall", size: int) -> None:
        super().__init__(call.until, may_run_here=True, may_block=False)
        self.call = call
        self.size = size
        self.outcome: Outcome | None = None
        # Not the stream's: each would keep its request until the stream ends.
        self._callbacks: list[Callable[[], None]] = []

    @property
    @override
    def source(self) -> "Connection":
        return self.call.connection

    @property
    @override
    def client(self) -> str | None:
        return self.call.sender

    @property
    @override
    def cancelled(self) -> bool:
        return self.call.cancelled

    @override
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return self.call.metadata()

    @override
    def on_cancel(self, callback: Callable[[], None]) -> None:
        if self.outcome is None:
            self._callbacks.append(callback)
        if self.call.cancelled:
            callback()

    def tell_gone(self) -> None:
        """Tell what works for the request that the client has gone."""
        for callback in tuple(self._callbacks):
            callback()

    def reply(self, outcome: Outcome) -> None:
        """Take the outcome, from any thread."""
        self.outcome = outcome
        # As in `Stream`: no circle.
        self._callbacks = []
        service = self.call.connection.service
        if service.is_loop_thread():
            self.call.advance()
        else:
            service.post(self.call.connection, StreamCall.advance, self.call)


class StreamCall(Stream):
    """A stream of requests, each with one answer, in order."""

    def __init__(
        self, connection: "Connection", number: int, head: RequestHead, kind: int, method: StreamMethod
    ) -> None:
        super().__init__(connection, number, head, kind)
        self._method = method
        self._turns: deque[_Turn] = deque()
        self._backlog: deque[tuple[Body, bool]] = deque()
        self._trailers: tuple[tuple[str, str], ...] = ()
        self._advancing = False
        self._complete = False

    @override
    def take_message(self, body: Body, *, compressed: bool) -> None:
        self._hold(_MESSAGE_BYTES - PREFIX_BYTES)
        self._backlog.append((body, compressed))
        self.advance()

    @override
    def take_end(self) -> None:
        # Not before: the frame that ends the stream may hold several requests.
        self._complete = True
        self.advance()
        self.watch_deadline()

    @override
    def leave(self) -> None:
        self._backlog.clear()
        turns, self._turns = self._turns, deque()
        if self.cancelled:
            for turn in turns:
                turn.tell_gone()

    @override
    def drained(self) -> None:
        self.advance()

    def advance(self) -> None:
        """Send the answers whose turn it is, and start the requests that there is room for."""
        # A handler that answers at once comes back here.
        if self._advancing or self.answered:
            return
        self._advancing = True
        try:
            while self._send_next() or self._start_next():
                pass
        finally:
            self._advancing = False
        if not self.answered:
            self._grant()
            if self._complete and not self._turns and not self._backlog:
                self.succeed(ok_trailers(self._trailers))

    def _send_next(self) -> bool:
        if not self._turns or (outcome := self._turns[0].outcome) is None:
            return False
        turn = self._turns.popleft()
        self._held -= turn.size
        self.connection.held.remove(turn.size)
        if isinstance(outcome, ProtocolError):
            self.fail(outcome)
            return False
        if outcome.size > self.connection.service.limits.largest_message:
            self.fail(_too_large(self.connection, outcome.size))
            return False
        self.begin_answer(outcome.metadata)
        self._trailers = outcome.trailers
        self.send(outcome.content)
        # Clients update windows and ping for each answer, whether it ends a call or not.
        self.connection.patience.earn()
        return True

    def _start_next(self) -> bool:
        # What waits for the client to read counts as unanswered.
        if not self._backlog or len(self._turns) >= self._method.in_flight or self.outgoing:
            return False
        body, compressed = self._backlog.popleft()
        turn = _Turn(self, len(body) + _MESSAGE_BYTES)
        self._turns.append(turn)
        encoding = self.head.encoding if compressed else ""
        self.connection.service.handle(self._method, body, turn, turn.reply, encoding)
        return True

    @override
    def _grant(self) -> None:
        if not self._backlog and not self.client_done:
            super()._grant()


class WatchCall(_SingleRequest):
    """One request, messages until the client leaves."""

    def __init__(
        self, connection: "Connection", number: int, head: RequestHead, kind: int, method: WatchMethod
    ) -> None:
        super().__init__(connection, number, head, kind)
        self._method = method
        self._unsubscribe: Callable[[], None] | None = None

    @override
    def take_message(self, body: Body, *, compressed: bool) -> None:
        self._expect_first()
        if compressed:
            body = self.connection.service.inflate(body, self.head.encoding)
        self._request = body

    @override
    def take_end(self) -> None:
        request, service = self._take_request(), self.connection.service
        self._unsubscribe = self._method.subscribe(
            request, lambda body: service.post(self.connection, self._emit, body)
        )
        self.watch_deadline()

    @override
    def leave(self) -> None:
        unsubscribe, self._unsubscribe = self._unsubscribe, None
        if unsubscribe is not None:
            unsubscribe()

    def _emit(self, body: bytes | None) -> None:
        if self.answered:
            return
        if body is None:
            self.succeed()
        else:
            self.send(body)


class DeadStream(Stream):
    """A stream that is answered already, and whose client does not know yet."""

    def __init__(self, connection: "Connection", number: int, head: RequestHead) -> None:
        super().__init__(connection, number, head, -1)

    @override
    def take_message(self, body: Body, *, compressed: bool) -> None:
        """Drop it."""

    @override
    def take_end(self) -> None:
        """Nothing waits for it."""


def open_call(connection: "Connection", number: int, head: RequestHead, kind: int, method: Method) -> Stream:
    """Return the stream for a call of a method."""
    match method:
        case UnaryMethod():
            return UnaryCall(connection, number, head, kind, method)
        case StreamMethod():
            return StreamCall(connection, number, head, kind, method)
        case WatchMethod():
            return WatchCall(connection, number, head, kind, method)


def _too_large(connection: "Connection", size: int) -> ProtocolError:
    most = connection.service.limits.largest_message
    return ProtocolError(Code.RESOURCE_EXHAUSTED, f"SERVER: Sent message larger than max ({size} vs. {most})")
