"""What both adapters make of calls, with methods that do nothing: sizes, compression, metadata, deadlines, errors."""

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tests.server.waiting import wait_for

from enginesmith_contract.serve_request import TransportName
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.transport.choice import open_transport
from enginesmith_runtime.server.transport.http2 import transport as transport_module
from enginesmith_runtime.server.transport.http2.stream import Stream
from enginesmith_runtime.server.transport.interface import (
    Answer,
    Body,
    CallContext,
    Emit,
    Methods,
    Reply,
    StreamMethod,
    UnaryMethod,
    WatchMethod,
)
from enginesmith_runtime.server.transport.limits import TransportLimits

LIMITS = TransportLimits(
    max_message_bytes=8 << 20,
    max_connection_age_seconds=None,
    grace_seconds=1.0,
    max_waiting_calls=64,
    max_streams=8,
)
SIZES = [0, 1, 4, 5, 16_379, 16_384, 65_530, 65_536, 70_000, (1 << 20) - 5, 1 << 20, 3_000_000, 7_000_000]
UNARY, STREAM, WATCH = "/a.B/Echo", "/a.B/EchoAll", "/a.B/Count"


class _Handlers:
    def __init__(self) -> None:
        self.begun, self.gone = threading.Event(), threading.Event()

    def echo(self, data: Body, context: CallContext, reply: Reply) -> None:
        metadata = tuple(pair for pair in context.metadata() if pair[0].startswith("x-"))
        answer = Answer(bytes(data), metadata, metadata)
        if bytes(data[:5]) == b"fail:":
            raise ProtocolError(Code.NOT_FOUND, bytes(data[5:]).decode())
        if bytes(data) == b"never":

            def end() -> None:
                self.gone.set()
                # grpcio's thread would wait for it, and keep the process from ending.
                reply(ProtocolError(Code.CANCELLED, "the client has gone"))

            context.on_cancel(end)
            self.begun.set()
        elif bytes(data) == b"later":
            context.on_cancel(lambda: (reply, None)[1])  # a callback that refers to the call
            threading.Timer(0.01, reply, (answer,)).start()
        else:
            reply(answer)


def _count(data: Body, emit: Emit) -> Callable[[], None]:
    for number in range(int(bytes(data))):
        emit(b"%d" % number)
    emit(None)
    return lambda: None


@pytest.fixture
def handlers() -> _Handlers:
    return _Handlers()


@pytest.fixture(params=["http2", "http2 on asyncio", "grpcio"])
def channel(
    request: pytest.FixtureRequest, handlers: _Handlers, monkeypatch: pytest.MonkeyPatch
) -> Iterator[grpc.Channel]:
    if "asyncio" in request.param:
        monkeypatch.setattr(transport_module, "new_event_loop", asyncio.new_event_loop)
    methods: Methods = {
        UNARY: UnaryMethod(handlers.echo, waits=True),
        STREAM: StreamMethod(handlers.echo, 4),
        WATCH: WatchMethod(_count),
    }
    transport = open_transport(TransportName(request.param.split()[0]), methods, LIMITS)
    address = transport.start("127.0.0.1:0")
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(address, options=options) as opened:
        yield opened
    transport.stop(0.1)


def test_messages_of_every_size_come_back(channel: grpc.Channel) -> None:
    call, messages = channel.unary_unary(UNARY), [bytes([size % 251]) * size for size in SIZES]
    assert [call(message) for message in messages] == messages
    with ThreadPoolExecutor(len(SIZES)) as threads:
        assert list(threads.map(call, messages)) == messages
    assert list(channel.stream_stream(STREAM)(iter(messages))) == messages


@pytest.mark.parametrize("kind", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests_are_read(channel: grpc.Channel, kind: grpc.Compression) -> None:
    messages = [b"abc" * 10, b"x" * 100_000, b"", b"later"]
    call = channel.unary_unary(UNARY)
    assert [call(message, compression=kind) for message in messages] == messages
    assert list(channel.stream_stream(STREAM)(iter(messages), compression=kind)) == messages


def test_a_small_message_that_unpacks_to_a_huge_one_is_refused(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(UNARY)(bytes(64 << 20), compression=grpc.Compression.Gzip)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_metadata_comes_and_goes_before_and_after_the_answer(channel: grpc.Channel) -> None:
    sent = (("x-text", "a b"), ("x-data-bin", bytes(range(256))))
    future = channel.unary_unary(UNARY).future(b"", metadata=sent)
    assert set(sent) <= set(future.initial_metadata())
    assert set(sent) <= set(future.trailing_metadata())
    assert future.result() == b""


@pytest.mark.parametrize("message", ["plain", "100 %", "tabs\tand\nlines", "Größe: 雪", "x" * 3000])
def test_an_error_keeps_its_code_and_its_words(channel: grpc.Channel, message: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(UNARY)(b"fail:" + message.encode())
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, message)


@pytest.mark.parametrize("way_out", ["deadline", "cancel"])
def test_a_handler_is_told_when_its_client_waits_no_longer(
    channel: grpc.Channel, handlers: _Handlers, way_out: str
) -> None:
    call = channel.unary_unary(UNARY)
    if way_out == "cancel":
        future = call.future(b"never", timeout=300)
        assert handlers.begun.wait(120)
        future.cancel()
        assert future.code() is grpc.StatusCode.CANCELLED
    # On a busy machine a deadline may pass before the call is sent.
    while not handlers.begun.is_set():
        assert call.future(b"never", timeout=0.2).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert handlers.gone.wait(120)


def test_a_stream_answers_in_order_whichever_request_is_done_first(channel: grpc.Channel) -> None:
    messages = [b"later", b"1", b"later", b"2", b"3"] * 20
    assert list(channel.stream_stream(STREAM)(iter(messages))) == messages


def test_a_watch_ends_when_nothing_more_is_to_come(channel: grpc.Channel) -> None:
    assert list(channel.unary_stream(WATCH)(b"500")) == [b"%d" % number for number in range(500)]


def test_a_client_that_reads_slowly_gets_everything(channel: grpc.Channel) -> None:
    message = b"z" * 1_000_000
    answers = channel.stream_stream(STREAM)(iter([message] * 30))
    for answer in answers:
        threading.Event().wait(0.005)
        assert answer == message


def test_an_answered_call_is_free_without_the_collector(channel: grpc.Channel) -> None:
    call, stream = channel.unary_unary(UNARY), channel.stream_stream(STREAM)
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            call(b"later", timeout=300)
            list(stream(iter([b"later", b"x"])))
        # The last ones may still be on their way out.
        wait_for(lambda: sum(isinstance(one, Stream) for one in gc.get_objects()) < 10)
    finally:
        gc.enable()
