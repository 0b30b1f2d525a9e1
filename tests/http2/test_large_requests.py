"""Which thread reads a large request."""

import threading
from collections.abc import Callable

import pytest
from tests.http2 import wire
from tests.http2.adapters import make_transport
from tests.http2.wire import Wire

from enginesmith_runtime.server.transport.http2.bounds import BRIEF_BODY_BYTES
from enginesmith_runtime.server.transport.interface import Answer, Body, Call, CallContext, Reply, UnaryMethod

METHOD = "/test/Thread"
LOOP, READER = "http2", "http2-read_0"


def _name_thread(body: Body, context: CallContext, reply: Reply) -> None:
    del context
    reply(Answer(f"{len(body)} {threading.current_thread().name}".encode()))


@pytest.mark.parametrize(
    ("brief", "expected"),
    [
        (None, READER),
        (lambda body: _name_thread if len(body) == 1 else None, READER),
        (lambda body: _name_thread if len(body) > 1 else None, LOOP),
    ],
)
def test_the_event_loop_reads_a_large_request_where_that_is_brief(
    brief: Callable[[Body], Call | None] | None, expected: str
) -> None:
    method = UnaryMethod(_name_thread, brief=brief)
    transport = make_transport("http2", {METHOD: method}, {}, {})
    size = BRIEF_BODY_BYTES + 1
    try:
        with Wire.connect(transport.start("127.0.0.1:0")) as connection:
            for stream, length, thread in ((1, size, expected), (3, 1, LOOP)):
                head = wire.frame(wire.HEADERS, wire.END_HEADERS, stream, wire.request_block(METHOD))
                parts = wire.message(bytes(length))
                frames = [parts[at : at + 16_384] for at in range(0, len(parts), 16_384)]
                connection.send(head + b"".join(wire.frame(wire.DATA, 0, stream, one) for one in frames[:-1]))
                connection.send(wire.frame(wire.DATA, wire.END_STREAM, stream, frames[-1]))
                fields, body = connection.answer(stream)
                assert fields[b"grpc-status"] == b"0"
                assert body[5:].decode() == f"{length} {thread}"
    finally:
        transport.stop(0.0)
