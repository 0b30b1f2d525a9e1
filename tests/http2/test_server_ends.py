"""Servers that end and connections that grow old: clients go elsewhere, and no call is lost."""

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.http2 import interop_pb2 as pb
from tests.http2 import wire
from tests.http2.interop_service import RELEASE, SERVICE, WAIT
from tests.http2.wire import Wire

pytestmark = pytest.mark.slow

WORKERS = 8
UNARY = f"{SERVICE}/UnaryCall"
DUPLEX = f"{SERVICE}/FullDuplexCall"

Load = Callable[..., contextlib.AbstractContextManager[dict[str, Any]]]


@contextlib.contextmanager
def _go_load(program: Path, *addresses: str) -> Iterator[dict[str, Any]]:
    """Call without pause while the block runs; then the dictionary has the outcome."""
    with subprocess.Popen(
        [program, str(WORKERS), *addresses], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        outcome: dict[str, Any] = {}
        try:
            yield outcome
        finally:
            process.stdin.close()
        outcome |= json.loads(process.stdout.readline())


@contextlib.contextmanager
def _grpcio_load(*addresses: str) -> Iterator[dict[str, Any]]:
    """The same with gRPC's C core, which sends a call again that it had not sent when it read GOAWAY."""
    outcome: dict[str, Any] = {"answered": 0, "failed": {}}
    ending = threading.Event()
    request = pb.SimpleRequest(response_size=100).SerializeToString()

    def run(call: Any) -> None:
        while True:
            try:
                call(request, wait_for_ready=True)
            except grpc.RpcError as error:
                outcome["failed"][str(error)] = 1
            else:
                outcome["answered"] += 1
            if ending.is_set():
                return

    with grpc.insecure_channel(f"ipv4:{','.join(addresses)}") as channel:
        call = channel.unary_unary(UNARY)
        call(request, wait_for_ready=True)
        threads = [threading.Thread(target=run, args=(call,)) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        try:
            yield outcome
        finally:
            ending.set()
            for thread in threads:
                thread.join()


@pytest.fixture(params=["go", "grpcio-client"])
def load(request: pytest.FixtureRequest, grpc_load: Path) -> Load:
    """Each client that must lose nothing."""
    return (lambda *addresses: _go_load(grpc_load, *addresses)) if request.param == "go" else _grpcio_load


def test_no_call_is_lost_when_a_server_ends(adapter: str, serve_transport: Any, load: Load) -> None:
    first, second = serve_transport(adapter), serve_transport(adapter)
    with load(first.address, second.address) as outcome:
        time.sleep(0.3)
        assert first.stop() == 0
        time.sleep(0.3)
    assert outcome["failed"] == {}
    assert outcome["answered"] >= WORKERS


def test_no_call_is_lost_when_connections_grow_old(adapter: str, serve_transport: Any, load: Load) -> None:
    server = serve_transport(adapter, max_connection_age_seconds=0.2)
    with load(server.address) as outcome:
        time.sleep(1.0)
    assert outcome["failed"] == {}
    assert outcome["answered"] >= WORKERS


def test_an_old_connection_is_told_to_go_and_closed(adapter: str, serve_transport: Any) -> None:
    server = serve_transport(adapter, max_connection_age_seconds=0.2)
    with Wire.connect(server.address) as connection:
        assert connection.ending() == wire.NO_ERROR


def test_an_answer_that_takes_longer_than_the_end_begins_still_comes(adapter: str, serve_transport: Any) -> None:
    server = serve_transport(adapter)
    begun, ended = threading.Event(), threading.Event()

    def requests() -> Iterator[bytes]:
        for microseconds in (0, 500_000):
            parameters = [pb.ResponseParameters(size=1, interval_us=microseconds)]
            yield pb.StreamingOutputCallRequest(response_parameters=parameters).SerializeToString()
        ended.wait()

    with grpc.insecure_channel(server.address) as channel:
        answers = channel.stream_stream(DUPLEX)(requests())
        next(answers)
        begun.set()
        server.process.terminate()
        assert next(answers)
        ended.set()
        assert list(answers) == []
    assert server.process.wait(120) == 0


def test_a_call_that_never_ends_holds_the_server_no_longer_than_its_grace(adapter: str, serve_transport: Any) -> None:
    server = serve_transport(adapter, grace_seconds=0.3)
    with grpc.insecure_channel(server.address) as channel:
        future = channel.unary_unary(WAIT).future(b"")
        channel.unary_unary(f"{SERVICE}/EmptyCall")(b"")
        assert server.stop() == 0
        with pytest.raises(grpc.RpcError) as caught:
            future.result()
        assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def test_a_connection_is_told_twice_and_calls_between_are_answered(serve_transport: Any) -> None:
    """RFC 9113, section 6.8: first of the highest stream that there can be, then of the last one that there was."""
    server = serve_transport("http2")
    with Wire.connect(server.address) as connection:
        connection.send(wire.call(1, WAIT))
        connection.send(wire.call(3, UNARY))
        assert connection.answer(3)[0][b"grpc-status"] == b"0"
        server.process.terminate()
        last_streams, answered = [], set()
        for one in connection.frames():
            if one.kind == wire.GOAWAY:
                assert one.code == wire.NO_ERROR
                last_streams.append(int.from_bytes(one.payload[:4], "big"))
                if len(last_streams) == 1:
                    connection.send(wire.call(5, RELEASE))
            elif one.flags & wire.END_STREAM and one.kind == wire.HEADERS:
                answered.add(one.stream)
        assert last_streams == [(1 << 31) - 1, 5]
        assert answered == {1, 5}
    assert server.process.wait(120) == 0


def test_a_call_that_comes_after_the_last_goaway_costs_no_other(serve_transport: Any) -> None:
    server = serve_transport("http2")
    parameters = [pb.ResponseParameters(size=7, interval_us=1_000_000)]
    slow = pb.StreamingOutputCallRequest(response_parameters=parameters).SerializeToString()
    with Wire.connect(server.address) as connection:
        connection.send(wire.call(1, DUPLEX, slow))
        connection.send(wire.call(3, UNARY))
        assert connection.answer(3)[0][b"grpc-status"] == b"0"
        server.process.terminate()
        body = bytearray()
        for one in connection.frames():
            if one.kind == wire.GOAWAY and int.from_bytes(one.payload[:4], "big") == 3:
                connection.send(wire.call(5, UNARY))
            if one.kind == wire.DATA and one.stream == 1:
                body += one.payload
        assert len(pb.StreamingOutputCallResponse.FromString(bytes(body[5:])).payload.body) == 7
