"""Requests that break gRPC's rules get a status and cost no other call; odd ones that break none are answered."""

import gzip
import itertools
from typing import Any

import pytest
from tests.http2 import interop_pb2 as pb
from tests.http2 import wire
from tests.http2.interop_service import SERVICE
from tests.http2.wire import Wire

pytestmark = pytest.mark.slow

MARGIN = 48 << 20
"""Bytes that a server may keep, whatever it received: the allocator returns some later."""

UNARY = f"{SERVICE}/UnaryCall"
EMPTY = f"{SERVICE}/EmptyCall"
OK, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = b"0", b"3", b"8", b"12", b"13"


def _head(stream: int, *fields: tuple[bytes, bytes], flags: int = wire.END_HEADERS, path: str = UNARY) -> bytes:
    return wire.frame(wire.HEADERS, flags, stream, wire.request_block(path, *fields))


def _data(stream: int, payload: bytes, flags: int = wire.END_STREAM) -> bytes:
    return b"".join(
        wire.frame(wire.DATA, flags if last else 0, stream, payload[start : start + 16_384])
        for start, last in ((at, at + 16_384 >= len(payload)) for at in range(0, max(len(payload), 1), 16_384))
    )


def _works(connection: Wire, stream: int, size: int = 100) -> bool:
    """Whether a call is still answered on this connection."""
    request = pb.SimpleRequest(response_size=size).SerializeToString()
    connection.send(wire.call(stream, UNARY, request))
    fields, body = connection.answer(stream)
    return fields[b"grpc-status"] == OK and len(pb.SimpleResponse.FromString(body[5:]).payload.body) == size


GRPC = (b"content-type", b"application/grpc")
GZIP = (b"grpc-encoding", b"gzip")
BOMB = gzip.compress(bytes(64 << 20))

BROKEN: dict[str, tuple[bytes, bytes]] = {
    "a prefix that says 4 GB": (_head(1) + _data(1, wire.message(b"abc", length=(1 << 32) - 1)), RESOURCE_EXHAUSTED),
    "a prefix that says more than there is": (_head(1) + _data(1, wire.message(b"abc", length=100)), INTERNAL),
    "a prefix that is cut": (_head(1) + _data(1, b"\x00\x00\x00"), INTERNAL),
    "two messages": (_head(1) + _data(1, wire.message(b"") * 2), UNIMPLEMENTED),
    "bytes after the message": (_head(1) + _data(1, wire.message(b"") + b"x"), INTERNAL),
    "no message": (_head(1, flags=wire.END_HEADERS | wire.END_STREAM), UNIMPLEMENTED),
    "no message in DATA": (_head(1) + _data(1, b""), UNIMPLEMENTED),
    "a compressed message without an encoding": (_head(1) + _data(1, wire.message(b"abc", flag=1)), INTERNAL),
    "a flag of another kind": (_head(1) + _data(1, wire.message(b"abc", flag=4)), INTERNAL),
    "an encoding that is unknown": (
        _head(1, (b"grpc-encoding", b"zstd")) + _data(1, wire.message(b"abc", flag=1)),
        UNIMPLEMENTED,
    ),
    "gzip that is none": (_head(1, GZIP) + _data(1, wire.message(b"abc", flag=1)), INTERNAL),
    "gzip that is cut": (_head(1, GZIP) + _data(1, wire.message(gzip.compress(b"abc" * 99)[:-9], flag=1)), INTERNAL),
    "gzip of 64 MB": (_head(1, GZIP) + _data(1, wire.message(BOMB, flag=1)), RESOURCE_EXHAUSTED),
    "a method that is unknown": (_head(1, path="/a/b") + _data(1, wire.message(b"")), UNIMPLEMENTED),
}
"""Frames, and the status that answers them."""

GRPCIO_SAYS = {
    "a prefix that says more than there is": UNIMPLEMENTED,
    "a prefix that is cut": UNIMPLEMENTED,
    "two messages": OK,
    "bytes after the message": OK,
    "a flag of another kind": OK,
    "an encoding that is unknown": INTERNAL,
}
"""Where the library is laxer, or counts the fault among others."""


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_request_gets_a_status_and_its_connection_goes_on(
    adapter: str, transport_server: Any, name: str
) -> None:
    frames, status = BROKEN[name]
    if adapter == "grpcio":
        status = GRPCIO_SAYS.get(name, status)
    with Wire.connect(transport_server.address) as connection:
        connection.send(frames)
        fields, body = connection.answer(1)
        assert fields[b"grpc-status"] == status, fields
        assert (body == b"") == (status != OK)
        assert _works(connection, 3)


REQUEST = pb.SimpleRequest(response_size=5, payload=pb.Payload(body=bytes(300))).SerializeToString()
WHOLE = wire.message(REQUEST)

