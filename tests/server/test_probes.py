"""kubelet's port: a probe is answered once the model serves, and a drain changes no answer."""

import signal
from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2
from tests.server.conftest import RunningServer
from tests.server.waiting import wait_for

from enginesmith_runtime.server.transport.grpc_transport import GrpcTransport
from enginesmith_runtime.server.transport.health import HealthBoard
from enginesmith_runtime.server.transport.limits import TransportLimits

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LIMITS = TransportLimits(
    max_message_bytes=1024, max_connection_age_seconds=None, grace_seconds=0, max_waiting_calls=1, max_streams=1
)


def ask(address: str, name: str, *, seconds: float | None = None) -> grpc.Future:
    """Begin a Check."""
    channel = grpc.insecure_channel(address)
    call = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return call.future(health_pb2.HealthCheckRequest(service=name), timeout=seconds)


def test_a_probe_before_the_model_serves_is_answered_when_it_does() -> None:
    board = HealthBoard(("adder",))
    transport = GrpcTransport(board.methods(probes=True), LIMITS)
    address = transport.start("127.0.0.1:0")
    try:
        gives_up = ask(address, "adder", seconds=0.2)
        assert gives_up.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        waits = ask(address, "adder")
        assert ask(address, "unknown").code() is grpc.StatusCode.NOT_FOUND
        assert not waits.done()
        board.set("adder", serving=True)
        assert waits.result().status == SERVING
        assert ask(address, "adder").result().status == SERVING
        board.set("adder", serving=False)
        assert ask(address, "adder").result().status == NOT_SERVING
    finally:
        transport.stop(0)


def test_a_probe_learns_of_a_failure_and_not_of_a_drain() -> None:
    board = HealthBoard(("adder",))
    board.set("adder", serving=True)
    transport = GrpcTransport(board.methods(probes=True), LIMITS)
    address = transport.start("127.0.0.1:0")
    try:
        board.stop_serving(drains=True)
        assert ask(address, "adder").result().status == SERVING
        board.stop_serving()
        assert ask(address, "adder").result().status == NOT_SERVING
    finally:
        transport.stop(0)


def test_clients_see_a_drain_that_kubelet_s_port_does_not_report(
    start_server: Callable[..., RunningServer], adder_key: str
) -> None:
    server = start_server({"adder": adder_key}, drain_delay_seconds=600.0, health_address="127.0.0.1:0")
    probes = str(server.ready["health"])
    assert ask(probes, "adder").result().status == SERVING
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: ask(server.address, "adder").result().status == NOT_SERVING)
    assert ask(probes, "adder").result().status == SERVING
    assert server.stop() == 0  # the second signal ends the delay
