"""Makes what broken and hostile clients send: frames that follow the rules, frames that do not, and frames with errors.

The same seed gives the same bytes. Most connections stay alive for a while: what is wrong is rare and at any place.
"""

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.http2 import wire
from tests.http2.interop_service import COUNTERS, SERVICE, WAIT

_PATHS: Final = (
    *(f"{SERVICE}/{name}" for name in ("EmptyCall", "UnaryCall", "FullDuplexCall", "StreamingOutputCall")),
    *(WAIT, COUNTERS, "/no.such/Method", "*", ""),
)
_FIELDS: Final = (
    *((b"grpc-timeout", value) for value in (b"1n", b"1S", b"99999999H", b"", b"-1S", b"1")),
    *((b"grpc-encoding", value) for value in (b"gzip", b"identity", b"deflate", b"zstd")),
    *((b"content-length", value) for value in (b"5", b"0", b"x", b"99999999999999999999")),
    *((b"connection", b"close"), (b"te", b"gzip"), (b":path", b"/twice"), (b"X-Upper", b"1"), (b"", b"")),
    *((b"trace-bin", b"AAEC"), (b"x", b"y" * 300), (b"x\x00", b"1"), (b"x", b" 1"), (b"cookie", b"a\r\nb: c")),
)
_MESSAGES: Final = (b"", b"\x10\x64", b"\x10\x80\x80\x01", b"\x12\x02\x08\x09", b"\xff" * 20, bytes(3000))
_WINDOWS: Final = (0, 1, 5, 1000, 65_535, 1 << 20, (1 << 31) - 1, 1 << 31)


def _blocks() -> tuple[bytes, ...]:
    """Header blocks of requests, good and bad, made once."""
    good = tuple(wire.request_block(path) for path in _PATHS)
    more = tuple(wire.request_block(path, one) for path in _PATHS[:5] for one in _FIELDS)
    indexed = tuple(
        wire.request_block(path)
        + b"".join(wire.literal(b"k%d" % at, b"v" * at, indexed=True) for at in range(0, 60, 7))
        for path in _PATHS[:3]
    )
    references = tuple(
        wire.request_block(_PATHS[0]) + bytes([0x80 | index]) for index in (0, 1, 8, 61, 62, 63, 70, 126)
    )
    sizes = tuple(
        prefix + good[0] for prefix in (b"\x20", b"\x3f\xe1\x1f", b"\x3f\xff\xff\xff\xff\x0f", b"\x3f\xe1\x1f\x20")
    )
    return (*good * 6, *more, *indexed, *references, *sizes)


_BLOCKS: Final = _blocks()

_FATAL_BLOCKS: Final = (
    *(wire.request_block(_PATHS[0]) + bytes([0x80 | index]) for index in (0, 63, 70, 126)),
    *(prefix + _BLOCKS[0] for prefix in (b"\x3f\xff\xff\xff\xff\x0f", b"\x3f\xe1\x1f\x20\x3f")),
    *(b"", b"\x00", b"\xff" * 8, b"\x40\x84\xff\xff\xff\xff\x00"),
)
"""Blocks after which a connection cannot continue, and some of requests without a field."""