ODD = {
    "a byte a frame": _head(1)
    + b"".join(wire.frame(wire.DATA, 0, 1, bytes([byte])) for byte in WHOLE)
    + wire.frame(wire.DATA, wire.END_STREAM, 1),
    "trailers": _head(1)
    + wire.frame(wire.DATA, 0, 1, WHOLE)
    + wire.frame(
        wire.HEADERS,
        wire.END_HEADERS | wire.END_STREAM,
        1,
        wire.literal(b"x-checksum", b"1"),
    ),
    "a head in CONTINUATION frames": wire.frame(wire.HEADERS, 0, 1, wire.request_block(UNARY)[:10])
    + wire.frame(wire.CONTINUATION, 0, 1, wire.request_block(UNARY)[10:20])
    + wire.frame(wire.CONTINUATION, wire.END_HEADERS, 1, wire.request_block(UNARY)[20:])
    + _data(1, WHOLE),
    "priority and unknown frames between": _head(1)
    + wire.frame(wire.PRIORITY, 0, 1, bytes([0, 0, 0, 3, 9]))
    + wire.frame(0xBE, 0xFF, 1, b"abc")
    + _data(1, WHOLE),
    "gzip": _head(1, GZIP) + _data(1, wire.message(gzip.compress(REQUEST), flag=1)),
    "gzip named and not used": _head(1, GZIP) + _data(1, WHOLE),
    "a content-type with a subtype": wire.frame(
        wire.HEADERS,
        wire.END_HEADERS,
        1,
        wire.request_block(UNARY).replace(wire.literal(*GRPC), wire.literal(GRPC[0], GRPC[1] + b"+proto")),
    )
    + _data(1, WHOLE),
    "binary metadata": _head(1, (b"trace-bin", b"AAEC"), (b"x-empty", b"")) + _data(1, WHOLE),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_request_is_answered(transport_server: Any, name: str) -> None:
    with Wire.connect(transport_server.address) as connection:
        connection.send(ODD[name])
        fields, body = connection.answer(1)
        assert fields[b"grpc-status"] == OK, fields
        assert len(pb.SimpleResponse.FromString(body[5:]).payload.body) == 5


def test_padding_is_taken_off(http2_server: Any) -> None:
    with Wire.connect(http2_server.address) as connection:
        padded = b"\x40" + WHOLE + bytes(0x40)
        head = b"\x07" + bytes([0, 0, 0, 0, 9]) + wire.request_block(UNARY) + bytes(7)
        connection.send(
            wire.frame(wire.HEADERS, wire.END_HEADERS | 0x8 | 0x20, 1, head)
            + wire.frame(wire.DATA, wire.END_STREAM | 0x8, 1, padded)
        )
        fields, body = connection.answer(1)
        assert fields[b"grpc-status"] == OK, fields
        assert len(pb.SimpleResponse.FromString(body[5:]).payload.body) == 5


def test_a_connection_that_comes_byte_by_byte_is_answered(transport_server: Any) -> None:
    with Wire.connect(transport_server.address, b"") as connection:
        for byte in wire.PREFACE + wire.settings(s3=5) + _head(1) + _data(1, WHOLE):
            connection.send(bytes([byte]))
        fields, _ = connection.answer(1)
        assert fields[b"grpc-status"] == OK


def test_an_answer_comes_whole_through_a_window_of_one_byte(transport_server: Any) -> None:
    size = 1000
    request = pb.SimpleRequest(response_size=size).SerializeToString()
    with Wire.connect(transport_server.address, wire.PREFACE + wire.settings(s4=1)) as connection:
        connection.send(wire.call(1, UNARY, request))
        received, frames = bytearray(), 0
        for one in connection.frames():
            if one.stream == 1 and one.kind == wire.DATA:
                assert len(one.payload) <= 1
                received += one.payload
                frames += bool(one.payload)
                connection.send(wire.window_update(1, 1))
            if one.stream == 1 and one.flags & wire.END_STREAM:
                break
        assert len(pb.SimpleResponse.FromString(bytes(received[5:])).payload.body) == size
        assert frames == len(received)


def test_resets_in_mid_message_leave_the_connection_and_the_memory_as_they_were(transport_server: Any) -> None:
    half = wire.message(bytes(60_000), length=120_000)

    def resets() -> int:
        """Break off 100 messages of 60 kB on one connection; return the memory after that."""
        streams = itertools.count(1, 2)
        broken = (_head(stream) + _data(stream, half, flags=0) + wire.rst_stream(stream) for stream in streams)
        with Wire.connect(transport_server.address) as connection:
            connection.flood(broken, 100)
            assert _works(connection, next(streams))
            return int(transport_server.memory())

    before = max(resets() for _ in range(2))
    after = [resets() for _ in range(16)]
    assert after[-1] - before < MARGIN


def test_a_head_with_too_much_metadata_is_refused_alone(http2_server: Any) -> None:
    block = wire.request_block(UNARY) + wire.literal(b"x", b"y" * 30_000)
    with Wire.connect(http2_server.address) as connection:
        connection.send(wire.frame(wire.HEADERS, 0, 1, block[:16_000]))
        connection.send(wire.frame(wire.CONTINUATION, wire.END_HEADERS, 1, block[16_000:]))
        connection.send(_data(1, WHOLE))
        fields, _ = connection.answer(1)
        assert fields[b"grpc-status"] == RESOURCE_EXHAUSTED
        assert _works(connection, 3)


def test_one_byte_that_stands_for_a_large_field_fills_no_memory(http2_server: Any) -> None:
    """An HPACK bomb: a field of 4,000 bytes in the dynamic table, and then its index 16,000 times: 64 MB a request."""
    insert = wire.literal(b"x", b"y" * 4000, indexed=True)
    bomb = wire.request_block(UNARY) + b"\xbe" * 16_000
    before = http2_server.memory()
    for _ in range(20):
        with Wire.connect(http2_server.address) as connection:
            head = wire.frame(wire.HEADERS, wire.END_HEADERS, 1, wire.request_block(UNARY) + insert)
            connection.send(head + wire.frame(wire.HEADERS, wire.END_HEADERS, 3, bomb))
            assert connection.ending() == wire.ENHANCE_YOUR_CALM
    assert http2_server.memory() - before < MARGIN
    with Wire.connect(http2_server.address) as connection:
        assert _works(connection, 1)
