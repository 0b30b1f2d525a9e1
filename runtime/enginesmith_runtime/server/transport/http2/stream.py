"""One stream of a connection, which is one call: what RFC 9113 and gRPC say of both, whatever the kind of call."""

import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.transport.http2.answer_head import (
    OK_TRAILERS,
    answer_head,
    failure_head,
    failure_trailers,
)
from enginesmith_runtime.server.transport.http2.faults import StreamFault
from enginesmith_runtime.server.transport.http2.message_reader import PREFIX_BYTES, MessageReader
from enginesmith_runtime.server.transport.http2.request_head import RequestHead
from enginesmith_runtime.server.transport.http2.wire import ErrorCode, window_update
from enginesmith_runtime.server.transport.interface import Body, CallContext, Content, GatheredT

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from enginesmith_runtime.server.transport.http2.connection import Connection

__all__ = ["Stream"]

_LATE: Final = "the deadline passed before there was an answer"


class Stream(CallContext):
    """An open stream. Its methods are called on the event loop; `cancelled` and `on_cancel` from any thread.

    Attributes:
        number: HTTP/2's.
        kind: of its call; see `TransportLimits.kinds`. -1: it was refused, and only its end is waited for.
        client_done: whether the client sends nothing more.
        answered: whether the call has its outcome; what comes from the client is ignored from then on.
        fresh: whether nothing has come yet that a request in one frame must be checked against.
        ends: whether the stream ends when `outgoing` and `trailers` are sent.
        outgoing: what waits for room in the windows; `queued`: and waits for its turn.
        idle_since: when the client last sent something of a message that it has begun.
        sender: name of the client whose token came with the call; None: calls need none.
        gathered: whether the call's request waits for what arrived with it; its deadline is watched only then.
    """

    def __init__(self, connection: "Connection", number: int, head: RequestHead, kind: int) -> None:
        self.connection = connection
        self.number = number
        self.head = head
        self.kind = kind
        self.sender: str | None = None
        self.gathered = False
        seconds = head.timeout_seconds
        self.until = self.deadline = None if seconds is None else time.monotonic() + seconds
        self.may_run_here = True
        self.may_block = False
        self.client_done = False
        self.answered = False
        self.fresh = head.content_length is None
        self.send_window = connection.output.stream_window
        self.outgoing: deque[memoryview] = deque()
        self.queued = False
        self.ends = False
        self.trailers: bytes | None = None
        self.begun = False
        self.idle_since = 0.0
        self._receive_window = connection.service.bounds.stream_window
        self._body_bytes = 0
        self._reader: MessageReader | None = None
        self._held = 0
        self._gone = False
        self._callbacks: list[Callable[[], None]] = []
        self._timer: TimerHandle | None = None

    # What a kind of calls does.

    @abstractmethod
    def take_message(self, body: Body, *, compressed: bool) -> None:
        """Take one message of the client.

        Raises:
            ProtocolError: it is refused.
        """

    @abstractmethod
    def take_end(self) -> None:
        """Take the end of the client's messages.

        Raises:
            ProtocolError: something is missing.
        """

    def drained(self) -> None:
        """Note that all that was sent so far is on its way."""

    def leave(self) -> None:
        """Free what the call holds, once, when it has its outcome or its client has gone."""

    # The call's context.

    @property
    @override
    def source(self) -> Hashable:
        return self.connection

    @property
    @override
    def client(self) -> str | None:
        return self.sender

    @property
    @override
    def cancelled(self) -> bool:
        return self._gone

    @override
    def comes_alone(self) -> bool:
        return self.connection.service.comes_alone()

    @override
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return self.head.metadata()

    @override
    def on_cancel(self, callback: Callable[[], None]) -> None:
        if not self.answered:
            self._callbacks.append(callback)
        if self._gone:
            callback()

    @override
    def gather(self, run: Callable[[Sequence[GatheredT]], None], item: GatheredT) -> bool:
        self.gathered = True
        self.connection.service.gather(self, run, item)
        return True

    # What comes from the client.

    def count_padding(self, count: int) -> None:
        """Note padding of a DATA frame, before its payload."""
        if self.client_done:
            raise StreamFault(self.number, ErrorCode.STREAM_CLOSED, "DATA after the end")
        self._receive_window -= count

    def receive(self, payload: memoryview, *, last: bool) -> None:
        """Take the payload, or a part of one, of a DATA frame; `last`: nothing follows.

        Raises:
            StreamFault: it breaks a rule of HTTP/2.
        """
        if self.client_done:
            raise StreamFault(self.number, ErrorCode.STREAM_CLOSED, "DATA after the end")
        self.fresh = False
        self._count(len(payload), last=last)
        if self.answered:
            return
        try:
            if self._reader is None:
                self._reader = MessageReader(self.head.encoding, self.connection.service.limits.largest_message)
            messages = self._reader.take(payload) if payload else ()
            self._hold(len(payload))
            for compressed, body in messages:
                self.take_message(body, compressed=compressed)
                if self.answered:
                    return
            if last:
                self.finish_input()
            else:
                self._grant()
        except ProtocolError as error:
            self.fail(error)

    def room(self) -> memoryview | None:
        """Return where the next bytes of a message belong."""
        return None if self.answered or self._reader is None else self._reader.room()

    def arrived(self, count: int, *, last: bool) -> None:
        """Note so many bytes of a DATA frame that were received where `room` said.

        Raises:
            StreamFault: as for `receive`.
        """
        self._count(count, last=last)
        if self.answered or self._reader is None:
            return
        try:
            self._hold(count)
            whole = self._reader.arrived(count)
            if whole is not None:
                self.take_message(whole[1], compressed=whole[0])
            if last and not self.answered:
                self.finish_input()
        except ProtocolError as error:
            self.fail(error)

    def finish_input(self) -> None:
        """Take the end of what the client sends.

        Raises:
            ProtocolError: a message is cut off, or the call needs another.
        """
        if self._reader is not None and self._reader.unfinished:
            raise ProtocolError(Code.INTERNAL, "the request ends in the middle of a message")
        self.take_end()

    def end_input(self) -> None:
        """Take the end of the stream where it comes without DATA."""
        self._count(0, last=True)
        if not self.answered:
            try:
                self.finish_input()
            except ProtocolError as error:
                self.fail(error)

    def reset(self) -> None:
        """End the stream without a word: the client or the connection has gone, or it broke a rule."""
        self.connection.output.drop(self)
        self.ends = True
        if not self.answered:
            self._conclude(gone=True)

    # What goes to the client.

    def begin_answer(self, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        """Send the headers before the first message."""
        if not self.begun:
            self.begun = True
            self.connection.output.headers(self.number, answer_head(metadata), 0)

    def send(self, content: Content) -> None:
        """Send one message."""
        self.begin_answer()
        self.connection.output.message(self, (content,) if isinstance(content, bytes) else content)

    def succeed(self, trailers: bytes = OK_TRAILERS) -> None:
        """End the call with status OK."""
        self.begin_answer()
        self._conclude()
        self.connection.output.end(self, trailers)

    def fail(self, error: ProtocolError, *, gone: bool = False) -> None:
        """End the call with an error, unless it has ended; `gone`: what works for it hears that it need not."""
        if self.answered:
            return
        self._conclude(gone=gone)
        if self.begun:
            self.connection.output.end(self, failure_trailers(error))
        else:
            self.begun = True
            self.connection.output.end(self, failure_head(error))

    def sent_all(self) -> None:
        """Note that the stream's last frame is on its way."""
        if self.kind >= 0:
            self.connection.patience.earn()
        if self.client_done:
            self.connection.forget(self)
        else:
            # It may still send: what it sends is dropped until it ends the stream, or until the next tick.
            self.idle_since = self.connection.service.now()

    def expire(self, error: ProtocolError | None = None) -> None:
        """End the call, and what works for it, with an error; None: because its deadline has passed."""
        self.fail(error or ProtocolError(Code.DEADLINE_EXCEEDED, _LATE), gone=True)

    def watch_deadline(self) -> None:
        """See to it that a call which is not answered at once ends with its deadline."""
        if self.until is not None and not self.answered and self._timer is None:
            delay = max(self.until - time.monotonic(), 0.0)
            self._timer = self.connection.service.call_later(delay, self._expire_and_flush)

    def is_stuck(self, now: float, seconds: float) -> bool:
        """Whether a message has begun and nothing more of it came for so long."""
        return (
            not self.client_done
            and self._reader is not None
            and self._reader.unfinished
            and now - self.idle_since > seconds
        )

    def _expire_and_flush(self) -> None:
        self.connection.run(self.expire, None)
        self.connection.flush()

    def _conclude(self, *, gone: bool = False) -> None:
        """Free what the call has until its outcome; `gone`: before there was one."""
        # First: what works for the call would answer, too.
        self.answered = True
        self._gone = gone
        # What is called back knows the request, which knows this stream: a circle that only the collector would free.
        callbacks, self._callbacks = self._callbacks, []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._held:
            self.connection.held.remove(self._held)
            self._held = 0
        self._reader = None
        if self.kind >= 0:
            self.connection.service.open_calls[self.kind] -= 1
        self.leave()
        if gone:
            for callback in callbacks:
                callback()

    def _count(self, payload_bytes: int, *, last: bool) -> None:
        """Note what came, for the window and for content-length."""
        self._receive_window -= payload_bytes
        if self._receive_window < 0:
            raise StreamFault(self.number, ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the window allows")
        self._body_bytes += payload_bytes
        length = self.head.content_length
        if length is not None and (self._body_bytes > length or (last and self._body_bytes != length)):
            raise StreamFault(self.number, ErrorCode.PROTOCOL_ERROR, "DATA and content-length differ")
        if last:
            self.client_done = True
            if self.ends and not self.outgoing and not self.queued:
                self.connection.forget(self)

    def _hold(self, count: int) -> None:
        """Count bytes that stay in memory until the call has its outcome."""
        self.idle_since = self.connection.service.now()
        self._held += count
        self.connection.held.add_request(count)

    def _grant(self) -> None:
        """Let the client send the rest of its message, and a little more."""
        reader, bounds = self._reader, self.connection.service.bounds
        wanted = (0 if reader is None else reader.missing) + PREFIX_BYTES
        if wanted > self._receive_window or self._receive_window < bounds.stream_window // 2:
            increment = max(wanted, bounds.stream_window) - self._receive_window
            self._receive_window += increment
            self.connection.output.control(window_update(self.number, increment))
