"""Queues, deadlines, cancellation, streams and a server's end, with inferences that run until a test lets them end.

The engine that holds them is the one of `fake_gpu_server.py`, under the real server.
"""

import json
import queue
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from tests.server.waiting import HOLD, RUN, doubler_request, metric_of, wait_for, wait_until_pending

from enginesmith_contract.protos import inference_pb2 as pb

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("way", ["http2", "front-ends", "grpcio"], indirect=True),
]

Server = Any
Client = Any  # the fixtures' own types; a test module imports no other
Connect = Callable[[str], Client]
StartServer = Callable[..., Any]
MakeRequest = Callable[..., pb.ModelInferRequest]


@pytest.fixture
def start_holder(start_server: StartServer, doubler_key: str) -> StartServer:
    """Start a server whose model `doubler` holds requests until `let_go`; `others`: further models by key."""

    def start(others: dict[str, str] | None = None, **options: Any) -> Server:
        return start_server({"doubler": doubler_key, **(others or {})}, fake_gpu=True, **options)

    return start


def _held(**fields: Any) -> pb.ModelInferRequest:
    return doubler_request(HOLD, **fields)


def _quick(**fields: Any) -> pb.ModelInferRequest:
    return doubler_request(RUN, **fields)


def _statistics(client: Client, name: str) -> pb.ModelStatistics:
    answer: pb.ModelStatisticsResponse = client.call("ModelStatistics", pb.ModelStatisticsRequest(name=name))
    return answer.model_stats[0]


def _done(futures: list[grpc.Future]) -> int:
    return sum(future.done() for future in futures)


def test_a_full_queue_refuses_at_once_and_the_rest_is_answered(start_holder: StartServer, connect: Connect) -> None:
    server = start_holder(max_queued=2)
    client = connect(server.address)
    running = client.begin("ModelInfer", _held())
    wait_until_pending(server, 1)
    waiting = [client.begin("ModelInfer", _quick()) for _ in range(2)]
    wait_until_pending(server, 3)
    with pytest.raises(grpc.RpcError) as caught:
        client.infer(_quick())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "2 requests wait" in caught.value.details()
    assert not running.done()
    server.let_go()
    for future in (running, *waiting):
        assert future.result().outputs


def test_a_flood_on_one_model_leaves_the_other_model_room(
    start_holder: StartServer, connect: Connect, adder_key: str, adder_request: MakeRequest
) -> None:
    server = start_holder({"adder": adder_key}, max_queued=4)
    client = connect(server.address)
    flood = [client.begin("ModelInfer", _held()) for _ in range(8)]
    wait_until_pending(server, 5)
    assert client.infer(adder_request()).outputs
    wait_for(lambda: _done(flood) == 3)
    server.let_go()
    codes = [future.code() for future in flood]
    # The queue is the model's own and whole, however many models there are.
    assert codes.count(grpc.StatusCode.OK) == 5
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 3


