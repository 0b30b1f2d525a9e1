"""HTTP's transport: limits of size and time, order, clients that go, and bytes that are no HTTP. A real socket."""

import random
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from enginesmith_runtime.server.transport.http import connection
from enginesmith_runtime.server.transport.http.interface import HttpAnswer, HttpReply, HttpRequest
from enginesmith_runtime.server.transport.http.server import HttpLimits, HttpTransport
from enginesmith_runtime.server.transport.interface import CallContext

MAX_BYTES = 200_000
GET = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
Connect = Callable[[], "Client"]


class Client:
    """A socket that reads answers."""

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        self.file = self.socket.makefile("rb")

    def send(self, data: bytes) -> "Client":
        """Send bytes."""
        self.socket.sendall(data)
        return self

    def read(self) -> tuple[int, bytes]:
        """Return an answer's status and body; 0 where the connection has ended."""
        line = self.file.readline()
        if not line:
            return 0, b""
        status, length = int(line.split()[1]), 0
        while (line := self.file.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        return status, self.file.read(length)


class _Handler:
    """Answers with the request's path and body size; `/wait` when it is released, `/big` with a megabyte."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.began = threading.Event()
        self.cancelled = threading.Event()

    def handle(self, request: HttpRequest, context: CallContext, reply: HttpReply) -> None:
        said = HttpAnswer(200, f"{'/'.join(request.path)} {len(request.body)}".encode())
        if request.path == ("big",):
            said = HttpAnswer(200, bytes(1 << 20))
        if request.path != ("wait",):
            reply(said)
            return

        def wait() -> None:
            self.release.wait(60)
            reply(said)

        context.on_cancel(self.cancelled.set)
        threading.Thread(target=wait, daemon=True).start()
        self.began.set()


@pytest.fixture
def handler() -> Iterator[_Handler]:
    made = _Handler()
    yield made
    made.release.set()


@pytest.fixture
def transport(handler: _Handler) -> Iterator[HttpTransport]:
    made = HttpTransport(handler.handle, HttpLimits(max_message_bytes=MAX_BYTES, max_connections=8))
    yield made
    handler.release.set()
    made.stop(0.0)


@pytest.fixture
def connect(transport: HttpTransport) -> Iterator[Connect]:
    address = transport.start("127.0.0.1:0")
    clients: list[Client] = []

    def open_one() -> Client:
        clients.append(Client(address))
        return clients[-1]

    yield open_one
    for client in clients:
        client.socket.close()


def _post(body: bytes, path: str = "echo", headers: str = "") -> bytes:
    return f"POST /{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def test_requests_of_one_connection_are_answered_in_order(connect: Connect) -> None:
    client = connect().send(GET + _post(b"four", "a%2Fb/c") + GET)
    assert [client.read() for _ in range(3)] == [(200, b"echo 0"), (200, b"a/b/c 4"), (200, b"echo 0")]
    chunked = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert client.send(chunked).read() == (200, b"echo 5")
    assert client.send(GET.replace(b"GET", b"HEAD")).file.readline().split()[1] == b"200"


def test_a_client_that_asks_first_is_told_to_go_on(connect: Connect) -> None:
    client = connect().send(_post(b"", headers="Expect: 100-continue\r\n").replace(b"Length: 0", b"Length: 4"))
    assert client.read() == (100, b"")
    assert client.send(b"body").read() == (200, b"echo 4")
    large = _post(b"", headers="Expect: 100-continue\r\n").replace(b"Length: 0", b"Length: 999999999")
    status, body = connect().send(large).read()
    assert (status, b"serving.maxMessageBytes" in body) == (413, True)


@pytest.mark.parametrize(
    ("data", "want"),
    [
        (b"no HTTP at all\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 100_000, 431),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"ff00\r\n%b\r\n" % bytes(0xFF00) * 4,
            413,
        ),
    ],
)
def test_what_is_no_request_is_refused_and_harms_no_other(connect: Connect, data: bytes, want: int) -> None:
    other = connect()
    client = connect().send(data)
    assert client.read()[0] == want
    assert client.read() == (0, b"")
    assert other.send(GET).read() == (200, b"echo 0")


def test_a_client_that_stops_in_the_middle_is_told_and_left(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_STALLED_SECONDS", 0.2)
    client = connect().send(_post(bytes(1000))[:-1])
    status, body = client.read()
    assert (status, b"of the request came in 0.2 s" in body) == (408, True)
    assert client.read() == (0, b"")
    assert connect().send(b"GET / HTTP/1.1\r\n").read() == (0, b"")  # it had not begun: nothing is said
    monkeypatch.setattr(connection, "_IDLE_SECONDS", 2.0)
    idle = connect().send(GET)
    assert [idle.read()[0], idle.read()[0]] == [200, 0]


def test_a_client_that_never_reads_is_left_and_the_next_request_waits_for_room(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, transport: HttpTransport
) -> None:
    monkeypatch.setattr(connection, "_STALLED_SECONDS", 0.3)
    client = connect()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.send(GET.replace(b"echo", b"big") * 8)
    while transport.connections:
        threading.Event().wait(0.05)
    other = connect()
    monkeypatch.undo()
    assert [len(other.send(GET.replace(b"echo", b"big") * 2).read()[1]), len(other.read()[1])] == [1 << 20] * 2


def test_a_client_that_goes_is_seen_by_what_runs(connect: Connect, handler: _Handler) -> None:
    client = connect().send(GET.replace(b"echo", b"wait"))
    assert handler.began.wait(60)
    client.socket.shutdown(socket.SHUT_RDWR)
    assert handler.cancelled.wait(60)
    handler.release.set()
    assert connect().send(GET).read() == (200, b"echo 0")


def test_connections_are_counted(connect: Connect, transport: HttpTransport) -> None:
    kept = [connect().send(GET) for _ in range(8)]
    assert {client.read()[0] for client in kept} == {200}
    assert connect().read()[0] == 503
    kept[0].socket.shutdown(socket.SHUT_RDWR)
    while len(transport.connections) == 8:
        threading.Event().wait(0.01)
    assert connect().send(GET).read()[0] == 200
    assert kept[1].send(GET).read()[0] == 200


def test_what_runs_ends_before_the_transport_does_and_idle_clients_are_sent_away(
    connect: Connect, handler: _Handler, transport: HttpTransport
) -> None:
    idle, running = connect().send(GET), connect().send(GET.replace(b"echo", b"wait"))
    assert idle.read() == (200, b"echo 0")
    assert handler.began.wait(60)
    stopping = threading.Thread(target=transport.stop, args=(60.0,))
    stopping.start()
    assert idle.read() == (0, b"")
    handler.release.set()
    assert running.read() == (200, b"wait 0")
    assert running.read() == (0, b"")
    stopping.join(60)
    assert not stopping.is_alive()


def test_mutated_requests_are_answered_or_dropped_and_leave_nothing(connect: Connect, transport: HttpTransport) -> None:
    seed = random.Random(14)  # noqa: S311 - the same bytes each time
    whole = GET + _post(b"body" * 50, headers="Accept-Encoding: gzip\r\n") + GET
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(seed.randrange(1, 6)):
            data[seed.randrange(len(data))] = seed.randrange(256)
        client = connect().send(bytes(data[: seed.randrange(1, len(data))]))
        client.socket.shutdown(socket.SHUT_WR)
        while client.read()[0]:
            pass
        client.socket.close()
    other = connect()
    while other.send(GET).read()[0] != 200:
        other = connect()
    assert transport.room == 8 * MAX_BYTES
