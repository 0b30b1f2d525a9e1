"""Clients that hold what they began, or take nothing: others are answered, and memory returns when they have gone."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.http2 import interop_pb2 as pb
from tests.http2 import wire
from tests.http2.adapters import make_transport
from tests.http2.interop_service import SERVICE, WAIT, methods
from tests.http2.wire import Wire

from enginesmith_runtime.server.transport.http2.bounds import KEPT_BYTES, SOCKET_BYTES

pytestmark = pytest.mark.slow

CLIENTS = 50

MARGIN = 64 << 20
"""Bytes that a server may keep after its clients have gone: `KEPT_BYTES`, the `SOCKET_BYTES` of each client, and a
quarter of both for the allocator's gaps."""

assert (KEPT_BYTES + CLIENTS * SOCKET_BYTES) * 5 // 4 < MARGIN

MOST_HELD = {"http2": CLIENTS * 5 << 20, "grpcio": 1 << 30}
"""Bytes for four answers of 1 MiB for each client: all of them, where the network keeps none, and a quarter for the
allocator's gaps; the library has no limit."""

EMPTY_CALL = f"{SERVICE}/EmptyCall"
UNARY = f"{SERVICE}/UnaryCall"
DUPLEX = f"{SERVICE}/FullDuplexCall"
LARGE = pb.SimpleRequest(response_size=1 << 20).SerializeToString()
OPEN = wire.PREFACE + wire.settings(s4=(1 << 31) - 1) + wire.window_update(0, (1 << 31) - 1 - 65_535)
SHUT = wire.PREFACE + wire.settings(s4=0)
OK = b"0"


def _head(stream: int, path: str) -> bytes:
    return wire.frame(wire.HEADERS, wire.END_HEADERS, stream, wire.request_block(path))


def _is_answered(server: Any) -> bool:
    with Wire.connect(server.address) as connection:
        connection.send(wire.call(1, EMPTY_CALL))
        return connection.answer(1)[0].get(b"grpc-status") == OK


def _returns(server: Any, before: int) -> bool:
    for _ in range(6000):
        if server.memory() - before < MARGIN:
            return True
        time.sleep(0.01)
    return False


def _nothing(connection: Wire) -> None:
    """Only the opening was sent."""
    del connection


def _half_a_frame(connection: Wire) -> None:
    connection.send(_head(1, UNARY)[:30])


def _half_a_message(connection: Wire) -> None:
    prefix = wire.message(b"", length=3 << 20)
    connection.flood(iter([_head(1, UNARY), wire.frame(wire.DATA, 0, 1, prefix + bytes(16_000))]), 2)


def _half_a_block(connection: Wire) -> None:
    block = wire.request_block(UNARY) + wire.literal(b"x", b"y" * 15_000)
    connection.send(wire.frame(wire.HEADERS, 0, 1, block))


def _answers_that_have_no_window(connection: Wire) -> None:
    for stream in range(1, 9, 2):
        connection.send(wire.call(stream, UNARY, LARGE))


def _calls_that_wait(connection: Wire) -> None:
    for stream in range(1, 9, 2):
        connection.send(wire.call(stream, WAIT))


IDLERS: dict[str, tuple[bytes, Callable[[Wire], None]]] = {
    "no byte": (b"", _nothing),
    "half a preface": (wire.PREFACE[:11], _nothing),
    "no frame": (OPEN, _nothing),
    "half a frame": (OPEN, _half_a_frame),
    "half a header block": (OPEN, _half_a_block),
    "half a message": (OPEN, _half_a_message),
    "a window of nothing": (SHUT, _answers_that_have_no_window),
    "answers not read": (OPEN, _answers_that_have_no_window),
    "answers that the network does not keep": (OPEN, _answers_that_have_no_window),
    "calls that wait": (OPEN, _calls_that_wait),
}


@pytest.mark.parametrize("name", IDLERS)
def test_idle_clients_cost_the_others_nothing(adapter: str, transport_server: Any, name: str) -> None:
    assert _is_answered(transport_server)
    before = transport_server.memory()
    _visit(transport_server, name, before + MOST_HELD[adapter])
    if adapter == "grpcio":
        # What the library freed can stay in its heap. Then the next clients must find it there.
        before = max(before, transport_server.memory())
        _visit(transport_server, name, before + MOST_HELD[adapter])
    assert _returns(transport_server, before)


def _visit(server: Any, name: str, most: int) -> None:
    """Let idle clients come and go; others are answered, and the server's memory stays below `most`."""
    opening, begin = IDLERS[name]
    # How much the kernel takes otherwise depends on what else it has to keep.
    receive_bytes = 4096 if name == "answers that the network does not keep" else None
    with contextlib.ExitStack() as stack:
        for _ in range(CLIENTS):
            connection = stack.enter_context(Wire.connect(server.address, opening, receive_bytes=receive_bytes))
            begin(connection)
        assert _is_answered(server)
        assert server.memory() < most
    assert _is_answered(server)


@pytest.fixture
def serve_with() -> Iterator[Callable[..., str]]:
    """Start a server with bounds; those that are not given are so long that they do not matter. Returns its address."""
    with contextlib.ExitStack() as stack:

        def serve(**bounds: float) -> str:
            transport = make_transport("http2", methods(), {}, {"tick_seconds": 0.05, **bounds})
            stack.callback(transport.stop, 0.0)
            return transport.start("127.0.0.1:0")

        yield serve


