"""Free ports, for programs that have to be told on which one they listen."""

import secrets
import socket
from typing import Final

__all__ = ["free_port"]

_FIRST: Final = 20_000
_COUNT: Final = 10_000
_TRIES: Final = 1000


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nothing listens on.

    It is below those that the kernel gives to connections, and to listeners that ask for any, and below Kubernetes'
    node ports: one of those could belong to another test by the time that the program listens.
    """
    for _ in range(_TRIES):
        port = _FIRST + secrets.randbelow(_COUNT)
        try:
            socket.create_server((host, port)).close()
        except OSError:
            continue
        return port
    raise AssertionError("no port is free")
