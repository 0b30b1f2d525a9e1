"""A client that sends any bytes: frames of HTTP/2 made by hand, and what the server says to them."""

import itertools
import select
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Self

from hpack import Decoder

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS: Final = 0x4
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED = range(6)
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(6, 12)
CLOSED: Final = -1
"""In place of an error's code: the connection ended without a word."""

_WAIT_SECONDS: Final = 60.0
"""Longer than any answer takes; only a test that fails waits so long."""

_STALL_SECONDS: Final = 2.0
"""After which a server that takes nothing waits for its client to read."""

_ONE_SEND: Final = 1 << 16


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", length: int | None = None) -> bytes:
    """Return a frame; `length`: what it says of its payload where that is not the truth."""
    size = len(payload) if length is None else length
    return struct.pack(">IBI", size << 8 | kind, flags, stream) + payload


def settings(**values: int) -> bytes:
    """Return a SETTINGS frame; names as `s4` for the setting 4."""
    return frame(SETTINGS, payload=b"".join(struct.pack(">HI", int(name[1:]), value) for name, value in values.items()))


def window_update(stream: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, stream=stream, payload=struct.pack(">I", increment))


def rst_stream(stream: int, code: int = CANCEL) -> bytes:
    """Return an RST_STREAM frame."""
    return frame(RST_STREAM, stream=stream, payload=struct.pack(">I", code))


def literal(name: bytes, value: bytes, *, indexed: bool = False) -> bytes:
    """Return one field of a header block, without Huffman coding, in the dynamic table only if `indexed`."""
    return (b"\x40" if indexed else b"\x00") + _string(name) + _string(value)


@lru_cache(maxsize=1024)
def request_block(path: str, *fields: tuple[bytes, bytes]) -> bytes:
    """Return the header block of a call of gRPC."""
    usual = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"test"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
    return b"".join(literal(name, value) for name, value in (*usual, *fields))


def message(body: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """Return a message with its prefix; `length`: what the prefix says where that is not the truth."""
    return struct.pack(">BI", flag, len(body) if length is None else length) + body


def call(stream: int, path: str, body: bytes = b"", *fields: tuple[bytes, bytes]) -> bytes:
    """Return the frames of a whole unary call."""
    return frame(HEADERS, END_HEADERS, stream, request_block(path, *fields)) + frame(
        DATA, END_STREAM, stream, message(body)
    )


@dataclass(frozen=True)
class Frame:
    """What the server sent."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """Of RST_STREAM or GOAWAY."""
        (code,) = struct.unpack_from(">I", self.payload, 4 if self.kind == GOAWAY else 0)
        return int(code)


@dataclass
class Wire:
    """One connection. `send` reads nothing, so what the server sends waits where the network keeps it."""

    socket: socket.socket
    _buffer: bytearray = field(default_factory=bytearray)
    _decoder: Decoder = field(default_factory=Decoder)

    @classmethod
    def connect(cls, address: str, opening: bytes = PREFACE + settings(), *, receive_bytes: int | None = None) -> Self:
        """Connect and send the opening; `receive_bytes`: that the kernel may keep until they are read."""
        host, _, port = address.rpartition(":")
        connection = socket.socket(socket.AF_INET)
        if receive_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.settimeout(_WAIT_SECONDS)
        connection.connect((host, int(port)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = cls(connection)
        wire.send(opening)
        return wire

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def abort(self) -> None:
        """Reset the connection, as a host does that lost the process."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """Send, and return whether the connection still took it."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def frames(self, *, acknowledges: bool = True) -> Iterator[Frame]:
        """Give what the server sends until the connection ends; SETTINGS and PING are acknowledged if so wanted.

        Raises:
            TimeoutError: nothing came for a long time.
        """
        while (head := self._take(9)) is not None:
            size, flags, stream = struct.unpack(">IBI", head)
            payload = self._take(size >> 8)
            if payload is None:
                return
            if acknowledges and size & 0xFF in {SETTINGS, PING} and not flags & ACK:
                self.send(frame(size & 0xFF, ACK, 0, payload if size & 0xFF == PING else b""))
            yield Frame(size & 0xFF, flags, stream, payload)

    def ending(self, *, acknowledges: bool = True) -> int:
        """Return the error's code of the GOAWAY with which the connection ends."""
        code = CLOSED
        for one in self.frames(acknowledges=acknowledges):
            if one.kind == GOAWAY:
                code = one.code
        return code

    def stream_ending(self, stream: int) -> int:
        """Return the error's code that ends a stream or its connection; NO_ERROR after an answer."""
        for one in self.frames():
            if one.kind == GOAWAY or (one.kind == RST_STREAM and one.stream == stream):
                return one.code
            if one.stream == stream and one.flags & END_STREAM and one.kind in {DATA, HEADERS}:
                return NO_ERROR
        return CLOSED

    def answer(self, stream: int) -> tuple[dict[bytes, bytes], bytes]:
        """Return an answer's fields and trailers, and what its DATA held; neither where the stream is reset."""
        fields: dict[bytes, bytes] = {}
        body = bytearray()
        for one in self.frames():
            if one.kind == HEADERS:
                block = dict(self._decoder.decode(one.payload, raw=True))
                if one.stream == stream:
                    fields |= block
            elif one.kind == DATA and one.stream == stream:
                body += one.payload
            if one.kind == GOAWAY or (one.stream == stream and (one.kind == RST_STREAM or one.flags & END_STREAM)):
                break
        return fields, bytes(body)

    def flood(self, pieces: Iterable[bytes], most: int, *, reads: bool = True) -> int:
        """Send pieces until the server ends the connection or `most` are sent; returns how many.

        Raises:
            TimeoutError: the server neither took more nor ended the connection for a long time, or for a while if this
                client does not read.
        """
        sent, data = 0, bytearray()
        for piece in itertools.islice(pieces, most):
            data += piece
            sent += 1
            if len(data) >= _ONE_SEND and not self._send_and_read(data, reads=reads):
                return sent
        self._send_and_read(data, reads=reads)
        return sent

    def _send_and_read(self, data: bytearray, *, reads: bool) -> bool:
        """Send all, reading what comes meanwhile, so that neither side waits for the other."""
        while data:
            seconds = _WAIT_SECONDS if reads else _STALL_SECONDS
            readable, writable, _ = select.select([self.socket] if reads else [], [self.socket], [], seconds)
            if not readable and not writable:
                raise TimeoutError
            try:
                if readable:
                    received = self.socket.recv(_ONE_SEND)
                    if not received:
                        return False
                    self._buffer += received
                if writable:
                    del data[: self.socket.send(data, socket.MSG_DONTWAIT)]
            except BlockingIOError:
                continue
            except OSError:
                return False
        return True

    def _take(self, count: int) -> bytes | None:
        while len(self._buffer) < count:
            try:
                data = self.socket.recv(_ONE_SEND)
            except ConnectionError:
                return None
            if not data:
                return None
            self._buffer += data
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


def _string(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes([size]) + text
    length, size = bytearray([127]), size - 127
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    length.append(size)
    return bytes(length) + text