@dataclass
class FrameFuzzer:
    """Makes one connection after the other. How often one has harmed or odd frames is chosen for each.

    Attributes:
        frames: how many were made.
    """

    seed: int
    frames: int = 0
    _random: random.Random = field(init=False)
    _stream: int = field(init=False, default=-1)
    _odd: float = field(init=False, default=0.0)
    _open: list[int] = field(init=False, default_factory=list)
    _kinds: tuple[Callable[[], bytes], ...] = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - the same bytes for the same seed
        self._kinds = (
            *(self._call,) * 8,
            *(self._request,) * 4,
            *(self._data,) * 4,
            *(self._window_update,) * 3,
            *(self._rst_stream,) * 2,
            *(self._settings,) * 2,
            self._ping,
            self._priority,
            self._continuation,
            self._goaway,
            self._trailers,
            self._anything,
        )

    def connection(self) -> list[bytes]:
        """Return what one client sends, in the pieces in which it arrives."""
        pick = self._random
        self._stream = -1
        self._open = []
        harm = pick.choice((0.0, 0.0, 0.002, 0.02))
        self._odd = pick.choice((0.0, 0.0005, 0.0005, 0.01))
        opening = wire.PREFACE + wire.settings(s4=pick.choice(_WINDOWS[:7]), s5=pick.choice((16_384, 1 << 20)))
        parts = [opening if pick.random() < 0.98 else self._harmed(opening)]
        for _ in range(pick.choice((3, 30, 100, 300))):
            made = pick.choice(self._kinds)()
            parts.append(self._harmed(made) if pick.random() < harm else made)
        return self._cut(b"".join(parts))

    def _cut(self, data: bytes) -> list[bytes]:
        """Cut data as a network does: mostly in large pieces."""
        pick = self._random
        largest = pick.choice((3, 40, 1500, 1500, 65_536, 65_536, 65_536))
        pieces, at = [], 0
        if largest == 3:
            data = data[:4000]
        while at < len(data):
            size = pick.randint(1, largest)
            pieces.append(data[at : at + size])
            at += size
        return pieces

    def _harmed(self, data: bytes) -> bytes:
        """Return data with an error."""
        pick, harmed = self._random, bytearray(data)
        match pick.randrange(5):
            case 0:
                harmed[pick.randrange(len(harmed))] ^= 1 << pick.randrange(8)
            case 1:
                del harmed[pick.randrange(len(harmed)) :]
            case 2:
                harmed += pick.randbytes(pick.randint(1, 30))
            case 3:
                harmed *= 2
            case _:
                at = pick.randrange(min(len(harmed), 9))
                harmed[at] = pick.randrange(256)
        return bytes(harmed)

    def _made(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
        self.frames += 1
        return wire.frame(kind, flags, stream, payload)

    def _next_stream(self, *, ends: bool) -> int:
        self._stream += 2
        if not ends:
            self._open.append(self._stream)
        return self._stream

    def _any_stream(self) -> int:
        """Return a stream that the client has used, but for a rare one that it has not."""
        pick = self._random
        if self._stream < 0 or pick.random() < self._odd:
            return pick.choice((0, 2, self._stream + 2, self._stream + 100, (1 << 31) - 1, 1 << 31))
        return max(1, self._stream - 2 * min(int(pick.expovariate(0.7)), 20))

    def _open_stream(self, *, ends: bool) -> int:
        """Return a stream on which the client may still send; it sends nothing more after that if it `ends`."""
        pick = self._random
        if not self._open or pick.random() < self._odd:
            return self._any_stream()
        at = len(self._open) - 1 - min(int(pick.expovariate(0.5)), len(self._open) - 1)
        return self._open.pop(at) if ends else self._open[at]

    def _head(self, stream: int, flags: int) -> bytes:
        pick = self._random
        block = pick.choice(_BLOCKS if pick.random() >= self._odd else _FATAL_BLOCKS)
        chance = pick.random()
        if chance < 0.85:
            return self._made(wire.HEADERS, flags | wire.END_HEADERS, stream, block)
        if chance < 0.95:
            cut = pick.randrange(len(block) + 1)
            return self._made(wire.HEADERS, flags, stream, block[:cut]) + self._made(
                wire.CONTINUATION, wire.END_HEADERS, stream, block[cut:]
            )
        padding = pick.randrange(20)
        padded = bytes([padding]) + struct.pack(">IB", pick.choice((0, 1, stream)), 3) + block + bytes(padding)
        return self._made(wire.HEADERS, flags | wire.END_HEADERS | 0x28, stream, padded)

    def _message(self) -> bytes:
        pick, body = self._random, self._random.choice(_MESSAGES)
        if pick.random() < 0.95:
            return wire.message(body)
        return wire.message(
            body, flag=pick.choice((0, 1, 2)), length=pick.choice((0, 3, len(body) + 1, 100_000, (1 << 32) - 1))
        )

    def _call(self) -> bytes:
        stream = self._next_stream(ends=True)
        return self._head(stream, 0) + self._made(wire.DATA, wire.END_STREAM, stream, self._message())

    def _request(self) -> bytes:
        ends = self._random.random() < 0.3
        return self._head(self._next_stream(ends=ends), wire.END_STREAM if ends else 0)

    def _data(self) -> bytes:
        if not self._open:
            return self._call()
        pick, payload = self._random, self._message()
        payload = (
            payload[: pick.randrange(len(payload) + 1)] if pick.random() < 0.3 else payload * pick.choice((1, 1, 5))
        )
        ends = pick.random() < 0.3
        flags = wire.END_STREAM if ends else 0
        if pick.random() < 0.1:
            padding = pick.randrange(256)
            payload, flags = bytes([padding]) + payload + bytes(padding if pick.random() < 0.99 else 0), flags | 0x8
        return self._made(wire.DATA, flags, self._open_stream(ends=ends), payload)

    def _window_update(self) -> bytes:
        payload = struct.pack(
            ">I", self._random.choice(_WINDOWS if self._random.random() < self._odd else _WINDOWS[1:5])
        )
        if self._stream < 0 or self._random.random() < 0.3:
            return self._made(wire.WINDOW_UPDATE, 0, 0, payload)
        stream = self._any_stream()
        return self._made(wire.WINDOW_UPDATE, 0, stream, payload)

    def _rst_stream(self) -> bytes:
        if self._stream < 0:
            return self._call()
        stream = self._any_stream()
        if stream in self._open:
            self._open.remove(stream)
        return self._made(wire.RST_STREAM, 0, stream, struct.pack(">I", self._random.randrange(14)))

    def _settings(self) -> bytes:
        pick = self._random
        if pick.random() < 0.4:
            return self._made(wire.SETTINGS, wire.ACK, 0)
        values = [(pick.choice((1, 3, 4, 6)), pick.choice(_WINDOWS[:6])) for _ in range(pick.randrange(4))]
        if pick.random() < self._odd:
            values.append((pick.randrange(1 << 16), pick.randrange(1 << 32)))
        return self._made(wire.SETTINGS, 0, 0, b"".join(struct.pack(">HI", *value) for value in values))

    def _ping(self) -> bytes:
        return self._made(wire.PING, self._random.choice((0, 0, wire.ACK)), 0, self._random.randbytes(8))

    def _priority(self) -> bytes:
        if self._stream < 0:
            return self._call()
        depends = self._random.choice((0, self._stream + 2))
        return self._made(wire.PRIORITY, 0, self._any_stream() or 1, struct.pack(">IB", depends, 16))

    def _continuation(self) -> bytes:
        if self._random.random() >= self._odd:
            return self._call()
        return self._made(wire.CONTINUATION, wire.END_HEADERS, self._any_stream(), self._random.choice(_BLOCKS))

    def _goaway(self) -> bytes:
        if self._random.random() >= self._odd:
            return self._call()
        return self._made(wire.GOAWAY, 0, 0, struct.pack(">II", self._any_stream(), 0) + b"bye")

    def _trailers(self) -> bytes:
        block = self._random.choice((wire.literal(b"x", b"1"), wire.literal(b":path", b"/"), b""))
        if not self._open:
            return self._call()
        flags = wire.END_HEADERS | self._random.choice((wire.END_STREAM, wire.END_STREAM, 0))
        return self._made(wire.HEADERS, flags, self._open_stream(ends=True), block)

    def _anything(self) -> bytes:
        pick = self._random
        if pick.random() < 0.8:
            return self._made(
                pick.randint(10, 255), pick.randrange(256), self._any_stream(), pick.randbytes(pick.randrange(40))
            )
        kind, flags = pick.randrange(10), pick.randrange(256)
        return self._made(kind, flags, self._any_stream(), pick.randbytes(pick.randrange(40)))
