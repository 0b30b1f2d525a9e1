"""One connection between a front end and the process with the engines. It carries one call at a time.

A packet is a line of JSON and, behind a NUL byte, the bytes of a message. A message that is too large for a packet lies
in the link's memory, an anonymous file that both sides map: it is written there once, and read where it lies. Both are
processes of one server, so, unlike with a client's shared memory, neither changes it while the other reads.
"""

import json
import mmap
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from enginesmith_runtime.server.transport.interface import Body

__all__ = ["Link", "listen"]

_LARGEST_IN_PACKET: Final = 32 << 10
"""Bytes of a message; copying so few through the kernel costs less than anything else about a call."""

_PACKET_BYTES: Final = _LARGEST_IN_PACKET + (32 << 10)

_SMALLEST_MEMORY: Final = 1 << 20


def listen(path: Path) -> socket.socket:
    """Return a socket on which front ends can connect; every process with access to the folder can connect."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen(socket.SOMAXCONN)
    return listener


class Link:
    """Both ends are the same; `send` and `receive` take turns as the call has it.

    Args:
        connection: of packets.
        memory: descriptor of the anonymous file.
    """

    def __init__(self, connection: socket.socket, memory: int) -> None:
        self._connection = connection
        self._memory = memory
        self._mapped: mmap.mmap | None = None

    @classmethod
    def connect(cls, path: str) -> Self:
        """Connect to the process with the engines.

        Raises:
            OSError: it has ended.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(path)
            memory = os.memfd_create("enginesmith-link")
            socket.send_fds(connection, [b"memory"], [memory])
        except BaseException:
            connection.close()
            raise
        return cls(connection, memory)

    @classmethod
    def accept(cls, listener: socket.socket) -> Self:
        """Wait for a front end to connect.

        Raises:
            OSError: the listener was closed, or a front end ended before it had connected.
        """
        connection, _ = listener.accept()
        _, descriptors, _, _ = socket.recv_fds(connection, 64, 1)
        if not descriptors:
            connection.close()
            raise ConnectionAbortedError("a front end went before it had connected")
        return cls(connection, descriptors[0])

    @property
    def memory_bytes(self) -> int:
        """How much memory the link holds for messages, as far as this side knows."""
        return 0 if self._mapped is None else len(self._mapped)

    def fileno(self) -> int:
        """Return the descriptor of the connection, for `select`."""
        return self._connection.fileno()

    def send(self, head: Sequence[object], body: Body = b"") -> None:
        """Send one packet.

        Args:
            head: what JSON can hold.
            body: a message of any size; it may be changed as soon as the other side has answered.

        Raises:
            OSError: the other side has gone.
        """
        packed = json.dumps([len(body), *head], separators=(",", ":")).encode()
        if len(body) > _LARGEST_IN_PACKET:
            self._write(body)
            body = b""
        self._connection.sendmsg([packed, b"\0", body])

    def receive(self) -> tuple[list[Any], Body] | None:
        """Return head and body of the next packet; a large body is valid until something is sent.

        None: the other side has gone.
        """
        try:
            packet = self._connection.recv(_PACKET_BYTES)
        except OSError:
            return None
        if not packet:
            return None
        packed, _, body = packet.partition(b"\0")
        size, *head = json.loads(packed)
        return head, body if size == len(body) else self._read(size)

    @property
    def other_side_gone(self) -> bool:
        """Whether the other side has hung up; to be asked only while it has nothing to send."""
        try:
            return not self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def hang_up(self) -> None:
        """End what either side waits for, from any thread."""
        with suppress(OSError):  # it has ended
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Free the connection; the memory is freed when no process reads it any more."""
        self._connection.close()
        os.close(self._memory)
        self._mapped = None

    def _write(self, body: Body) -> None:
        if self._mapped is None or len(self._mapped) < len(body):
            size = max(_SMALLEST_MEMORY, 1 << (len(body) - 1).bit_length())
            os.ftruncate(self._memory, size)
            self._mapped = mmap.mmap(self._memory, size)
        self._mapped[: len(body)] = body

    def _read(self, size: int) -> memoryview:
        if self._mapped is None or len(self._mapped) < size:
            self._mapped = mmap.mmap(self._memory, 0)  # all of the file
        return memoryview(self._mapped)[:size]