@pytest.mark.parametrize("opening", [b"", wire.PREFACE[:11], wire.PREFACE])
def test_a_handshake_that_does_not_end_is_ended(serve_with: Callable[..., str], opening: bytes) -> None:
    with Wire.connect(serve_with(handshake_seconds=0.2), opening) as connection:
        assert connection.ending(acknowledges=False) == wire.SETTINGS_TIMEOUT


def test_a_client_that_answers_no_ping_is_left(serve_with: Callable[..., str]) -> None:
    with Wire.connect(serve_with(keepalive_seconds=0.1, keepalive_timeout_seconds=0.1)) as connection:
        connection.send(wire.call(1, WAIT))
        assert connection.ending(acknowledges=False) == wire.CLOSED


def test_a_client_that_answers_pings_keeps_its_call(serve_with: Callable[..., str]) -> None:
    with Wire.connect(serve_with(keepalive_seconds=0.1)) as connection:
        connection.send(wire.call(1, WAIT))
        pings = (one for one in connection.frames() if one.kind == wire.PING and not one.flags & wire.ACK)
        assert len(list(itertools.islice(pings, 4))) == 4
        connection.send(wire.call(3, EMPTY_CALL))
        assert connection.answer(3)[0][b"grpc-status"] == OK


def test_a_client_without_calls_is_told_to_go(serve_with: Callable[..., str]) -> None:
    with Wire.connect(serve_with(idle_seconds=0.2)) as connection:
        assert connection.ending() == wire.NO_ERROR


def test_a_message_that_does_not_come_on_is_given_up(serve_with: Callable[..., str]) -> None:
    with Wire.connect(serve_with(arrival_seconds=0.2)) as connection:
        connection.send(_head(1, UNARY) + wire.frame(wire.DATA, 0, 1, wire.message(b"abc", length=100)))
        assert connection.answer(1)[0][b"grpc-status"] != OK


def test_a_client_that_does_not_read_is_left(serve_with: Callable[..., str]) -> None:
    address = serve_with(keepalive_seconds=0.2, keepalive_timeout_seconds=0.2)
    with Wire.connect(address, OPEN, receive_bytes=1 << 16) as connection:
        for stream in range(1, 41, 2):
            connection.send(wire.call(stream, UNARY, LARGE))
        # It waits for the end without reading.
        for _ in range(6000):
            if not connection.send(wire.frame(wire.PING, 0, 0, bytes(8))):
                return
            time.sleep(0.01)
    pytest.fail("the connection was never ended")


def test_more_connections_than_there_may_be_are_closed(serve_transport: Any) -> None:
    server = serve_transport("http2", bounds={"connections": 20})
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Wire.connect(server.address))
        first.send(wire.call(1, EMPTY_CALL))
        assert first.answer(1)[0][b"grpc-status"] == OK
        more = [stack.enter_context(Wire.connect(server.address)) for _ in range(60)]
        assert sum(_is_closed(connection) for connection in more) == 41
        first.send(wire.call(3, EMPTY_CALL))
        assert first.answer(3)[0][b"grpc-status"] == OK
    for _ in range(6000):
        with contextlib.suppress(KeyError):
            if _is_answered(server):
                return
        time.sleep(0.01)
    pytest.fail("the room of connections that are gone is not given to others")


def _is_closed(connection: Wire) -> bool:
    connection.send(wire.call(1, EMPTY_CALL))
    return not connection.answer(1)[0]


def test_messages_of_nothing_cannot_fill_the_memory(http2_server: Any) -> None:
    """A message without a byte takes five of the window, and far more in this process."""
    before = http2_server.memory()

    def messages(streams: range) -> Iterator[bytes]:
        slow = pb.StreamingOutputCallRequest(response_parameters=[pb.ResponseParameters(size=1, interval_us=10**9)])
        for stream in streams:
            yield _head(stream, DUPLEX)
            yield from itertools.repeat(wire.frame(wire.DATA, 0, stream, wire.message(slow.SerializeToString())), 4)
        for stream in streams:
            yield from itertools.repeat(wire.frame(wire.DATA, 0, stream, wire.message(b"") * 3200), 60)

    with Wire.connect(http2_server.address) as connection:
        connection.flood(messages(range(1, 9, 2)), 10_000)
        assert _is_answered(http2_server)
        assert http2_server.memory() - before < 64 << 20
    assert _returns(http2_server, before)


@pytest.mark.parametrize("opening", [SHUT, OPEN], ids=["late", "at-once"])
def test_a_stream_that_has_ended_gets_every_answer(transport_server: Any, opening: bytes) -> None:
    """All requests come in the frame that ends their stream; the client may take answers only later."""
    parameters = [pb.ResponseParameters(size=100_000)]
    request = wire.message(pb.StreamingOutputCallRequest(response_parameters=parameters).SerializeToString())
    count = 10
    with Wire.connect(transport_server.address, opening) as connection:
        connection.send(_head(1, DUPLEX) + wire.frame(wire.DATA, wire.END_STREAM, 1, request * count))
        connection.send(wire.frame(wire.PING, 0, 0, bytes(8)))
        received = 0
        for one in _until_the_end(connection.frames()):
            if one.kind == wire.PING and opening is SHUT:
                connection.send(wire.settings(s4=1 << 30) + wire.window_update(0, 1 << 30))
            if one.kind == wire.DATA:
                received += len(one.payload)
    assert received > count * 100_000


def _until_the_end(frames: Iterator[wire.Frame]) -> Iterator[wire.Frame]:
    for one in frames:
        yield one
        if one.stream and one.flags & wire.END_STREAM:
            return
