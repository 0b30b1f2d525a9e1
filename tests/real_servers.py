"""Servers of others as processes on this machine: an S3 server and a registry, built by `hack/tool`."""

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["program", "running"]

_ROOT: Final = Path(__file__).resolve().parent.parent
_PATIENCE_SECONDS: Final = 300.0


def program(name: str) -> str:
    """Return the path of a program that `hack/tool` builds."""
    run = subprocess.run([_ROOT / "hack/tool", name], check=True, capture_output=True, text=True)
    return run.stdout.strip()


@contextmanager
def running(command: Sequence[str | Path], port: int) -> Iterator[None]:
    """Run a server, once it listens on a port of 127.0.0.1."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + _PATIENCE_SECONDS
    try:
        while not _listens(port):
            assert server.poll() is None, f"{command[0]} ended with {server.returncode}"
            assert time.monotonic() < give_up, f"{command[0]} does not listen on port {port}"
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
