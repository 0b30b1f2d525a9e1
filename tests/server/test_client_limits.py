"""What one client may have at once and in a second: its own requests are refused beyond it, and no other one's."""

from collections.abc import Callable, Hashable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from tests.http2 import wire
from tests.http2.adapters import make_transport
from tests.http2.wire import Wire
from tests.server.conftest import Client
from tests.server.waiting import HOLD, RUN, doubler_request, metric_of, wait_until_pending

from enginesmith_contract.protos import inference_pb2 as pb
from enginesmith_contract.serve_request import ClientLimits
from enginesmith_runtime.server.clients import Clients
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.protocol.infer import InferenceLimits
from enginesmith_runtime.server.protocol.limited_inference import LimitedInference
from enginesmith_runtime.server.protocol.service import SERVICE, inference_methods
from enginesmith_runtime.server.repository import Repository
from enginesmith_runtime.server.transport.http.context import HttpContext
from enginesmith_runtime.server.transport.interface import Answer

Server = Any  # the fixtures' own types; a test module imports no other
StartServer = Callable[..., Any]


def _context(source: Hashable, client: str | None = None) -> HttpContext:
    return HttpContext(source, client)


def _ignore(_outcome: object) -> None:
    pass


def test_a_place_is_free_again_before_the_client_has_its_answer() -> None:
    clients, order = Clients(ClientLimits(max_in_flight=1)), []

    def reply(_outcome: object) -> None:
        order.append("answered")
        clients.enter(_context("a"), _ignore)

    entry = clients.enter(_context("a"), reply)
    with pytest.raises(ProtocolError, match=r"serving\.clientLimits\.maxInFlight") as caught:
        clients.enter(_context("a"), _ignore)
    assert (caught.value.code, caught.value.reason) == (Code.RESOURCE_EXHAUSTED, "ClientLimit")
    clients.enter(_context("b"), _ignore)
    entry(Answer(b""))
    assert order == ["answered"]


def test_the_connections_of_one_token_are_one_client_and_its_outcomes_are_counted() -> None:
    clients = Clients(ClientLimits(max_in_flight=2))
    entries = [clients.enter(_context(source, "one"), _ignore) for source in "ab"]
    with pytest.raises(ProtocolError):
        clients.enter(_context("c", "one"), _ignore)
    clients.enter(_context("a", "two"), _ignore)
    entries[0](Answer(b""))
    entries[1].leave(ProtocolError(Code.INVALID_ARGUMENT, "wrong"))
    assert clients.outcomes() == {("one", "RESOURCE_EXHAUSTED"): 1, ("one", "OK"): 1, ("one", "INVALID_ARGUMENT"): 1}
    clients.enter(_context("c", "one"), _ignore)


@pytest.mark.parametrize(("rate", "at_once"), [(1.0, 1), (0.01, 1), (7.0, 7), (10.0, 10), (3000.0, 3000)])
def test_a_second_s_requests_may_come_at_once_and_then_one_at_a_time(rate: float, at_once: int) -> None:
    now = 50_000.0
    clients = Clients(ClientLimits(requests_per_second=rate), lambda: now)

    def is_admitted(source: str) -> bool:
        try:
            clients.enter(_context(source), _ignore)(Answer(b""))
        except ProtocolError as error:
            return "serving.clientLimits.requestsPerSecond" not in error.message
        return True

    assert [is_admitted("a") for _ in range(at_once + 2)] == [True] * at_once + [False] * 2
    assert is_admitted("b")
    now += 1.0 / rate
    assert [is_admitted("a"), is_admitted("a")] == [True, False]


def test_clients_that_have_gone_are_forgotten() -> None:
    clients = Clients(ClientLimits(max_in_flight=1, requests_per_second=1e9))
    for number in range(10_000):
        clients.enter(_context(number), _ignore)(Answer(b""))
    assert clients.remembered < 2048


def _adder_calls(first: int, count: int, make_request: Callable[..., pb.ModelInferRequest]) -> Iterator[bytes]:
    """Yield calls whose values differ, on streams from `first` on."""
    for stream in range(first, first + 2 * count, 2):
        request = make_request()
        request.raw_input_contents[0] = np.full(8, stream, np.float32).tobytes()
        yield wire.call(stream, f"/{SERVICE}/ModelInfer", request.SerializeToString())


@pytest.mark.parametrize("most", [1, 3, 8])
def test_of_small_requests_in_one_read_those_beyond_the_limit_are_refused(
    local_repository: Repository, adder_request: Callable[..., pb.ModelInferRequest], most: int
) -> None:
    clients = Clients(ClientLimits(max_in_flight=most))
    limits = InferenceLimits(max_message_bytes=1 << 20)
    inference = LimitedInference(local_repository, limits, None, lambda _: None, clients)
    pace = local_repository.find_ready("adder", "").pace(((2, 4), (2, 4)))
    transport = make_transport("http2", inference_methods(local_repository, inference, None), {}, {})
    try:
        with Wire.connect(transport.start("127.0.0.1:0")) as connection:
            for first in (1, 101):
                for _ in range(10_000):
                    pace.note(
                        1
                    )  # quick, whatever this machine measures: such requests wait for those that came with them
                connection.send(b"".join(_adder_calls(first, 5, adder_request)))
                streams = range(first, first + 10, 2)
                # In the order of the answers: what is refused does not wait.
                for stream in streams[most:]:
                    fields, _ = connection.answer(stream)
                    assert fields[b"grpc-status"] == b"8"
                    assert b"serving.clientLimits.maxInFlight" in fields[b"grpc-message"]
                for stream in streams[:most]:
                    _, body = connection.answer(stream)
                    (total, _) = pb.ModelInferResponse.FromString(body[5:]).raw_output_contents
                    assert np.frombuffer(total, np.float32).tolist() == [stream + 1.0] * 8
            assert not clients.remembered
    finally:
        transport.stop(0.0)


@pytest.fixture
def clients_of() -> Iterator[Callable[[Server, int], list[Client]]]:
    """Return a function from a server to so many clients, each with a connection of its own."""
    channels: list[grpc.Channel] = []

    def open_clients(server: Server, count: int) -> list[Client]:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        channels.extend(grpc.insecure_channel(server.address, options) for _ in range(count))
        return [Client(channel) for channel in channels[-count:]]

    yield open_clients
    for channel in channels:
        channel.close()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["http2", "front-ends", "grpcio"], indirect=True)
def test_a_client_beyond_its_limit_is_refused_and_another_is_answered(
    start_server: StartServer, clients_of: Callable[[Server, int], list[Client]], doubler_key: str
) -> None:
    limits = ClientLimits(max_in_flight=2)
    server = start_server({"doubler": doubler_key}, fake_gpu=True, instances=4, client_limits=limits)
    greedy, modest = clients_of(server, 2)
    held = [greedy.begin("ModelInfer", doubler_request(HOLD)) for _ in range(2)]
    wait_until_pending(server, 2)
    for _ in range(3):
        refused = greedy.begin("ModelInfer", doubler_request(RUN))
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.details().startswith("the client has 2 requests without an answer")
    modest.infer(doubler_request(RUN), timeout=120)
    assert metric_of(server, "enginesmith_requests_failed_total") == 3
    server.let_go()
    assert [future.code() for future in held] == [grpc.StatusCode.OK] * 2
    greedy.infer(doubler_request(RUN), timeout=120)
