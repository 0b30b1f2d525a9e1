"""A GPU that fails under a server: who is told what, and how the process ends. The GPU is `fake_gpu_server.py`'s."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from tests.server.waiting import (
    FAIL,
    HANG,
    HOLD_AND_FAIL,
    RUN,
    RUN_OUT_OF_MEMORY,
    doubler_request,
    metrics_of,
    wait_until_pending,
)

from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.failure import Failure
from enginesmith_contract.protos import inference_pb2 as pb
from enginesmith_contract.pull_request import ServingReport
from enginesmith_runtime.pod.termination import encode_serving_report

pytestmark = pytest.mark.slow

Server = Any
Client = Any  # the fixtures' own types; a test module imports no other
Connect = Callable[[str], Client]
StartServer = Callable[..., Any]


def test_a_request_without_memory_is_told_so_and_the_server_goes_on(
    start_server: StartServer, connect: Connect, doubler_key: str
) -> None:
    server = start_server({"doubler": doubler_key}, fake_gpu=True)
    client = connect(server.address)
    with pytest.raises(grpc.RpcError) as caught:
        client.infer(doubler_request(RUN_OUT_OF_MEMORY))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "no memory for this request: 12 MiB. Send less." in caught.value.details()
    assert np.frombuffer(client.infer(doubler_request(RUN, 3)).raw_output_contents[0], np.float32).tolist() == [6, 6]
    assert client.call("ServerReady", pb.ServerReadyRequest()).ready
    assert server.stop() == ExitCode.OK


def test_metrics_say_what_the_gpu_holds_and_why_requests_failed(
    start_server: StartServer, connect: Connect, doubler_key: str, adder_key: str
) -> None:
    server = start_server({"doubler": doubler_key, "adder": adder_key}, fake_gpu=True)
    client = connect(server.address)
    for _ in range(2):
        client.begin("ModelInfer", doubler_request(RUN_OUT_OF_MEMORY)).exception()
    broken = doubler_request(RUN)
    broken.inputs[0].datatype = "FP32"
    client.begin("ModelInfer", broken).exception()
    metrics = metrics_of(server)
    labels = 'target="cpu",version="1"'
    held = {
        part: metrics.get(f'enginesmith_device_memory_bytes{{model="doubler",part="{part}",{labels}}}')
        for part in ("weights", "contexts", "buffers", "pinned")
    }
    assert held == {"weights": 1000, "contexts": 200, "buffers": 30, "pinned": 4}
    assert metrics[f'enginesmith_device_allocations_total{{model="doubler",{labels}}}'] == 5
    assert not [name for name in metrics if "device" in name and "adder" in name]
    reasons = {
        reason: metrics.get(f'enginesmith_requests_failed_total{{model="doubler",reason="{reason}",{labels}}}')
        for reason in ("OutOfMemory", "InvalidArgument")
    }
    assert reasons == {"OutOfMemory": 2, "InvalidArgument": 1}


def test_the_configuration_says_which_models_run_on_the_gpu(
    start_server: StartServer, connect: Connect, doubler_key: str, adder_key: str
) -> None:
    client = connect(start_server({"doubler": doubler_key, "adder": adder_key}, fake_gpu=True).address)
    groups = {
        name: client.call("ModelConfig", pb.ModelConfigRequest(name=name)).config.instance_group[0]
        for name in ("doubler", "adder")
    }
    kind = type(groups["adder"])
    assert (groups["doubler"].kind, list(groups["doubler"].gpus)) == (kind.KIND_GPU, [0])
    assert (groups["adder"].kind, list(groups["adder"].gpus)) == (kind.KIND_CPU, [])


def test_a_failed_device_ends_the_server_with_its_code_and_a_report(
    start_server: StartServer, connect: Connect, doubler_key: str
) -> None:
    # The delay and the grace of an ordinary stop must not keep a broken pod alive.
    server = start_server({"doubler": doubler_key}, fake_gpu=True, drain_delay_seconds=600.0, grace_seconds=600.0)
    client = connect(server.address)
    with pytest.raises(grpc.RpcError) as caught:
        client.infer(doubler_request(FAIL))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "an illegal memory access" in caught.value.details()
    assert server.process.wait(120) == ExitCode.DEVICE_FAILED
    report = ServingReport.from_json(server.last_word.read_bytes())
    assert report.engine_key == doubler_key
    assert report.failure is not None
    assert (report.failure.exit_code, report.failure.reason) == (ExitCode.DEVICE_FAILED, "DeviceFailed")
    assert "CUDA error 700" in report.failure.sentence()
    assert "an illegal memory access: CUDA error 700" in server.log.read_text()


def test_what_waits_and_what_comes_is_sent_elsewhere_once_the_device_failed(
    start_server: StartServer, connect: Connect, doubler_key: str
) -> None:
    server = start_server({"doubler": doubler_key}, fake_gpu=True)
    client = connect(server.address)
    failing = client.begin("ModelInfer", doubler_request(HOLD_AND_FAIL))
    wait_until_pending(server, 1)
    waiting = [client.begin("ModelInfer", doubler_request(RUN)) for _ in range(3)]
    wait_until_pending(server, 4)
    server.let_go()
    codes = [future.code() for future in (failing, *waiting)]
    assert codes == [grpc.StatusCode.UNAVAILABLE] * 4
    assert all("send the request to another replica" in future.details() for future in waiting)
    with pytest.raises(grpc.RpcError) as caught:
        client.infer(doubler_request(RUN))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert server.process.wait(120) == ExitCode.DEVICE_FAILED


def test_an_inference_that_never_returns_keeps_no_broken_server_alive(
    start_server: StartServer, connect: Connect, doubler_key: str
) -> None:
    server = start_server({"doubler": doubler_key}, fake_gpu=True, instances=2, health_address="127.0.0.1:0")
    client = connect(server.address)
    watch = _watch(str(server.ready["health"]))
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    hanging = client.begin("ModelInfer", doubler_request(HANG))
    wait_until_pending(server, 1)
    client.begin("ModelInfer", doubler_request(FAIL)).code()
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert hanging.code() is not grpc.StatusCode.OK
    assert server.process.wait(120) == ExitCode.DEVICE_FAILED


def _watch(address: str) -> Iterator[health_pb2.HealthCheckResponse]:
    channel = grpc.insecure_channel(address)
    call = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    answers: Iterator[Any] = call(health_pb2.HealthCheckRequest())
    return answers


@pytest.mark.parametrize("long", ["why", "remedy", "where", "what"])
def test_a_report_fits_the_termination_message_whatever_a_library_said(long: str) -> None:
    texts = {"what": "it broke", "where": "device 0", "why": "CUDA", "remedy": "wait", long: "\udc80ü\n\x00" * 9000}
    failure = Failure(exit_code=31, reason="DeviceFailed", **texts)
    document = encode_serving_report(ServingReport(engine_key="a" * 64, failure=failure))
    assert 3500 < len(document) <= 4096
    read = ServingReport.from_json(document)
    assert read.failure is not None
    assert (read.engine_key, read.failure.reason, read.failure.exit_code) == ("a" * 64, "DeviceFailed", 31)
