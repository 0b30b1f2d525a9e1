"""Floods end with the RFC's error, and while they last every other connection is answered.

What they leave in memory is measured with real engines (`tests/server/test_hostile_clients.py`). The reference adapter
is not asked: under half of these, the core of grpcio cancels the calls of other connections.
"""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from tests.http2 import wire
from tests.http2.adapters import make_transport
from tests.http2.floods import FLOODS, Target
from tests.http2.interop_service import SERVICE, WAIT

from enginesmith_runtime.server.transport.interface import (
    Answer,
    Body,
    CallContext,
    Reply,
    StreamMethod,
    UnaryMethod,
)

pytestmark = pytest.mark.slow

EMPTY_CALL = f"{SERVICE}/EmptyCall"
TARGET = Target(WAIT)
MOST = 1_000_000
"""Frames of a flood: more than any limit lets through."""


@contextmanager
def neighbour(address: str) -> Iterator[Callable[[], int]]:
    """A client that calls again and again. Gives how many calls were answered; none may fail."""
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(EMPTY_CALL)
        call(b"")
        ending, answered, failed = threading.Event(), itertools.count(), []

        def run() -> None:
            while not ending.is_set():
                try:
                    call(b"")
                except grpc.RpcError as error:
                    failed.append(error)
                    return
                next(answered)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield lambda: next(answered)
            # It waits for a last answer that it asks for now.
            call(b"")
        finally:
            ending.set()
            thread.join()
        assert failed == []


@pytest.fixture(scope="module")
def server(serve_module_transport: Any) -> Any:
    """A server whose patience is so short that no machine is too slow for a flood."""
    return serve_module_transport("http2", bounds={"patience": 500})


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_with_its_error_and_the_others_are_answered(server: Any, name: str) -> None:
    flood = FLOODS[name]
    with neighbour(server.address):
        assert flood.run(server.address, TARGET, MOST) in flood.codes


def _echo(body: Body, context: CallContext, reply: Reply) -> None:
    del context
    reply(Answer(bytes(body)))


@pytest.mark.parametrize("streams", [True, False], ids=["requests of one stream", "calls"])
def test_a_client_that_pings_as_often_as_clients_do_while_it_is_answered_is_no_flood(*, streams: bool) -> None:
    """GRPC's clients probe and update windows with each answer; 300 requests of four such frames each, of 500."""
    pings = wire.frame(wire.PING, payload=bytes(8)) * 4
    method = StreamMethod(_echo, in_flight=2) if streams else UnaryMethod(_echo)
    transport = make_transport("http2", {"/test/Echo": method}, {}, {"patience": 500})
    try:
        with wire.Wire.connect(transport.start("127.0.0.1:0")) as connection:
            if streams:
                head = wire.frame(wire.HEADERS, wire.END_HEADERS, 1, wire.request_block("/test/Echo"))
                request = wire.frame(wire.DATA, 0, 1, wire.message(b"x"))
                connection.send(head + (request + pings) * 300 + wire.frame(wire.DATA, wire.END_STREAM, 1))
                fields, body = connection.answer(1)
                assert body == wire.message(b"x") * 300
            else:
                calls = (wire.call(number, "/test/Echo", b"x") + pings for number in range(1, 601, 2))
                connection.send(b"".join(calls))
                fields, _ = connection.answer(599)
            assert fields[b"grpc-status"] == b"0"
    finally:
        transport.stop(0.0)
