"""What one connection sends: frames at once where the client's windows have room, and the rest in turns."""

from asyncio import WriteTransport
from collections import deque
from collections.abc import Sequence
from struct import Struct
from typing import TYPE_CHECKING, Final

from enginesmith_runtime.server.transport.http2.answer_head import OK_TRAILERS, answer_head
from enginesmith_runtime.server.transport.http2.bounds import SOCKET_BYTES
from enginesmith_runtime.server.transport.http2.faults import ConnectionFault
from enginesmith_runtime.server.transport.http2.message_reader import PREFIX, PREFIX_BYTES
from enginesmith_runtime.server.transport.http2.wire import (
    DEFAULT_FRAME_BYTES,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEAD,
    LARGEST_WINDOW,
    ErrorCode,
    Kind,
)

if TYPE_CHECKING:
    from enginesmith_runtime.server.transport.http2.stream import Stream

__all__ = ["Chunk", "Output"]

Chunk = bytes | memoryview

_JOINED: Final = 8 << 10
"""Bytes; what is larger is handed to the socket where it lies, what is smaller is joined."""

_ONE_FRAME: Final = 16 << 10
"""Bytes of an answer that is sent in one step with its headers and trailers."""

_ANSWERS: Final[dict[tuple[tuple[str, str], ...], tuple[Struct, int, bytes]]] = {}
"""HEADERS and the head of DATA in one step, by the answer's metadata: there is one for each model."""

_MOST_ANSWERS: Final = 1024

_TRAILERS: Final = Struct(f">IBI{len(OK_TRAILERS)}s").pack
_TRAILERS_WORD: Final = len(OK_TRAILERS) << 8 | Kind.HEADERS
_BOTH_ENDS: Final = END_HEADERS | END_STREAM


