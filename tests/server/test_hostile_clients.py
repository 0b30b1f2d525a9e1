"""A server of real engines under floods and half requests: valid requests next to them get the right answers."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.http2 import wire
from tests.http2.floods import FLOODS, Target
from tests.http2.wire import Wire

from enginesmith_contract.protos import inference_pb2 as pb

pytestmark = [pytest.mark.slow, pytest.mark.extended]

Server = Any
Connect = Callable[[str], Any]
MakeRequest = Callable[..., pb.ModelInferRequest]

INFER = "/inference.GRPCInferenceService/ModelInfer"
MOST = 60_000
MARGIN = 48 << 20
"""Bytes that a server may keep: what the allocator does not return, and caches that have a limit."""


@pytest.fixture(scope="module")
def server(start_module_server: Callable[..., Server], adder_key: str, slow_key: str) -> Server:
    """One server that every test of this module attacks."""
    return start_module_server({"adder": adder_key, "slow": slow_key}, transport="http2", max_message_bytes=4 << 20)


@pytest.fixture
def valid_requests(server: Server, connect: Connect, adder_request: MakeRequest) -> Iterator[None]:
    """Infers without pause while a test runs; every answer must be right."""
    request, ending, wrong = adder_request(rows=3), threading.Event(), []
    right = np.arange(12, dtype=np.float32) + 1
    client = connect(server.address)

    def infer() -> bool:
        answer = client.infer(request)
        return bool(np.array_equal(np.frombuffer(answer.raw_output_contents[0], np.float32), right))

    def run() -> None:
        while not ending.is_set():
            try:
                if not infer():
                    wrong.append("another value")
            except Exception as error:  # noqa: BLE001 - whatever it is, the test says so
                wrong.append(repr(error))

    assert infer()
    thread = threading.Thread(target=run)
    thread.start()
    yield
    ending.set()
    thread.join()
    assert infer()
    assert wrong == []


def _memory(server: Server) -> int:
    rollup = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text()
    (line,) = (line for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) << 10


@contextmanager
def _memory_returns(server: Server, attack: Callable[[], None]) -> Iterator[None]:
    attack()
    before = _memory(server)
    yield
    for _ in range(6000):
        if _memory(server) - before < MARGIN:
            return
        threading.Event().wait(0.01)
    assert _memory(server) - before < MARGIN


@pytest.mark.usefixtures("valid_requests")
def test_floods_of_inferences_end_and_the_others_are_answered(server: Server, slow_request: MakeRequest) -> None:
    target = Target(INFER, slow_request(1).SerializeToString())

    def attack() -> None:
        for name, flood in FLOODS.items():
            # A slow machine sends no flood.
            assert flood.run(server.address, target, MOST) in {None, *flood.codes}, name

    with _memory_returns(server, attack):
        attack()


@pytest.mark.usefixtures("valid_requests")
def test_half_requests_and_resets_leave_no_trace(server: Server, adder_request: MakeRequest) -> None:
    whole = wire.message(adder_request(rows=30).SerializeToString())
    head = wire.request_block(INFER)

    def attack() -> None:
        for connection_number in range(40):
            with Wire.connect(server.address) as connection:
                for stream in range(1, 41, 2):
                    connection.send(wire.frame(wire.HEADERS, wire.END_HEADERS, stream, head))
                    connection.send(wire.frame(wire.DATA, 0, stream, whole[: 1 + stream * 10]))
                    if stream % 3 == 0:
                        connection.send(wire.rst_stream(stream))
                if connection_number % 2:
                    connection.abort()

    with _memory_returns(server, attack):
        for _ in range(3):
            attack()


@pytest.mark.usefixtures("valid_requests")
@pytest.mark.parametrize("length", [(1 << 32) - 1, 3 << 20], ids=["4-GB", "3-MB"])
def test_a_length_that_is_a_lie_takes_no_memory(server: Server, length: int) -> None:
    before = _memory(server)
    connections = [Wire.connect(server.address) for _ in range(30)]
    for connection in connections:
        head = wire.frame(wire.HEADERS, wire.END_HEADERS, 1, wire.request_block(INFER))
        connection.send(head + wire.frame(wire.DATA, 0, 1, wire.message(b"x", length=length)))
        connection.send(wire.call(3, "/inference.GRPCInferenceService/ServerLive"))
        assert connection.answer(3)[0][b"grpc-status"] == b"0"
    assert _memory(server) - before < MARGIN
    for connection in connections:
        connection.socket.close()
