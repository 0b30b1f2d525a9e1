"""One client's connection: from the bytes of its socket to frames, and from them to the calls that it has open."""

import logging
from asyncio import BaseTransport, BufferedProtocol, WriteTransport
from collections.abc import Callable
from typing import Final, TypeVar, cast

from typing_extensions import override

from enginesmith_runtime.server.transport.http2.calls import UnaryCall
from enginesmith_runtime.server.transport.http2.control_frames import ControlFrames
from enginesmith_runtime.server.transport.http2.faults import ConnectionFault, StreamFault
from enginesmith_runtime.server.transport.http2.header_blocks import HeaderBlocks
from enginesmith_runtime.server.transport.http2.held_bytes import HeldBytes
from enginesmith_runtime.server.transport.http2.lifetime import Lifetime
from enginesmith_runtime.server.transport.http2.message_reader import PREFIX, PREFIX_BYTES
from enginesmith_runtime.server.transport.http2.openings import Openings
from enginesmith_runtime.server.transport.http2.output import Output
from enginesmith_runtime.server.transport.http2.patience import RESET_POINTS, Patience
from enginesmith_runtime.server.transport.http2.service import Service
from enginesmith_runtime.server.transport.http2.stream import Stream
from enginesmith_runtime.server.transport.http2.wire import (
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEAD,
    LARGEST_STREAM,
    PADDED,
    PREFACE,
    ErrorCode,
    Kind,
    Setting,
    goaway,
    rst_stream,
    settings,
    window_update,
)

__all__ = ["Connection"]

_ArgumentT = TypeVar("_ArgumentT")

_log = logging.getLogger(__name__)

_HEAD_BYTES: Final = 9
_REMEMBERED: Final = 1024
"""Streams that the server reset, and whose client may not know yet."""