def test_each_model_may_have_a_queue_of_its_own_size(
    start_holder: StartServer, connect: Connect, adder_key: str, adder_request: MakeRequest
) -> None:
    server = start_holder({"adder": adder_key}, max_queued=4, queues={"doubler": 1})
    client = connect(server.address)
    flood = [client.begin("ModelInfer", _held()) for _ in range(4)]
    wait_until_pending(server, 2)
    assert client.infer(adder_request()).outputs
    wait_for(lambda: _done(flood) == 2)
    server.let_go()
    refused = [future for future in flood if future.code() is grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert len(refused) == 2
    for future in refused:
        assert "1 requests wait" in future.details()
        assert "serving.maxQueued" in future.details()


def test_instances_run_at_the_same_time(start_holder: StartServer, connect: Connect) -> None:
    server = start_holder(instances=2)
    client = connect(server.address)
    long = client.begin("ModelInfer", _held())
    wait_until_pending(server, 1)
    for _ in range(5):
        client.infer(_quick())
    assert not long.done()


def test_a_request_whose_deadline_passes_in_the_queue_never_runs(start_holder: StartServer, connect: Connect) -> None:
    server = start_holder()
    client = connect(server.address)
    running = client.begin("ModelInfer", _held())
    wait_until_pending(server, 1)
    with pytest.raises(grpc.RpcError) as caught:
        client.infer(_quick(), timeout=0.05)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    server.let_go()
    running.result()
    assert client.infer(_quick()).outputs
    assert _statistics(client, "doubler").execution_count == 2


def test_the_timeout_parameter_bounds_the_wait_and_the_server_says_so(
    start_holder: StartServer, connect: Connect
) -> None:
    server = start_holder()
    client = connect(server.address)
    running = client.begin("ModelInfer", _held())
    wait_until_pending(server, 1)
    with pytest.raises(grpc.RpcError) as caught:
        client.infer(_quick(parameters={"timeout": pb.InferParameter(int64_param=1000)}))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "was not run" in caught.value.details()
    # It was told while the instance was still busy.
    assert not running.done()
    server.let_go()
    running.result()


def test_a_request_cancelled_in_the_queue_never_runs_and_frees_its_place(
    start_holder: StartServer, connect: Connect
) -> None:
    server = start_holder(max_queued=1)
    client = connect(server.address)
    running = client.begin("ModelInfer", _held())
    wait_until_pending(server, 1)
    cancelled = client.begin("ModelInfer", _quick())
    wait_until_pending(server, 2)
    cancelled.cancel()
    wait_until_pending(server, 1)
    next_one = client.begin("ModelInfer", _quick())
    wait_until_pending(server, 2)
    server.let_go()
    running.result()
    assert next_one.result().outputs
    statistics = _statistics(client, "doubler")
    assert statistics.execution_count == 2
    assert statistics.inference_stats.fail.count >= 1


class _Stream:
    """A ModelStreamInfer call whose requests a test sends one at a time."""

    def __init__(self, client: Client) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        call = client.channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        self.answers: Iterator[pb.ModelStreamInferResponse] = call(iter(self._requests.get, None))

    def send(self, request: pb.ModelInferRequest | bytes) -> None:
        self._requests.put(request if isinstance(request, bytes) else request.SerializeToString())

    def close(self) -> None:
        self._requests.put(None)


def test_a_stream_goes_on_after_errors_and_keeps_its_order(
    start_holder: StartServer, connect: Connect, adder_key: str, adder_request: MakeRequest
) -> None:
    server = start_holder({"adder": adder_key}, instances=2)
    client = connect(server.address)
    stream = _Stream(client)
    stream.send(_held(id="held"))
    stream.send(adder_request(id="quick"))
    stream.send(adder_request(33, id="outside"))
    stream.send(b"\xff\xff")
    stream.send(adder_request(id="last"))
    stream.close()
    # All others have run before the first may end.
    wait_for(lambda: _statistics(client, "adder").inference_stats.success.count == 2)
    server.let_go()
    answers = list(stream.answers)
    assert [answer.infer_response.id for answer in answers] == ["held", "quick", "outside", "", "last"]
    assert [bool(answer.error_message) for answer in answers] == [False, False, True, True, False]
    assert "'a'" in answers[2].error_message
    assert all(
        answer.infer_response.parameters["triton_final_response"].bool_param
        for answer in answers
        if not answer.error_message
    )


def test_two_requests_of_one_stream_are_in_flight_at_once(start_holder: StartServer, connect: Connect) -> None:
    server = start_holder(instances=2)
    stream = _Stream(connect(server.address))
    stream.send(_held(id="1"))
    stream.send(_held(id="2"))
    wait_until_pending(server, 2)
    stream.close()
    server.let_go()
    assert [answer.infer_response.id for answer in stream.answers] == ["1", "2"]


def _resident_mib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) >> 10


def test_a_long_stream_keeps_none_of_its_requests(
    start_server: StartServer, connect: Connect, adder_key: str, adder_request: MakeRequest
) -> None:
    server = start_server({"adder": adder_key})
    stream = _Stream(connect(server.address))
    # An unknown parameter is as good as a tensor for making a request large.
    request = adder_request(parameters={"padding": pb.InferParameter(string_param="x" * (1 << 20))}).SerializeToString()
    sizes = []
    for _ in range(20):
        for _ in range(20):
            stream.send(request)
            assert next(stream.answers).infer_response.outputs
        sizes.append(_resident_mib(server.process.pid))
    stream.close()
    assert sizes[-1] - sizes[2] < 150, sizes


def test_more_requests_than_a_stream_may_have_in_flight_are_all_answered(
    start_server: StartServer, connect: Connect, adder_key: str, adder_request: MakeRequest
) -> None:
    server = start_server({"adder": adder_key})
    stream = _Stream(connect(server.address))
    for number in range(200):
        stream.send(adder_request(id=str(number)))
    stream.close()
    answers = list(stream.answers)
    assert [answer.infer_response.id for answer in answers] == [str(number) for number in range(200)]
    assert not any(answer.error_message for answer in answers)


