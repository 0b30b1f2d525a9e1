"""The frames that carry no message: their rules (RFC 9113, section 6), and what they change."""

from struct import iter_unpack
from typing import TYPE_CHECKING, Final

from enginesmith_runtime.server.transport.http2.bounds import HEADER_BLOCK_BYTES
from enginesmith_runtime.server.transport.http2.faults import ConnectionFault, StreamFault
from enginesmith_runtime.server.transport.http2.patience import RESET_POINTS
from enginesmith_runtime.server.transport.http2.request_head import trailers_malformed
from enginesmith_runtime.server.transport.http2.wire import (
    ACK,
    DEFAULT_FRAME_BYTES,
    END_HEADERS,
    END_STREAM,
    LARGEST_WINDOW,
    PADDED,
    PRIORITY_FLAG,
    ErrorCode,
    Kind,
    Setting,
    frame,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from enginesmith_runtime.server.transport.http2.connection import Connection

__all__ = ["ControlFrames"]

_LARGEST_FRAME: Final = (1 << 24) - 1
_LARGEST_NUMBER: Final = (1 << 31) - 1
_LARGEST_CONTROL_BYTES: Final = DEFAULT_FRAME_BYTES
"""Of a frame other than DATA, which is read whole: a header list has no more, and everything else has less."""

_PRIORITY_BYTES: Final = 5
_GOAWAY_BYTES: Final = 8
_SIZES: Final[dict[int, int]] = {
    Kind.PRIORITY: _PRIORITY_BYTES,
    Kind.RST_STREAM: 4,
    Kind.PING: 8,
    Kind.WINDOW_UPDATE: 4,
}

_OF_A_STREAM: Final = {Kind.DATA, Kind.HEADERS, Kind.PRIORITY, Kind.RST_STREAM, Kind.CONTINUATION}
_OF_THE_CONNECTION: Final = {Kind.SETTINGS, Kind.PING, Kind.GOAWAY}


class ControlFrames:
    """Takes the frames of one connection.

    Attributes:
        restricted: whether only some kind of frame may come next: the first SETTINGS, or the rest of a header block.
    """

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._block = bytearray()
        self._block_of = 0
        self._block_flags = 0
        self._depends_on_itself = False
        self._handlers: dict[int, Callable[[int, int, memoryview], None]] = {
            Kind.HEADERS: self._headers,
            Kind.PRIORITY: self._priority,
            Kind.RST_STREAM: self._rst_stream,
            Kind.SETTINGS: self._settings,
            Kind.PUSH_PROMISE: _refuse_push,
            Kind.PING: self._ping,
            Kind.GOAWAY: _goaway,
            Kind.WINDOW_UPDATE: self._window_update,
            Kind.CONTINUATION: self._continuation,
        }
        self.settled = False
        self.restricted = True

    def check(self, kind: int, length: int, number: int) -> None:
        """Check a frame's head.

        Raises:
            ConnectionFault: no such frame may come now.
        """
        if length > self._connection.service.bounds.frame_bytes:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
        if self.restricted:
            if not self.settled and kind != Kind.SETTINGS:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is no SETTINGS")
            if self._block_of and (kind != Kind.CONTINUATION or number != self._block_of):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame in the middle of a header block")
        if (kind in _OF_A_STREAM and not number) or (kind in _OF_THE_CONNECTION and number):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"frame {kind} on stream {number}")
        if kind != Kind.DATA and length > _LARGEST_CONTROL_BYTES:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"frame {kind} has {length} bytes")

    def take(self, kind: int, flags: int, number: int, payload: memoryview) -> None:
        """Take a whole frame other than DATA.

        Raises:
            ConnectionFault: it breaks a rule of the connection.
            StreamFault: it breaks a rule of its stream.
        """
        size = _SIZES.get(kind)
        if size is not None and len(payload) != size:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"frame {kind} has {len(payload)} bytes")
        handler = self._handlers.get(kind)
        if handler is None:
            self._connection.patience.spend("frames of an unknown kind")
        else:
            handler(flags, number, payload)

    def _headers(self, flags: int, number: int, payload: memoryview) -> None:
        if not number & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"a client cannot open stream {number}")
        if flags & PADDED:
            padding = payload[0] + 1 if payload else 1
            if padding > len(payload):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the padding is longer than its frame")
            payload = payload[1 : len(payload) - padding + 1]
        self._depends_on_itself = False
        if flags & PRIORITY_FLAG:
            if len(payload) < _PRIORITY_BYTES:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS are too short for their priority")
            self._depends_on_itself = int.from_bytes(payload[:4], "big") & _LARGEST_NUMBER == number
            payload = payload[_PRIORITY_BYTES:]
        self._block = bytearray(payload)
        self._block_of, self._block_flags = number, flags
        self.restricted = True
        if flags & END_HEADERS:
            self._end_block()

    def _continuation(self, flags: int, _number: int, payload: memoryview) -> None:
        if not self._block_of:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without a header block")
        self._connection.patience.spend("CONTINUATION")
        self._block += payload
        if len(self._block) > HEADER_BLOCK_BYTES:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM, f"a header block of more than {HEADER_BLOCK_BYTES} bytes"
            )
        if flags & END_HEADERS:
            self._end_block()

    def _end_block(self) -> None:
        connection, number = self._connection, self._block_of
        block, ended = bytes(self._block), bool(self._block_flags & END_STREAM)
        self._block = bytearray()
        self._block_of = 0
        self.restricted = False
        stream = connection.streams.get(number)
        if stream is None and number > connection.last:
            head = connection.blocks.read(block)
            if self._depends_on_itself:
                connection.last = number
                raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")
            connection.openings.open(number, head, ended=ended)
            return
        # Decoded in any case: it may change the table that later blocks refer to.
        fields = connection.blocks.fields(block)
        if stream is None:
            if connection.was_reset(number):
                connection.patience.spend("HEADERS after a reset")
                return
            code = ErrorCode.PROTOCOL_ERROR if connection.openings.was_skipped(number) else ErrorCode.STREAM_CLOSED
            raise ConnectionFault(code, f"HEADERS on stream {number}, which has ended")
        if stream.client_done:
            raise StreamFault(number, ErrorCode.STREAM_CLOSED, "HEADERS after the end")
        malformed = trailers_malformed(fields) if ended else "trailers do not end the stream"
        if malformed or self._depends_on_itself:
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, malformed)
        stream.end_input()

    def _window_update(self, _flags: int, number: int, payload: memoryview) -> None:
        connection = self._connection
        connection.patience.spend("WINDOW_UPDATE")
        increment = int.from_bytes(payload, "big") & LARGEST_WINDOW
        if not number:
            if not increment:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
            connection.output.widen(increment)
            return
        stream = connection.require_open(number, "WINDOW_UPDATE")
        if not increment:
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
        if stream is not None:
            if stream.send_window + increment > LARGEST_WINDOW:
                raise StreamFault(number, ErrorCode.FLOW_CONTROL_ERROR, "the stream's window is too large")
            stream.send_window += increment
            connection.output.resume(stream)

    def _rst_stream(self, _flags: int, number: int, _payload: memoryview) -> None:
        connection = self._connection
        stream = connection.require_open(number, "RST_STREAM")
        unanswered = stream is not None and not stream.answered
        connection.patience.spend("RST_STREAM", RESET_POINTS if unanswered else 1)
        if stream is not None:
            connection.forget(stream)
            stream.reset()

    def _settings(self, flags: int, _number: int, payload: memoryview) -> None:
        if flags & ACK:
            if payload:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS holds something")
            if not self.settled:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is no SETTINGS")
            return
        if len(payload) % 6:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS are cut off")
        connection = self._connection
        # A new window is a change of each stream's.
        connection.patience.spend("SETTINGS", 1 + len(connection.streams) // 16)
        self.settled = True
        self.restricted = bool(self._block_of)
        values: dict[int, int] = {}
        for name, value in iter_unpack(">HI", payload):
            _check_setting(name, value)
            values[name] = value
        output = connection.output
        output.frame_bytes = values.get(Setting.MAX_FRAME_SIZE, output.frame_bytes)
        window = values.get(Setting.INITIAL_WINDOW_SIZE)
        output.control(frame(Kind.SETTINGS, ACK, 0))
        if window is None:
            return
        change, output.stream_window = window - output.stream_window, window
        for stream in tuple(connection.streams.values()):
            stream.send_window += change
            if stream.send_window > LARGEST_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window is too large")
            output.resume(stream)

    def _ping(self, flags: int, _number: int, payload: memoryview) -> None:
        connection = self._connection
        if flags & ACK:
            connection.lifetime.take_pong(bytes(payload))
            return
        connection.patience.spend("PING")
        connection.output.control(frame(Kind.PING, ACK, 0, bytes(payload)))

    def _priority(self, _flags: int, number: int, payload: memoryview) -> None:
        self._connection.patience.spend("PRIORITY")
        if int.from_bytes(payload[:4], "big") & _LARGEST_NUMBER == number:
            if number > self._connection.last:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")


def _refuse_push(_flags: int, _number: int, _payload: memoryview) -> None:
    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client cannot push")


def _goaway(_flags: int, _number: int, payload: memoryview) -> None:
    """Do nothing more: a client that leaves closes the connection when it has its answers."""
    if len(payload) < _GOAWAY_BYTES:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is too short")


def _check_setting(name: int, value: int) -> None:
    if name == Setting.ENABLE_PUSH and value > 1:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH is {value}")
    if name == Setting.INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
        raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE is {value}")
    if name == Setting.MAX_FRAME_SIZE and not DEFAULT_FRAME_BYTES <= value <= _LARGEST_FRAME:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE is {value}")
