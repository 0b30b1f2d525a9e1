"""Calls that are open and send nothing keep no other call out."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from tests.server.waiting import wait_for

from enginesmith_contract.protos import inference_pb2 as pb

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("way", ["http2", "front-ends", "grpcio"], indirect=True),
]

Client = Any
Connect = Callable[[str], Client]
StartServer = Callable[..., Any]
MakeRequest = Callable[..., pb.ModelInferRequest]

_SERVICE = "/inference.GRPCInferenceService"


@pytest.fixture
def open_idle() -> Iterator[Callable[..., list[grpc.Call]]]:
    """Return a function that opens calls which send nothing until the test ends."""
    ended = threading.Event()
    calls: list[grpc.Call] = []

    def nothing() -> Iterator[bytes]:
        ended.wait()
        yield from ()

    def begin(client: Client, method: str, count: int) -> list[grpc.Call]:
        opened = [client.channel.stream_stream(method)(nothing()) for _ in range(count)]
        calls.extend(opened)
        return opened

    yield begin
    ended.set()
    for call in calls:
        call.cancel()


def _answers(client: Client, request: pb.ModelInferRequest) -> bool:
    """Return whether health, a question about the server and an inference are all answered."""
    check = client.channel.unary_unary(
        "/grpc.health.v1.Health/Check", response_deserializer=health_pb2.HealthCheckResponse.FromString
    )
    healthy = check(health_pb2.HealthCheckRequest(service="adder").SerializeToString(), timeout=120)
    ready = client.call("ServerReady", pb.ServerReadyRequest(), timeout=120)
    answer = client.infer(request, timeout=120)
    return bool(healthy.status == health_pb2.HealthCheckResponse.SERVING and ready.ready and answer.outputs)


def test_idle_streams_keep_no_other_call_out(
    start_server: StartServer,
    connect: Connect,
    adder_key: str,
    adder_request: MakeRequest,
    open_idle: Callable[..., list[grpc.Call]],
) -> None:
    server = start_server({"adder": adder_key})
    streams = open_idle(connect(server.address), f"{_SERVICE}/ModelStreamInfer", 600)
    wait_for(lambda: any(stream.done() for stream in streams))
    assert _answers(connect(server.address), adder_request())


def test_streams_beyond_the_limit_are_refused_with_the_field_and_an_end_makes_room(
    start_server: StartServer,
    connect: Connect,
    adder_key: str,
    adder_request: MakeRequest,
    open_idle: Callable[..., list[grpc.Call]],
) -> None:
    client = connect(start_server({"adder": adder_key}, max_streams=3).address)
    streams = open_idle(client, f"{_SERVICE}/ModelStreamInfer", 5)
    wait_for(lambda: sum(stream.done() for stream in streams) == 2)
    for stream in streams:
        if stream.done():
            assert stream.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "3 streams are open" in stream.details()
            assert "serving.maxStreams" in stream.details()
        else:
            stream.cancel()
    begin = client.channel.stream_stream(f"{_SERVICE}/ModelStreamInfer")
    request = adder_request().SerializeToString()

    def is_answered() -> bool:
        try:
            return len(list(begin(iter([request]), timeout=120))) == 1
        except grpc.RpcError:
            return False

    wait_for(is_answered)


def test_requests_that_never_arrive_keep_no_health_check_out(
    start_server: StartServer,
    connect: Connect,
    adder_key: str,
    open_idle: Callable[..., list[grpc.Call]],
) -> None:
    client = connect(start_server({"adder": adder_key}, max_queued=0).address)
    calls = open_idle(client, f"{_SERVICE}/ModelInfer", 160)
    wait_for(lambda: any(call.done() for call in calls))
    refused = next(call for call in calls if call.done())
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "serving.maxQueued" in refused.details()
    assert client.call("ServerReady", pb.ServerReadyRequest(), timeout=120).ready