def test_a_server_that_drains_answers_every_request_and_says_not_serving(
    start_server: StartServer, connect: Connect, adder_key: str, adder_request: MakeRequest
) -> None:
    server = start_server({"adder": adder_key}, drain_delay_seconds=600.0, health_address="127.0.0.1:0")
    client = connect(server.address)
    watch = _watch(connect(str(server.ready["health"])))
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    left = threading.Event()
    lost: list[grpc.RpcError] = []
    answered = 0

    def load() -> None:
        nonlocal answered
        while not left.is_set():
            try:
                client.infer(adder_request())
                answered += 1
            except grpc.RpcError as error:
                lost.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    server.process.send_signal(signal.SIGTERM)
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert not client.call("ServerReady", pb.ServerReadyRequest()).ready
    assert not client.call("ModelReady", pb.ModelReadyRequest(name="adder")).ready
    # What an endpoint controller does: it takes the pod out, and clients stop within the delay.
    before = answered
    wait_for(lambda: answered > before + 20 or bool(lost))
    left.set()
    for thread in threads:
        thread.join()
    assert not lost
    assert server.stop() == 0  # the second signal ends the delay


def test_a_client_that_heeds_health_loses_nothing_when_one_of_two_servers_goes(
    start_server: StartServer, adder_key: str, adder_request: MakeRequest
) -> None:
    servers = [start_server({"adder": adder_key}, drain_delay_seconds=600.0) for _ in range(2)]
    config = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}
    options = [("grpc.service_config", json.dumps(config)), ("grpc.enable_retries", 0)]
    data = adder_request().SerializeToString()
    left = threading.Event()
    answers: list[grpc.StatusCode] = []

    def first_has_no_more() -> bool:
        seen, before = len(answers), metric_of(servers[0], "enginesmith_requests_total")
        wait_for(lambda: len(answers) >= seen + 50)
        return metric_of(servers[0], "enginesmith_requests_total") == before

    with grpc.insecure_channel("ipv4:" + ",".join(server.address for server in servers), options=options) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        def load() -> None:
            while not left.is_set():
                answers.append(infer.future(data, wait_for_ready=True).code())

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(answers) >= 50)
        servers[0].process.send_signal(signal.SIGTERM)
        wait_for(first_has_no_more)
        assert servers[0].stop() == 0  # the second signal ends the delay
        after = len(answers)
        wait_for(lambda: len(answers) > after)
        left.set()
        for thread in threads:
            thread.join()
    assert set(answers) == {grpc.StatusCode.OK}


def test_what_runs_when_the_drain_ends_is_still_answered(start_holder: StartServer, connect: Connect) -> None:
    server = start_holder(max_queued=4, grace_seconds=600.0)
    client = connect(server.address)
    futures = [client.begin("ModelInfer", _held()) for _ in range(3)]
    wait_until_pending(server, 3)
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: not _takes_connections(server.address))
    server.let_go()
    for future in futures:
        assert future.result().outputs
    assert server.process.wait(120) == 0


def _takes_connections(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port))).close()
    except ConnectionError:
        return False
    return True


def test_the_grace_bounds_the_end(
    start_server: StartServer, connect: Connect, slow_key: str, slow_request: MakeRequest
) -> None:
    server = start_server({"slow": slow_key}, grace_seconds=0.2)
    client = connect(server.address)
    endless = client.begin("ModelInfer", slow_request(10_000_000))
    wait_until_pending(server, 1)
    assert server.stop() == 0
    assert endless.code() is not grpc.StatusCode.OK


@pytest.mark.parametrize("signals", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT,)], ids=["twice", "keyboard"])
def test_a_hurried_stop_waits_for_no_delay(
    start_server: StartServer, connect: Connect, adder_key: str, signals: tuple[signal.Signals, ...]
) -> None:
    server = start_server({"adder": adder_key}, drain_delay_seconds=600.0)
    watch = _watch(connect(server.address))
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    server.process.send_signal(signals[0])
    for number in signals[1:]:
        # Two signals that come before the first is read are one.
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        server.process.send_signal(number)
    assert server.process.wait(120) == 0


def _watch(client: Client) -> Iterator[health_pb2.HealthCheckResponse]:
    call = client.channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    answers: Iterator[Any] = call(health_pb2.HealthCheckRequest())
    return answers
