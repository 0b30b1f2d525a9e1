"""One server after another takes over under load, and a client that knows nothing of it loses no request.

The client has one connection, retries switched off and no eye for health. Between it and the servers stands a switch
that sends each new connection to the newest server, as a Service does; what is connected stays where it is.
"""

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.server.certificates import Authority, mount_tls
from tests.server.conftest import Client as SecureClient
from tests.server.waiting import wait_for

from enginesmith_contract.protos import inference_pb2 as pb

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("way", ["http2", "front-ends", "grpcio"], indirect=True),
]

Server = Any  # the fixtures' own types; a test module imports no other
Client = Any
Connect = Callable[[str], Client]
StartServer = Callable[..., Any]
MakeRequest = Callable[..., pb.ModelInferRequest]

ROLLOUTS = 3


class _Switch:
    """A listener whose new connections lead to `target`."""

    def __init__(self) -> None:
        self.target = ""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            host, _, port = self.target.rpartition(":")
            server = socket.create_connection((host, int(port)))
            for source, sink in ((client, server), (server, client)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=_copy, args=(source, sink), daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:  # one of the two has gone
        return


@pytest.fixture
def switch() -> Iterator[_Switch]:
    made = _Switch()
    yield made
    made.close()


class _Load:
    """Requests until `stop`; `codes` counts how they ended."""

    def __init__(self, client: Client, data: bytes) -> None:
        self._client, self._data = client, data
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self.codes: Counter[grpc.StatusCode] = Counter()

    def steadily(self, pause_seconds: float) -> None:
        """Send one every `pause_seconds`, whatever became of the one before."""
        while not self._ended.wait(pause_seconds):
            self._client.begin("ModelInfer", self._data).add_done_callback(self._count)

    def one_after_another(self) -> None:
        """Send one as soon as the one before was answered."""
        while not self._ended.is_set():
            future = self._client.begin("ModelInfer", self._data)
            future.exception()
            self._count(future)

    def start(self, *loops: Callable[[], None]) -> None:
        self._threads = [threading.Thread(target=loop) for loop in loops]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _count(self, future: grpc.Future) -> None:
        self.codes[future.code()] += 1


@pytest.mark.parametrize("pace", ["50 a second", "250 a second", "4 at once"])
def test_three_rollouts_under_one_connection_lose_nothing(
    start_server: StartServer,
    connect: Connect,
    switch: _Switch,
    adder_key: str,
    adder_request: MakeRequest,
    pace: str,
) -> None:
    options = {"drain_delay_seconds": 0.5, "instances": 2}
    old = start_server({"adder": adder_key}, **options)
    switch.target = old.address
    load = _Load(connect(switch.address), adder_request().SerializeToString())
    pauses = {"50 a second": 0.02, "250 a second": 0.004}
    load.start(*([lambda: load.steadily(pauses[pace])] if pace in pauses else [load.one_after_another] * 4))
    for _ in range(ROLLOUTS):
        new = start_server({"adder": adder_key}, **options)
        switch.target = new.address
        before = load.codes.total()
        assert old.stop() == 0
        wait_for(lambda: load.codes.total() > before)  # noqa: B023
        old = new
    load.stop()
    assert set(load.codes) == {grpc.StatusCode.OK}, load.codes
    # The last server has answered: the client came along.
    statistics = connect(old.address).call("ModelStatistics", pb.ModelStatisticsRequest(name="adder")).model_stats[0]
    assert statistics.inference_stats.success.count > 0


def test_a_certificate_that_is_rotated_and_a_rollout_with_tls_lose_nothing(
    start_server: StartServer, switch: _Switch, adder_key: str, adder_request: MakeRequest, tmp_path: Path, way: str
) -> None:
    old_authority, new_authority = Authority.named("old"), Authority.named("new")
    files = mount_tls(tmp_path / "tls", old_authority.issue())
    options = {"drain_delay_seconds": 0.5, "instances": 2, "tls": files}
    trusts_both = grpc.ssl_channel_credentials(old_authority.pem + new_authority.pem)
    of_localhost = [("grpc.ssl_target_name_override", "localhost"), ("grpc.enable_retries", 0)]
    alone = [*of_localhost, ("grpc.use_local_subchannel_pool", 1)]

    def answers(authority: Authority) -> bool:
        """Whether a new connection finds a certificate of this authority."""
        with grpc.secure_channel(switch.target, grpc.ssl_channel_credentials(authority.pem), alone) as channel:
            future = SecureClient(channel).begin("ModelInfer", adder_request(), timeout=120)
            return future.code() is grpc.StatusCode.OK

    old = start_server({"adder": adder_key}, **options)
    switch.target = old.address
    with grpc.secure_channel(switch.address, trusts_both, of_localhost) as channel:
        load = _Load(SecureClient(channel), adder_request().SerializeToString())
        # The library's own GOAWAY may meet a call that waits for no answer.
        irregular = [] if way == "grpcio" else [lambda: load.steadily(0.02)]
        load.start(*irregular, load.one_after_another, load.one_after_another)
        wait_for(lambda: load.codes.total() > 0)
        mount_tls(tmp_path / "tls", new_authority.issue())
        wait_for(lambda: answers(new_authority))
        new = start_server({"adder": adder_key}, **options)
        switch.target = new.address
        assert old.stop() == 0
        before = load.codes.total()
        wait_for(lambda: load.codes.total() > before)
        load.stop()
    assert set(load.codes) == {grpc.StatusCode.OK}, load.codes