class Output:
    """The sending half of a connection.

    Attributes:
        window: bytes of DATA that the client takes on the connection.
        stream_window: bytes that it takes on a stream that begins.
        frame_bytes: the largest frame that it takes.
        paused: whether answers wait: the socket takes nothing for now, or they are held.
    """

    def __init__(self, transport: WriteTransport, unread_bytes: int) -> None:
        self._transport = transport
        self._unread_bytes = unread_bytes
        self._chunks: list[Chunk] = []
        self._large = False
        self._collected = 0
        self._waiting: deque[Stream] = deque()
        self._unread = 0
        self.window = DEFAULT_WINDOW
        self.stream_window = DEFAULT_WINDOW
        self.frame_bytes = DEFAULT_FRAME_BYTES
        self.paused = False
        self._full = False
        self._held = False
        transport.set_write_buffer_limits(high=SOCKET_BYTES)

    def control(self, data: bytes) -> None:
        """Send frames that no window bounds.

        Raises:
            ConnectionFault: the client asks for more and more of them and does not read.
        """
        self._chunks.append(data)
        if self._full:
            self._unread += len(data)
            if self._unread > self._unread_bytes:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "what is sent is not read")

    def headers(self, stream: int, block: bytes, flags: int) -> None:
        """Send a header block: of a few hundred bytes, so in one frame."""
        self._chunks.append(HEAD.pack(len(block) << 8 | Kind.HEADERS, flags | END_HEADERS, stream) + block)

    def answer(self, stream: "Stream", body: bytes, metadata: tuple[tuple[str, str], ...]) -> bool:
        """Send a whole call's answer, if it can be sent in one frame and now; returns whether it was."""
        size = len(body) + PREFIX_BYTES
        if (
            size > self.window
            or size > stream.send_window
            or size > self.frame_bytes
            or size > _ONE_FRAME
            or self.paused
            or self._waiting
        ):
            return False
        self.window -= size
        found = _ANSWERS.get(metadata)
        if found is None:
            block = answer_head(metadata)
            found = Struct(f">IBI{len(block)}sIBIBI"), len(block) << 8 | Kind.HEADERS, block
            if len(_ANSWERS) < _MOST_ANSWERS:
                _ANSWERS[metadata] = found
        head, word, block = found
        number = stream.number
        self._chunks += (
            head.pack(word, END_HEADERS, number, block, size << 8, 0, number, 0, size - PREFIX_BYTES),
            body,
            _TRAILERS(_TRAILERS_WORD, _BOTH_ENDS, number, OK_TRAILERS),
        )
        return True

    def message(self, stream: "Stream", parts: Sequence[Chunk]) -> None:
        """Send a message as soon as the windows have room."""
        size = sum(map(len, parts))
        self._queue(stream, (PREFIX.pack(0, size), *parts), size + PREFIX_BYTES)

    def text(self, stream: "Stream", body: bytes) -> None:
        """Send bytes that are no message of gRPC, the same way, and end the stream with them."""
        stream.ends = True
        self._queue(stream, (body,), len(body))

    def end(self, stream: "Stream", trailers: bytes) -> None:
        """End a stream after what waits on it."""
        stream.trailers = trailers
        stream.ends = True
        if not stream.outgoing:
            if self.paused:
                # The stream stays open until then, so their number is bounded.
                self._enqueue(stream)
            else:
                self._finish(stream)

    def widen(self, increment: int) -> None:
        """Take a WINDOW_UPDATE of the connection."""
        if self.window + increment > LARGEST_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window is too large")
        self.window += increment
        if self._waiting:
            self.pump()

    def resume(self, stream: "Stream") -> None:
        """Send what waits on a stream whose window was widened."""
        if stream.outgoing and stream.send_window > 0:
            self._enqueue(stream)
            self.pump()

    def pause(self) -> None:
        """Keep back what can be kept back: the socket takes nothing."""
        self.paused = self._full = True
        self._unread = 0

    def unpause(self) -> None:
        """Continue: the socket takes more."""
        self._full = False
        self.paused = self._held
        self.pump()

    def hold(self) -> None:
        """Keep messages and the ends of calls back until `release`."""
        self.paused = self._held = True

    def release(self) -> None:
        """Send what was held."""
        self._held = False
        self.paused = self._full
        self.pump()

    def drop(self, stream: "Stream") -> None:
        """Forget what waits on a stream that was reset."""
        if stream.outgoing:
            size = sum(map(len, stream.outgoing))
            stream.connection.held.remove(size)
            stream.outgoing.clear()
        if stream.queued:
            stream.queued = False
            self._waiting.remove(stream)

    def pump(self) -> None:
        """Send a frame of each stream in turn while there is room."""
        waiting = self._waiting
        while waiting and not self.paused and (self.window > 0 or not waiting[0].outgoing):
            stream = waiting.popleft()
            if stream.outgoing and stream.send_window > 0:
                self._send_frame(stream)
            if not stream.outgoing:
                stream.queued = False
                if stream.ends:
                    self._finish(stream)
                else:
                    stream.drained()
            elif stream.send_window > 0:
                waiting.append(stream)
            else:
                stream.queued = False
            if self._collected > SOCKET_BYTES:
                self.flush()

    def flush(self) -> None:
        """Hand to the socket what has collected."""
        chunks = self._chunks
        if not chunks:
            return
        self._chunks = []
        self._collected = 0
        if self._large:
            self._large = False
            self._transport.writelines(chunks)
        else:
            self._transport.write(chunks[0] if len(chunks) == 1 else b"".join(chunks))

    def _queue(self, stream: "Stream", parts: Sequence[Chunk], size: int) -> None:
        stream.outgoing.extend(memoryview(part) for part in parts if len(part))
        stream.connection.held.add(size)
        self._enqueue(stream)
        self.pump()

    def _enqueue(self, stream: "Stream") -> None:
        if not stream.queued:
            stream.queued = True
            self._waiting.append(stream)

    def _send_frame(self, stream: "Stream") -> None:
        outgoing = stream.outgoing
        room = min(self.window, stream.send_window, self.frame_bytes)
        parts: list[Chunk] = []
        size = 0
        while outgoing and size < room:
            part = outgoing[0]
            if len(part) <= room - size:
                outgoing.popleft()
            else:
                part, outgoing[0] = part[: room - size], part[room - size :]
            parts.append(part)
            size += len(part)
            self._large = self._large or len(part) > _JOINED
        flags = END_STREAM if stream.ends and stream.trailers is None and not outgoing else 0
        self._chunks.append(HEAD.pack(size << 8, flags, stream.number))
        self._chunks += parts
        self._collected += size
        self.window -= size
        stream.send_window -= size
        stream.connection.held.remove(size)

    def _finish(self, stream: "Stream") -> None:
        if stream.trailers is not None:
            self.headers(stream.number, stream.trailers, END_STREAM)
        stream.sent_all()
