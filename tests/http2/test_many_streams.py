"""Very many small calls, on one connection and on many: each is answered, and memory stays what it was."""

import itertools
from typing import Any

import pytest
from tests.http2 import wire
from tests.http2.interop_service import SERVICE
from tests.http2.wire import Wire

pytestmark = pytest.mark.slow

EMPTY_CALL = f"{SERVICE}/EmptyCall"
MARGIN = 16 << 20
"""Bytes that a server may keep."""

TOGETHER = 500
"""Calls on their way at once: fewer than a connection may have open."""

OPEN = wire.PREFACE + wire.settings() + wire.window_update(0, (1 << 31) - 1 - 65_535)
LAST_STREAM = (1 << 31) - 1


def _call(connection: Wire, streams: "itertools.count[int]", count: int) -> int:
    """Call so many times; returns how many answers came."""
    answers, frames = 0, connection.frames()
    for _ in range(0, count, TOGETHER):
        connection.send(b"".join(wire.call(next(streams), EMPTY_CALL) for _ in range(TOGETHER)))
        ended = 0
        for one in frames:
            if one.kind == wire.HEADERS and one.flags & wire.END_STREAM:
                ended += 1
                if ended == TOGETHER:
                    break
            assert one.kind not in {wire.RST_STREAM, wire.GOAWAY}
        answers += ended
    return answers


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.extended)])
def test_many_calls_of_one_connection_are_answered(transport_server: Any, count: int) -> None:
    streams = itertools.count(1, 2)
    with Wire.connect(transport_server.address, OPEN) as connection:
        _call(connection, streams, 5000)
        before = transport_server.memory()
        assert _call(connection, streams, count) == count
        assert transport_server.memory() - before < MARGIN


@pytest.mark.parametrize("count", [500, pytest.param(20_000, marks=pytest.mark.extended)])
def test_many_connections_one_after_the_other_are_answered(transport_server: Any, count: int) -> None:
    def connect(times: int) -> None:
        for _ in range(times):
            with Wire.connect(transport_server.address) as connection:
                connection.send(wire.call(1, EMPTY_CALL))
                assert connection.answer(1)[0][b"grpc-status"] == b"0"

    connect(300)
    before = transport_server.memory()
    connect(count)
    assert transport_server.memory() - before < MARGIN


def test_the_last_stream_that_a_connection_can_have_is_answered(transport_server: Any) -> None:
    with Wire.connect(transport_server.address) as connection:
        connection.send(wire.call(1, EMPTY_CALL))
        assert connection.answer(1)[0][b"grpc-status"] == b"0"
        connection.send(wire.call(LAST_STREAM, EMPTY_CALL))
        assert connection.answer(LAST_STREAM)[0][b"grpc-status"] == b"0"