class Connection(BufferedProtocol):
    """A connection as asyncio's protocol; everything runs on the event loop.

    Attributes:
        streams: that are open, by number.
        last: the highest number that the client has used.
        lifetime: when it is to end.
    """

    output: Output

    def __init__(self, service: Service) -> None:
        bounds = service.bounds
        self.service = service
        self.streams: dict[int, Stream] = {}
        self.last = 0
        self.patience = Patience(bounds.patience)
        self.blocks = HeaderBlocks(service.heads)
        self.lifetime = Lifetime(self)
        self.openings = Openings(self)
        self._control = ControlFrames(self)
        self._find_head = self.blocks.find
        self._scratch = service.scratch
        self._view = memoryview(service.scratch)
        self._kept = b""
        self._window = bounds.connection_window
        self._reset: dict[int, None] = {}
        self.held = HeldBytes(service)
        # Of answers, counted while the socket takes nothing.
        self._in_socket = 0
        # Of a DATA frame that has come in part: payload and padding to come, whose it is, whether it is the last.
        self._left = 0
        self._padding = 0
        self._data_stream: Stream | None = None
        self._data_last = False
        self._in_place = False
        self._greeted = False
        self.broken = False

    # What the event loop calls.

    @override
    def connection_made(self, transport: BaseTransport) -> None:
        self.transport = cast("WriteTransport", transport)
        bounds = self.service.bounds
        self.output = Output(self.transport, bounds.unread_bytes)
        if len(self.service.connections) >= bounds.connections:
            self.broken = True
            self.transport.abort()
            return
        self.service.connections.add(self)
        self.output.control(
            settings(
                {
                    Setting.MAX_CONCURRENT_STREAMS: bounds.streams,
                    Setting.INITIAL_WINDOW_SIZE: bounds.stream_window,
                    Setting.MAX_FRAME_SIZE: bounds.frame_bytes,
                    Setting.MAX_HEADER_LIST_SIZE: bounds.header_list_bytes,
                }
            )
            + window_update(0, bounds.connection_window - DEFAULT_WINDOW)
        )
        self.output.flush()
        if self.service.leaving:
            self.leave()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.broken = True
        self.service.connections.discard(self)
        self._forget_socket()
        self._drop_streams()

    @override
    def eof_received(self) -> bool:
        return False

    @override
    def pause_writing(self) -> None:
        self.output.pause()
        self._in_socket = self.transport.get_write_buffer_size()
        self.held.add(self._in_socket)
        self.lifetime.paused_at = self.service.now()

    @override
    def resume_writing(self) -> None:
        self.lifetime.paused_at = 0.0
        self._forget_socket()
        self.output.unpause()
        self.output.flush()

    def _forget_socket(self) -> None:
        self.held.remove(self._in_socket)
        self._in_socket = 0

    @override
    def get_buffer(self, sizehint: int) -> memoryview:
        if self.broken or not (self._left or self._kept):
            return self._view
        stream = self._data_stream
        if self._left and stream is not None and (room := stream.room()) is not None:
            self._in_place = True
            return room[: self._left]
        kept = len(self._kept)
        if kept:
            self._scratch[:kept] = self._kept
        return self._view[kept:]

    @override
    def buffer_updated(self, nbytes: int) -> None:
        if self.broken:
            return
        self.lifetime.heard = True
        if self._in_place:
            self._in_place = False
            self.run(self._arrived, nbytes)
        else:
            end = len(self._kept) + nbytes
            self._kept = b""
            self.run(self._parse, end)
        if self.service.gathers:
            self.service.end_read(self)
        self.output.flush()

    # What calls and frames do.

    def run(self, function: Callable[[_ArgumentT], None], argument: _ArgumentT) -> None:
        """Call a function for this connection; what the client did wrong ends the stream or the connection."""
        try:
            function(argument)
        except StreamFault as fault:
            self.reset(fault.stream, fault.code)
        except ConnectionFault as end:
            self.end(end.code, end.why)
        except Exception:  # noqa: BLE001 - whatever it is, it is one client's, and the log has it
            _log.exception("a connection ends by a fault of this server")
            self._end_or_abort()

    def _end_or_abort(self) -> None:
        try:
            self.end(ErrorCode.INTERNAL_ERROR, "a fault of the server; its log says more")
        except Exception:  # noqa: BLE001 - the other connections must not feel it
            self.transport.abort()

    def flush(self) -> None:
        """Send what has collected."""
        self.output.flush()

    def leave(self) -> None:
        """Tell the client to go; see `Lifetime`."""
        self.run(lambda _: self.lifetime.leave(), None)
        self.output.flush()

    @property
    def settled(self) -> bool:
        """Whether the client's first SETTINGS have come."""
        return self._control.settled

    def forget(self, stream: Stream) -> None:
        """Note that a stream has ended."""
        self.streams.pop(stream.number, None)
        if not self.streams:
            self.lifetime.note_idle()

    def reset(self, number: int, code: ErrorCode) -> None:
        """End a stream with RST_STREAM."""
        stream = self.streams.pop(number, None)
        if stream is not None:
            stream.reset()
        self._reset[number] = None
        if len(self._reset) > _REMEMBERED:
            del self._reset[next(iter(self._reset))]
        self.last = max(self.last, number)
        self.run(self.output.control, rst_stream(number, code))
        if code is not ErrorCode.NO_ERROR:
            self.run(lambda what: self.patience.spend(what, RESET_POINTS), "what had to be reset")

    def was_reset(self, number: int) -> bool:
        """Whether the server ended a stream, so that the client may not know it and still send on it."""
        return number in self._reset or number > self.lifetime.last_accepted

    def end(self, code: ErrorCode, why: str = "") -> None:
        """Send GOAWAY and close."""
        if self.broken:
            return
        self.broken = True
        if code is not ErrorCode.NO_ERROR:
            _log.info("a connection ends: %s: %s", code.name, why)
        last = min(self.last, self.lifetime.last_accepted)
        self.transport.write(goaway(last, code, why))
        self._drop_streams()
        self.lifetime.close()

    def _drop_streams(self) -> None:
        streams = tuple(self.streams.values())
        self.streams.clear()
        for stream in streams:
            stream.reset()

    def require_open(self, number: int, what: str) -> Stream | None:
        """Return a stream that a frame is for; None: it has ended.

        Raises:
            ConnectionFault: there never was one.
        """
        stream = self.streams.get(number)
        if stream is None and (number > self.last or not number & 1):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{what} on stream {number}, which is idle")
        return stream

    # The frames.

    def _parse(self, end: int) -> None:  # noqa: C901, PLR0912 - the loop that every request passes: a call less is worth it
        """Take the frames in `scratch[:end]`; what is left of one that has not come whole is kept."""
        scratch, view, streams = self._scratch, self._view, self.streams
        position = 0
        if not self._greeted:
            position = self._take_preface(end)
            if not position:
                self._kept = bytes(view[:end])
                return
        if self._left or self._padding:
            position = self._continue_data(position, end)
        while end - position >= _HEAD_BYTES:
            word, flags, number = HEAD.unpack_from(scratch, position)
            length, kind, number = word >> 8, word & 0xFF, number & LARGEST_STREAM
            start = position + _HEAD_BYTES
            stop = start + length
            if kind == Kind.HEADERS and stop <= end and flags | END_STREAM == END_HEADERS | END_STREAM:
                head = self._find_head(bytes(view[start:stop]))
                if head is not None and number > self.last and not self._control.restricted:
                    position = stop
                    try:
                        self.openings.open(number, head, ended=flags & END_STREAM != 0)
                    except StreamFault as fault:
                        self.reset(fault.stream, fault.code)
                    continue
            elif kind == Kind.DATA and stop <= end and flags == END_STREAM:
                stream = streams.get(number)
                if (
                    type(stream) is UnaryCall
                    and stream.fresh
                    and PREFIX_BYTES <= length <= self._window
                    and PREFIX.unpack_from(scratch, start) == (0, length - PREFIX_BYTES)
                ):
                    self._window -= length
                    position = stop
                    stream.client_done = True
                    stream.start(bytes(view[start + PREFIX_BYTES : stop]))
                    continue
            self._control.check(kind, length, number)
            if kind == Kind.DATA:
                position = self._begin_data(number, flags, start, stop, end)
                if position < 0:
                    position = start - _HEAD_BYTES
                    break
                if self.broken:
                    return
                continue
            if stop > end:
                break
            position = stop
            try:
                self._control.take(kind, flags, number, view[start:stop])
            except StreamFault as fault:
                self.reset(fault.stream, fault.code)
            if self.broken:
                return
        self._kept = bytes(view[position:end])
        if self._window < self.service.bounds.connection_window // 2:
            self._widen()

    def _take_preface(self, end: int) -> int:
        """Return where the frames begin."""
        size = min(end, len(PREFACE))
        if self._view[:size] != PREFACE[:size]:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the client speaks no HTTP/2")
        if size < len(PREFACE):
            return 0
        self._greeted = True
        return size

    def _begin_data(self, number: int, flags: int, start: int, stop: int, end: int) -> int:
        """Take a DATA frame, or what has come of it; returns where the next frame begins, -1: too little has come."""
        length = stop - start
        padding = 0
        if flags & PADDED:
            if start >= end:
                return -1
            padding = self._scratch[start]
            start += 1
            if padding + 1 > length:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the padding is longer than its frame")
        self._window -= length
        if self._window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the connection's window allows")
        stream = self.require_open(number, "DATA")
        if stream is None and not self.was_reset(number):
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"DATA on stream {number}, which has ended")
        payload = stop - start - padding
        if not payload:
            self.patience.spend("empty DATA")
        self._data_stream, self._data_last = stream, bool(flags & END_STREAM)
        self._left, self._padding = payload, padding
        if stream is not None and length != payload:
            try:
                stream.count_padding(length - payload)
            except StreamFault as fault:
                self._fail_data(fault)
        return self._continue_data(start, end, new=True)

    def _continue_data(self, position: int, end: int, *, new: bool = False) -> int:
        """Take what has come of a DATA frame's payload and padding; returns where the next frame begins."""
        count = min(self._left, end - position)
        if count or new:
            self._left -= count
            stream, last = self._data_stream, self._data_last and not self._left
            payload = self._view[position : position + count]
            if stream is not None and (count or last):
                try:
                    stream.receive(payload, last=last)
                except StreamFault as fault:
                    self._fail_data(fault)
            position += count
        if not self._left:
            skipped = min(self._padding, end - position)
            self._padding -= skipped
            position += skipped
        return position

    def _arrived(self, count: int) -> None:
        """Take payload that was received where its message lies."""
        self._left -= count
        stream = self._data_stream
        if stream is None:
            return
        try:
            stream.arrived(count, last=self._data_last and not self._left)
        except StreamFault as fault:
            self._fail_data(fault)
        if self._window < self.service.bounds.connection_window // 2:
            self._widen()

    def _fail_data(self, fault: StreamFault) -> None:
        self._data_stream = None
        self.reset(fault.stream, fault.code)

    def _widen(self) -> None:
        increment = self.service.bounds.connection_window - self._window
        self._window += increment
        self.output.control(window_update(0, increment))
