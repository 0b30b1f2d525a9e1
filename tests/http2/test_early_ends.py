"""Calls that end before their answer, by a deadline, a cancellation or a client that is gone: their handlers know."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from tests.http2 import wire
from tests.http2.interop_service import COUNTERS, WAIT
from tests.http2.wire import Wire

pytestmark = pytest.mark.slow

DEADLINE_EXCEEDED = b"4"


class Watch:
    """What the handlers of a server saw since the test began."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._first = self._read()

    def close(self) -> None:
        """End its connection."""
        self._channel.close()

    def wait_for(self, **counters: int) -> None:
        """Wait until counters have grown by so much."""
        want = {name: self._first[name] + count for name, count in counters.items()}
        for _ in range(6000):
            if (now := {name: self._read()[name] for name in want}) == want:
                return
            time.sleep(0.01)
        assert now == want

    def grown(self, name: str) -> int:
        """Return how much a counter has grown."""
        return self._read()[name] - self._first[name]

    def _read(self) -> dict[str, int]:
        counters: dict[str, int] = json.loads(self._channel.unary_unary(COUNTERS)(b""))
        return counters


@pytest.fixture
def watch(transport_server: Any) -> Iterator[Watch]:
    watch = Watch(transport_server.address)
    yield watch
    watch.close()


@pytest.fixture
def wait(transport_server: Any) -> Iterator[Callable[..., Any]]:
    """Begin a call that nothing answers."""
    with grpc.insecure_channel(transport_server.address) as channel:
        yield channel.unary_unary(WAIT).future


def test_a_handler_learns_of_a_deadline(watch: Watch, wait: Callable[..., Any]) -> None:
    # On a busy machine the deadline may pass before the call is sent.
    for _ in range(100):
        with pytest.raises(grpc.RpcError) as caught:
            wait(b"", timeout=0.3).result()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        if watch.grown("begun"):
            break
    begun = watch.grown("begun")
    assert begun
    watch.wait_for(begun=begun, cancelled=begun, waiting=0)


def test_a_handler_learns_of_a_cancellation(watch: Watch, wait: Callable[..., Any]) -> None:
    future = wait(b"")
    watch.wait_for(waiting=1)
    future.cancel()
    watch.wait_for(begun=1, cancelled=1, waiting=0)


@pytest.mark.parametrize("close", [True, False], ids=["connection-closed", "connection-reset"])
def test_a_handler_learns_that_its_client_is_gone(watch: Watch, transport_server: Any, *, close: bool) -> None:
    with Wire.connect(transport_server.address) as connection:
        for stream in range(1, 21, 2):
            connection.send(wire.call(stream, WAIT))
        watch.wait_for(waiting=10)
        if not close:
            connection.abort()
    watch.wait_for(begun=10, cancelled=10, waiting=0)


def test_a_handler_learns_of_a_reset_and_the_connection_goes_on(watch: Watch, transport_server: Any) -> None:
    with Wire.connect(transport_server.address) as connection:
        connection.send(wire.call(1, WAIT))
        watch.wait_for(waiting=1)
        connection.send(wire.rst_stream(1))
        watch.wait_for(begun=1, cancelled=1, waiting=0)
        connection.send(wire.call(3, COUNTERS))
        fields, body = connection.answer(3)
        assert fields[b"grpc-status"] == b"0"
        assert b"cancelled" in body


def test_the_server_keeps_the_deadline_of_a_client_that_does_not(http2_server: Any) -> None:
    """A client that still listens gets a status; grpcio's core resets such a call."""
    with Wire.connect(http2_server.address) as connection:
        connection.send(wire.call(1, WAIT, b"", (b"grpc-timeout", b"200m")))
        fields, _ = connection.answer(1)
        assert fields[b"grpc-status"] == DEADLINE_EXCEEDED


@pytest.mark.parametrize("timeout", [b"0n", b"1n"])
def test_a_deadline_that_has_passed_when_the_call_comes_is_answered(http2_server: Any, timeout: bytes) -> None:
    with Wire.connect(http2_server.address) as connection:
        connection.send(wire.call(1, WAIT, b"", (b"grpc-timeout", timeout)))
        fields, _ = connection.answer(1)
        assert fields[b"grpc-status"] == DEADLINE_EXCEEDED


@pytest.mark.parametrize("timeout", [b"99999999H", b"99999999n"])
def test_the_longest_timeouts_are_taken(transport_server: Any, timeout: bytes) -> None:
    with Wire.connect(transport_server.address) as connection:
        connection.send(wire.call(1, COUNTERS, b"", (b"grpc-timeout", timeout)))
        fields, _ = connection.answer(1)
        assert fields[b"grpc-status"] == b"0"
