"""Floods of HTTP/2 frames that are known from attacks: endless, cheap to send, and of no use."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.http2 import wire

Pieces = Iterator[bytes]

_LAST = b"the last"
STALLED = -2
"""In place of an error's code: the server takes nothing more until the client reads."""


@dataclass(frozen=True)
class Target:
    """A method that floods call, with a request for it."""

    path: str
    body: bytes = b""

    def head(self, stream: int, flags: int = wire.END_HEADERS) -> bytes:
        """Return the HEADERS of a call."""
        return wire.frame(wire.HEADERS, flags, stream, wire.request_block(self.path))

    def call(self, stream: int) -> bytes:
        """Return a whole call."""
        return wire.call(stream, self.path, self.body)


@dataclass(frozen=True, kw_only=True)
class Flood:
    """One kind.

    Attributes:
        pieces: makes the frames, of a call or more each.
        code: of the GOAWAY that ends the connection.
        reads: whether the client takes what the server sends. If not, the server may take nothing more either, and the
            GOAWAY may be lost with the rest.
    """

    pieces: Callable[[Target], Pieces]
    code: int = wire.ENHANCE_YOUR_CALM
    reads: bool = True

    def run(self, address: str, target: Target, most: int) -> int | None:
        """Flood a server with as many pieces; returns the code of the GOAWAY that ended it, None: it took them all."""
        with wire.Wire.connect(address, receive_bytes=None if self.reads else 1 << 16) as connection:
            try:
                connection.flood(self.pieces(target), most, reads=self.reads)
            except TimeoutError:
                return STALLED
            connection.send(wire.frame(wire.PING, 0, 0, _LAST))
            code = wire.CLOSED
            for one in connection.frames():
                if one.kind == wire.GOAWAY:
                    code = one.code
                elif one.kind == wire.PING and one.payload == _LAST:
                    return None
            return code

    @property
    def codes(self) -> set[int]:
        """Of the GOAWAY."""
        return {self.code} if self.reads else {self.code, wire.CLOSED, STALLED}


def _streams() -> Iterator[int]:
    return itertools.count(1, 2)


def _rapid_reset(target: Target) -> Pieces:
    """CVE-2023-44487."""
    return (target.head(stream) + wire.rst_stream(stream) for stream in _streams())


def _whole_calls_reset(target: Target) -> Pieces:
    """The same where each handler has begun."""
    return (target.call(stream) + wire.rst_stream(stream) for stream in _streams())


def _made_to_reset(target: Target) -> Pieces:
    """CVE-2025-8671: the server resets, for a window update of nothing."""
    return (target.head(stream) + wire.window_update(stream, 0) for stream in _streams())


def _made_to_reset_by_overflow(target: Target) -> Pieces:
    """The same by a window that is too large."""
    return (target.head(stream) + wire.window_update(stream, (1 << 31) - 1) for stream in _streams())


def _continuation(target: Target) -> Pieces:
    """CVE-2024-27316: a header block that never ends."""
    yield wire.frame(wire.HEADERS, 0, 1, wire.request_block(target.path))
    yield from itertools.repeat(wire.frame(wire.CONTINUATION, 0, 1, wire.literal(b"x", b"y" * 100)))


def _empty_continuation(target: Target) -> Pieces:
    yield wire.frame(wire.HEADERS, 0, 1, wire.request_block(target.path))
    yield from itertools.repeat(wire.frame(wire.CONTINUATION, 0, 1))


def _ping(_target: Target) -> Pieces:
    """CVE-2019-9512."""
    return itertools.repeat(wire.frame(wire.PING, payload=bytes(8)))


def _settings(_target: Target) -> Pieces:
    """CVE-2019-9515."""
    return itertools.repeat(wire.settings(s4=1000))


def _growing_windows(target: Target) -> Pieces:
    """Each SETTINGS changes the windows of many streams."""
    yield from itertools.islice((target.head(stream) for stream in _streams()), 64)
    yield from itertools.cycle((wire.settings(s4=1), wire.settings(s4=100_000)))


def _table_sizes(_target: Target) -> Pieces:
    return itertools.cycle((wire.settings(s1=0), wire.settings(s1=4096)))


