"""Processes that take requests off the wire for the one with the engines.

What holds for any server is tested elsewhere; `test_under_load.py` runs with and without them.
"""

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from tests.ports import free_port
from tests.server.waiting import wait_for

from enginesmith_contract.protos import inference_pb2 as pb
from enginesmith_contract.serve_request import ServeRequest

pytestmark = pytest.mark.slow

Server = Any
Client = Any  # the fixtures' own types; a test module imports no other
Connect = Callable[[str], Client]
StartServer = Callable[..., Any]
MakeRequest = Callable[..., pb.ModelInferRequest]


@pytest.fixture
def front_ends() -> int:
    return 2


@pytest.fixture
def server(start_server: StartServer, echo_key: str, adder_key: str) -> Server:
    return start_server({"echo": echo_key, "adder": adder_key}, instances=2)


@pytest.fixture
def front_end_of(server: Server) -> Callable[[], list[int]]:
    """Return the processes of the server's front ends."""
    return lambda: _children(server.process.pid)


def _children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _echo_request(values: np.ndarray) -> pb.ModelInferRequest:
    """Return a request for the one tensor `fp64`; the model's other inputs have one element each."""
    request = pb.ModelInferRequest(
        model_name="echo", outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="out_fp64")]
    )
    sizes = {"BOOL": 1, "INT8": 1, "UINT8": 1, "INT16": 2, "UINT16": 2, "FP16": 2, "INT32": 4, "UINT32": 4, "FP32": 4}
    sizes |= {"INT64": 8, "UINT64": 8, "BYTES": 4}
    for datatype, size in sizes.items():
        request.inputs.add(name=datatype.lower(), datatype=datatype, shape=[1])
        request.raw_input_contents.append(bytes(size))
    request.inputs.add(name="fp64", datatype="FP64", shape=values.shape)
    request.raw_input_contents.append(values.tobytes())
    return request


_CHANNEL = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]


def test_messages_of_any_size_come_back_as_they_went_while_others_do(server: Server) -> None:
    random = np.random.default_rng(0)
    # Around the size of a packet, around the first size of a link's memory, and beyond it.
    sizes = [1, 3_000, 4_000, 4_200, 100_000, 131_000, 131_200, 1 << 19, 5, 1 << 20]

    def ask(number: int) -> None:
        call = "/inference.GRPCInferenceService/ModelInfer"
        with grpc.insecure_channel(server.address, options=_CHANNEL) as channel:
            infer = channel.unary_unary(
                call,
                request_serializer=pb.ModelInferRequest.SerializeToString,
                response_deserializer=pb.ModelInferResponse.FromString,
            )
            for turn in range(len(sizes)):
                values = random.random(sizes[(turn + number) % len(sizes)])
                answer = infer(_echo_request(values))
                assert answer.raw_output_contents[0] == values.tobytes()

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(ask, range(6)))


def _memory_of_links(pid: int) -> int:
    """Return the bytes of memory for messages that a process has."""
    sizes = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if "enginesmith-link" in str(descriptor.readlink()):
                sizes += descriptor.stat().st_size
    return sizes


def test_the_memory_of_a_huge_message_is_not_kept(
    server: Server, front_end_of: Callable[[], list[int]], connect: Connect, adder_request: MakeRequest
) -> None:
    client = connect(server.address)
    # An unknown parameter is as good as a tensor for making a request large.
    for size in (10 << 20, 40 << 20):
        request = adder_request(parameters={"padding": pb.InferParameter(string_param="x" * size)})
        assert client.infer(request).outputs
        kept = [_memory_of_links(pid) for pid in front_end_of()]
        assert any(size <= one <= 32 << 20 for one in kept) == (size == 10 << 20), kept
    wait_for(lambda: _memory_of_links(server.process.pid) == 0)


def test_an_answer_carries_its_engine_and_an_error_its_sentence(
    server: Server, connect: Connect, adder_request: MakeRequest, adder_key: str
) -> None:
    client = connect(server.address)
    future = client.begin("ModelInfer", adder_request())
    future.result()
    assert dict(future.initial_metadata())["enginesmith-engine"] == adder_key
    with pytest.raises(grpc.RpcError) as caught:
        client.infer(adder_request(33))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "'a'" in caught.value.details()


