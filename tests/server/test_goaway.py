"""Clients are told to go by a frame between a server's own, on their connections and on no other."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from enginesmith_runtime.server.transport.goaway import tell_clients_to_go, wait_until_gone

GOAWAY = bytes.fromhex("000008 07 00 00000000 7fffffff 00000000")


@dataclass(frozen=True)
class _Connection:
    port: int
    client: socket.socket
    server: socket.socket


@pytest.fixture
def connections() -> Iterator[tuple[_Connection, _Connection]]:
    """Two clients of two ports of this process."""
    with ExitStack() as stack:
        made = []
        for _ in range(2):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = listener.getsockname()[1]
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.setblocking(False)
            made.append(_Connection(port, client, stack.enter_context(listener.accept()[0])))
        yield made[0], made[1]


def test_the_clients_of_a_port_are_told_once_and_no_others(connections: tuple[_Connection, _Connection]) -> None:
    ours, other = connections
    tell_clients_to_go(ours.port, 1.0)
    assert ours.client.recv(1024) == GOAWAY
    with pytest.raises(BlockingIOError):
        other.client.recv(1024)


def test_nothing_is_written_into_what_is_still_being_sent(connections: tuple[_Connection, _Connection]) -> None:
    ours, _ = connections
    ours.server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    sent = ours.server.send(bytes(200_000))
    assert sent == 200_000
    tell_clients_to_go(ours.port, 0.05)
    ours.server.close()
    ours.client.setblocking(True)
    received = b"".join(iter(lambda: ours.client.recv(1 << 20), b""))
    assert received == bytes(sent)


def test_waiting_ends_when_the_last_client_has_gone(connections: tuple[_Connection, _Connection]) -> None:
    ours, _ = connections
    ours.client.close()
    ours.server.close()
    wait_until_gone(ours.port, 3600.0)