def _empty_data(target: Target) -> Pieces:
    """CVE-2019-9518."""
    yield target.head(1)
    yield from itertools.repeat(wire.frame(wire.DATA, 0, 1))


def _padding_alone(target: Target) -> Pieces:
    """DATA frames that hold nothing but their padding."""
    yield target.head(1)
    yield from itertools.repeat(wire.frame(wire.DATA, 0x8, 1, b"\x02\x00\x00"))


def _empty_headers(_target: Target) -> Pieces:
    """Requests without a field."""
    return (wire.frame(wire.HEADERS, wire.END_HEADERS, stream) for stream in _streams())


def _malformed_requests(target: Target) -> Pieces:
    """Requests that break a rule of HTTP/2, each a stream that the server resets."""
    block = wire.request_block(target.path, (b"Connection", b"close"))
    return (wire.frame(wire.HEADERS, wire.END_HEADERS, stream, block) for stream in _streams())


def _priority(_target: Target) -> Pieces:
    """CVE-2019-9513."""
    return (wire.frame(wire.PRIORITY, 0, stream, b"\x00\x00\x00\x00\x10") for stream in _streams())


def _window_updates(_target: Target) -> Pieces:
    return itertools.repeat(wire.window_update(0, 1))


def _window_updates_of_a_stream(target: Target) -> Pieces:
    yield target.head(1)
    yield from itertools.repeat(wire.window_update(1, 1))


def _resets_of_closed_streams(target: Target) -> Pieces:
    yield target.call(1) + wire.rst_stream(1)
    yield from itertools.repeat(wire.rst_stream(1))


def _unknown_frames(_target: Target) -> Pieces:
    return itertools.repeat(wire.frame(0xBE, 0, 0))


def _data_of_a_closed_stream(target: Target) -> Pieces:
    yield target.head(1) + wire.rst_stream(1)
    yield from itertools.repeat(wire.frame(wire.DATA, 0, 1, b"x"))


def _unknown_methods(_target: Target) -> Pieces:
    """Calls that the server refuses at once, so that refusals collect if the client does not read them."""
    return (wire.call(stream, "/no.such/Method") for stream in _streams())


def _no_calls(target: Target) -> Pieces:
    """Requests of HTTP that gRPC does not know."""
    block = wire.request_block(target.path).replace(wire.literal(b":method", b"POST"), wire.literal(b":method", b"GET"))
    ended = wire.END_HEADERS | wire.END_STREAM
    return (wire.frame(wire.HEADERS, ended, stream, block) for stream in _streams())


FLOODS = {
    "rapid reset": Flood(pieces=_rapid_reset),
    "whole calls reset": Flood(pieces=_whole_calls_reset),
    "made to reset": Flood(pieces=_made_to_reset),
    "made to reset by overflow": Flood(pieces=_made_to_reset_by_overflow),
    "CONTINUATION": Flood(pieces=_continuation),
    "empty CONTINUATION": Flood(pieces=_empty_continuation),
    "PING": Flood(pieces=_ping),
    "PING, answers unread": Flood(pieces=_ping, reads=False),
    "SETTINGS": Flood(pieces=_settings),
    "SETTINGS, answers unread": Flood(pieces=_settings, reads=False),
    "SETTINGS of many windows": Flood(pieces=_growing_windows),
    "SETTINGS of table sizes": Flood(pieces=_table_sizes),
    "empty DATA": Flood(pieces=_empty_data),
    "DATA of padding": Flood(pieces=_padding_alone),
    "empty HEADERS": Flood(pieces=_empty_headers),
    "malformed requests": Flood(pieces=_malformed_requests),
    "PRIORITY": Flood(pieces=_priority),
    "WINDOW_UPDATE": Flood(pieces=_window_updates),
    "WINDOW_UPDATE of a stream": Flood(pieces=_window_updates_of_a_stream),
    "RST_STREAM of a closed stream": Flood(pieces=_resets_of_closed_streams),
    "unknown frames": Flood(pieces=_unknown_frames),
    "unknown methods, answers unread": Flood(pieces=_unknown_methods, reads=False),
    "no calls of gRPC, answers unread": Flood(pieces=_no_calls, reads=False),
    "DATA of a closed stream": Flood(pieces=_data_of_a_closed_stream, code=wire.STREAM_CLOSED),
}