def test_health_is_watched_across_processes(server: Server) -> None:
    with grpc.insecure_channel(server.address) as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch", response_deserializer=health_pb2.HealthCheckResponse.FromString
        )
        seen: Iterator[Any] = watch(health_pb2.HealthCheckRequest(service="adder").SerializeToString())
        assert next(seen).status == health_pb2.HealthCheckResponse.SERVING
        server.process.send_signal(signal.SIGTERM)
        assert next(seen).status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_shared_memory_is_the_engines_business(
    start_server: StartServer, connect: Connect, adder_key: str, adder_request: MakeRequest
) -> None:
    client = connect(start_server({"adder": adder_key}, shared_memory=True).address)
    memory = SharedMemory(create=True, size=4096)
    try:
        request = adder_request()
        assert memory.buf is not None
        for tensor, content, offset in zip(request.inputs, request.raw_input_contents, (0, 32), strict=True):
            memory.buf[offset : offset + 32] = content
            tensor.parameters["shared_memory_region"].string_param = "block"
            tensor.parameters["shared_memory_byte_size"].int64_param = 32
            tensor.parameters["shared_memory_offset"].int64_param = offset
        wanted = client.infer(request_with_contents := adder_request()).raw_output_contents[0]
        assert request_with_contents.raw_input_contents
        del request.raw_input_contents[:]
        registration = pb.SystemSharedMemoryRegisterRequest(name="block", key=memory.name, byte_size=4096)
        client.call("SystemSharedMemoryRegister", registration)
        assert client.infer(request).raw_output_contents[0] == wanted
    finally:
        memory.close()
        memory.unlink()


def test_a_front_end_that_dies_is_replaced_and_costs_its_own_clients_only(
    server: Server, front_end_of: Callable[[], list[int]], adder_request: MakeRequest
) -> None:
    before = front_end_of()
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    wait_for(lambda: len(set(front_end_of()) - {before[0]}) == 2)
    answered = 0
    for _ in range(20):  # each connection falls to one of the two
        with grpc.insecure_channel(server.address, options=_CHANNEL) as channel:
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            answered += bool(infer(adder_request().SerializeToString(), wait_for_ready=True))
    assert answered == 20
    assert "another one takes its place" in server.log.read_text()


def test_no_front_end_outlives_its_server(server: Server, front_end_of: Callable[[], list[int]]) -> None:
    front_ends = front_end_of()
    server.process.kill()
    server.process.wait()
    wait_for(lambda: all(map(_gone, front_ends)))


def test_a_stopped_server_leaves_no_front_end(server: Server, front_end_of: Callable[[], list[int]]) -> None:
    front_ends = front_end_of()
    assert server.stop() == 0
    assert all(map(_gone, front_ends))


@pytest.mark.parametrize("others", [0, 2])
def test_a_port_is_not_shared_with_another_server(
    server: Server, start_server: StartServer, adder_key: str, others: int
) -> None:
    with pytest.raises(AssertionError, match="the port is taken"):
        start_server({"adder": adder_key}, address=server.address, front_ends=others)


def test_a_port_whose_connections_are_still_ending_can_be_had_again(
    start_server: StartServer, adder_key: str, connect: Connect, adder_request: MakeRequest
) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as before:
        host, port = before.getsockname()
        with socket.create_connection((host, port)) as client:
            accepted, _ = before.accept()
            # The side that closes first keeps the connection for a minute.
            accepted.close()
            assert client.recv(1) == b""
    again = start_server({"adder": adder_key}, address=f"{host}:{port}")
    assert connect(again.address).infer(adder_request()).outputs


def test_a_request_names_how_many_front_ends_there_can_be() -> None:
    with pytest.raises(ValueError, match="less than or equal to 32"):
        ServeRequest(models=(), front_ends=33)
