"""Requests that wait for those that arrived with them."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from tests.http2 import wire
from tests.http2.adapters import make_transport
from tests.http2.wire import Wire

from enginesmith_runtime.server.transport.interface import Answer, Body, CallContext, Reply, UnaryMethod

GATHER, LATE, ALONE = "/test/Gather", "/test/Late", "/test/Alone"


def _gather(body: Body, context: CallContext, reply: Reply) -> None:
    """Answer with how many requests came together, on the event loop."""
    del body
    assert context.gather(_answer_all, (context, reply))


def _answer_all(waiting: Sequence[tuple[CallContext, Reply]]) -> None:
    for context, reply in waiting:
        if not context.cancelled:
            reply(Answer(str(len(waiting)).encode()))


def _late(body: Body, context: CallContext, reply: Reply) -> None:
    """Wait for ever: only the deadline ends the call."""
    del body, reply
    assert context.gather(lambda _: None, None)


def _say_if_alone(body: Body, context: CallContext, reply: Reply) -> None:
    """Answer with whether the call is alone; such a call waits for what arrived with it."""
    del body
    alone = context.comes_alone()
    answer = Answer(str(alone).encode())
    if not alone or not context.gather(lambda _: reply(answer), None):
        reply(answer)


@pytest.fixture
def address() -> Iterator[str]:
    methods = {
        path: UnaryMethod(call, waits=True) for path, call in ((GATHER, _gather), (LATE, _late), (ALONE, _say_if_alone))
    }
    transport = make_transport("http2", methods, {}, {})
    yield transport.start("127.0.0.1:0")
    transport.stop(0.0)


def _together(connection: Wire, first: int, count: int) -> list[Any]:
    streams = range(first, first + 2 * count, 2)
    connection.send(b"".join(wire.call(stream, GATHER) for stream in streams))
    # They are answered in their order.
    return [connection.answer(stream) for stream in streams]


def test_requests_of_one_read_are_gathered_and_each_is_answered(address: str) -> None:
    with Wire.connect(address) as connection:
        for first, count in ((1, 5), (101, 1), (201, 30)):
            for fields, body in _together(connection, first, count):
                assert fields[b"grpc-status"] == b"0"
                assert body[5:] == str(count).encode()


@pytest.mark.parametrize(("most", "count"), [(4, 10), (2000, 700)])
def test_what_is_gathered_runs_before_a_call_is_refused_for_its_number(most: int, count: int) -> None:
    transport = make_transport("http2", {GATHER: UnaryMethod(_gather, waits=True)}, {"max_waiting_calls": most}, {})
    try:
        with Wire.connect(transport.start("127.0.0.1:0")) as connection:
            for fields, _ in _together(connection, 1, count):
                assert fields[b"grpc-status"] == b"0"
    finally:
        transport.stop(0.0)


def test_clients_that_call_in_turn_are_all_answered(address: str) -> None:
    with Wire.connect(address) as one, Wire.connect(address) as other:
        for first in range(1, 41, 2):
            for connection in (one, other):
                connection.send(wire.call(first, GATHER))
            for connection in (one, other):
                assert connection.answer(first)[0][b"grpc-status"] == b"0"


def test_a_client_that_has_gone_keeps_the_others_from_nothing(address: str) -> None:
    with Wire.connect(address) as connection:
        for _ in range(20):
            with Wire.connect(address) as gone:
                gone.send(wire.call(1, GATHER) + wire.rst_stream(1) + wire.call(3, GATHER))
        assert _together(connection, 1, 3)[2][0][b"grpc-status"] == b"0"


def test_the_deadline_of_a_gathered_request_is_watched(address: str) -> None:
    with Wire.connect(address) as connection:
        connection.send(wire.call(1, LATE, b"", (b"grpc-timeout", b"50m")))
        assert connection.answer(1)[0][b"grpc-status"] == b"4"


def _calls_alone(connection: Wire, first: int, count: int) -> list[bytes]:
    answers = []
    for stream in range(first, first + 2 * count, 2):
        connection.send(wire.call(stream, ALONE))
        answers.append(connection.answer(stream)[1][5:])
    return answers


def test_a_client_that_waits_for_each_answer_is_alone_until_another_one_connects(address: str) -> None:
    with Wire.connect(address) as connection:
        assert _calls_alone(connection, 1, 18) == [b"False"] * 16 + [b"True"] * 2
        with Wire.connect(address) as other:
            assert _calls_alone(other, 1, 1) == [b"False"]
            assert _calls_alone(connection, 101, 20) == [b"False"] * 20


def test_calls_that_arrive_together_are_not_alone(address: str) -> None:
    with Wire.connect(address) as connection:
        assert _calls_alone(connection, 1, 17)[-1] == b"True"
        connection.send(b"".join(wire.call(stream, ALONE) for stream in (101, 103)))
        first = connection.answer(103)[1][5:], connection.answer(101)[1][5:]
        assert first == (b"False", b"True")
        assert _calls_alone(connection, 201, 1) == [b"False"]
