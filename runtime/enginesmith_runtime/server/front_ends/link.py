"""One connection between a front end and the process with the engines. It carries one call at a time.

A packet is a line of JSON, a NUL byte and the bytes of a message. A message that is too large for a packet is in the
link's memory, an anonymous file that both sides map: one side writes it once, and the other reads it there. Both are
processes of one server. Unlike the owner of a client's shared memory, neither changes it while the other reads.
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
"""Largest message in a packet, in bytes. A copy of this size through the kernel is a small part of a call's cost."""

_PACKET_BYTES: Final = _LARGEST_IN_PACKET + (32 << 10)

_SMALLEST_MEMORY: Final = 1 << 20


def listen(path: Path) -> socket.socket:
    """Return a socket that accepts front ends. Every process with access to the folder can connect."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen(socket.SOMAXCONN)
    return listener


class Link:
    """One end of a connection. Both ends have the same methods; the call determines the order of `send` and `receive`.

    Args:
        connection: Socket for packets.
        memory: Descriptor of the anonymous file.
    """

    def __init__(self, connection: socket.socket, memory: int) -> None:
        self._connection = connection
        self._memory = memory
        self._mapped: mmap.mmap | None = None

    @classmethod
    def connect(cls, path: str) -> Self:
        """Connect to the process with the engines.

        Raises:
            OSError: The process has ended.
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
            OSError: The listener was closed, or a front end ended before it had connected.
        """
        connection, _ = listener.accept()
        _, descriptors, _, _ = socket.recv_fds(connection, 64, 1)
        if not descriptors:
            connection.close()
            raise ConnectionAbortedError("a front end ended before it had connected")
        return cls(connection, descriptors[0])

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that the link holds for messages, as known to this side."""
        return 0 if self._mapped is None else len(self._mapped)

    def fileno(self) -> int:
        """Return the descriptor of the connection, for `select`."""
        return self._connection.fileno()

    def send(self, head: Sequence[object], body: Body = b"") -> None:
        """Send one packet.

        Args:
            head: Values that JSON can represent.
            body: Message of any size. It may be changed when the other side has answered.

        Raises:
            OSError: The other side hung up.
        """
        packed = json.dumps([len(body), *head], separators=(",", ":")).encode()
        if len(body) > _LARGEST_IN_PACKET:
            self._write(body)
            body = b""
        self._connection.sendmsg([packed, b"\0", body])

    def receive(self) -> tuple[list[Any], Body] | None:
        """Return head and body of the next packet, or None if the other side hung up.

        A large body is valid until the next `send`.
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
        """Whether the other side has hung up. Call it only while the other side has nothing to send."""
        try:
            return not self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def hang_up(self) -> None:
        """Shut the connection down, so that neither side waits any longer. Safe from any thread."""
        with suppress(OSError):  # it has ended
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection. The memory is freed when no process uses it."""
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
