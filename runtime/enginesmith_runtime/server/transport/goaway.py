"""Tells the clients of a port to go while the server still answers, which gRPC's C core cannot do for us.

When the core says GOAWAY because it is shut down, it cancels what reaches it from then on, also what a client sent
before it could know. HTTP/2 has a GOAWAY that loses nothing: it names the highest stream there can be, so that all that
is on its way is still answered, while the client opens its next stream elsewhere and closes this connection after its
last answer. The core sends that one for connections that grow too old, at no other time and with no call for it. So
the frame is written to the sockets here, between two of the core's: only where nothing is left to be sent, while
answers are held back.
"""

import fcntl
import os
import socket
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["tell_clients_to_go", "wait_until_gone"]

_LAST_STREAM: Final = (1 << 31) - 1
_NO_ERROR: Final = 0
# Length, type GOAWAY, no flags, stream 0; then the last stream and the error.
_GOAWAY: Final = b"\x00\x00\x08\x07\x00" + struct.pack(">LLL", 0, _LAST_STREAM, _NO_ERROR)
_PAUSE_SECONDS: Final = 0.002
_FOLDER: Final = Path("/proc/self/fd")
"""If the system has no such folder, clients learn of the end only when the server ends."""


def tell_clients_to_go(port: int, seconds: float) -> None:
    """Send a GOAWAY on each connection to a port of this process as soon as nothing else is being sent on it.

    Args:
        port: that the server listens on.
        seconds: for connections that are busy; the others get GOAWAY at once.
    """
    until = time.monotonic() + seconds
    told: set[object] = set()
    while True:
        busy = 0
        for connection in _connections(port):
            with suppress(OSError):  # gone meanwhile
                client = connection.getpeername()
                if client in told:
                    continue
                if _is_sending(connection):
                    busy += 1
                    continue
                told.add(client)
                connection.send(_GOAWAY, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        if not busy or time.monotonic() > until:
            return
        time.sleep(_PAUSE_SECONDS)


def wait_until_gone(port: int, seconds: float) -> None:
    """Wait until every client has closed its connection, at the longest for so many seconds."""
    until = time.monotonic() + seconds
    while any(True for _ in _connections(port)) and time.monotonic() < until:
        time.sleep(_PAUSE_SECONDS)


def _connections(port: int) -> Iterator[socket.socket]:
    """Give the connections that clients have to a port of this process, each as a copy that is closed afterwards."""
    for path in _FOLDER.iterdir() if _FOLDER.is_dir() else ():
        try:
            if not path.is_socket():
                continue
            found = socket.socket(fileno=os.dup(int(path.name)))
        except OSError:  # closed meanwhile
            continue
        with found:
            if found.family in {socket.AF_INET, socket.AF_INET6} and _is_connected(found, port):
                yield found


def _is_connected(found: socket.socket, port: int) -> bool:
    try:
        found.getpeername()
        return bool(found.getsockname()[1] == port)
    except OSError:  # it listens, or has been closed
        return False


def _is_sending(connection: socket.socket) -> bool:
    """Whether the kernel has bytes that the client has not acknowledged yet."""
    try:
        left = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return False
    return struct.unpack("i", left) != (0,)
