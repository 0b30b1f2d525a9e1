"""The front ends as one transport: processes that share a port and send their calls to this process over links."""

import contextlib
import logging
import resource
import socket
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from enginesmith_contract.errors import ServeError
from enginesmith_contract.serve_request import ServerOptions, TransportName
from enginesmith_runtime.child_processes import ChildEnd, kill_group, python_command, start_child
from enginesmith_runtime.server.front_ends.calls import Calls
from enginesmith_runtime.server.front_ends.link import Link, listen
from enginesmith_runtime.server.front_ends.settings import LISTENING, Settings
from enginesmith_runtime.server.transport.interface import Methods
from enginesmith_runtime.server.transport.limits import TransportLimits, address_unavailable

__all__ = ["FrontEnds"]

_log = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 1.0
"""Seconds before a front end that ended is started again."""

_ENDING_SECONDS: Final = 10.0
"""Seconds in which a front end must end after its grace period, and must send GOAWAY to its clients."""


class FrontEnds:
    """Several processes that listen on one address; see `Transport`.

    Args:
        folder: Folder of the socket between the processes. No other process may have access to it.
    """

    def __init__(self, methods: Methods, limits: TransportLimits, options: ServerOptions, *, folder: Path) -> None:
        self._methods = methods
        self._limits = replace(limits, share_port=True)
        self._options = options
        self._count = options.front_ends
        self._socket = folder / "front-ends.sock"
        self._calls = Calls(methods)
        self._stopping = threading.Event()
        self._front_ends: list[_FrontEnd] = []
        self._reserved: socket.socket | None = None

    @property
    def name(self) -> str:
        """See `Transport`."""
        return f"{self._options.transport or TransportName.HTTP2} in {self._count} front ends"

    def start(self, address: str) -> str:
        """Listen on host:port with every front end."""
        _allow_many_files()
        self._reserved, address = _reserve(address)
        try:
            listener = listen(self._socket)
        except (OSError, AttributeError) as error:
            raise ServeError(
                "front ends cannot be reached",
                where=str(self._socket),
                why=str(error),
                remedy="set TMPDIR to a folder with a short path, or serve without front ends",
                reason="FrontEndFailed",
            ) from error
        threading.Thread(target=self._accept, args=(listener,), name="links", daemon=True).start()
        settings = Settings.of(address, str(self._socket), self._limits, self._methods, self._options)
        self._front_ends = [_FrontEnd(settings, self._stopping) for _ in range(self._count)]
        for one in self._front_ends:
            one.wait_listening()
        return address

    def stop(self, grace_seconds: float) -> None:
        """Stop all front ends, which send GOAWAY to their clients, and wait until they have ended."""
        self._stopping.set()
        for one in self._front_ends:
            one.tell_to_stop(grace_seconds)
        until = time.monotonic() + grace_seconds + _ENDING_SECONDS
        for one in self._front_ends:
            one.wait_ended(max(until - time.monotonic(), 0))
        if self._reserved is not None:
            self._reserved.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                link = Link.accept(listener)
            except OSError as error:
                _log.warning("a front end could not connect: %s", error)
                time.sleep(_PAUSE_SECONDS)
                continue
            threading.Thread(target=self._calls.serve, args=(link,), name="link", daemon=True).start()


def _allow_many_files() -> None:
    """Raise the limit of open files. Each call that runs or waits has a connection and a memory file."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _reserve(address: str) -> tuple[socket.socket, str]:
    """Return a socket that keeps a port for processes that share it, and the address with that port.

    Raises:
        ServeError: Another process listens on that address.
    """
    host, _, port = address.rpartition(":")
    try:
        family, _, _, _, where = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        # Sharing a port with another server is not an error, so first bind it without sharing.
        with socket.socket(family) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(where)
            alone.listen()
        shared = socket.socket(family)
        # The library does the same: closed connections of an earlier server may still be in TIME_WAIT.
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind(where)
    except (OSError, ValueError) as error:
        raise address_unavailable(address) from error
    return shared, f"{host}:{shared.getsockname()[1]}"


class _FrontEnd:
    """One front end. It is restarted if it ends by itself."""

    def __init__(self, settings: Settings, stopping: threading.Event) -> None:
        self._settings = settings
        self._stopping = stopping
        self._process = self._start()
        threading.Thread(target=self._keep_running, name="front-end", daemon=True).start()

    def wait_listening(self) -> None:
        """Wait until clients can reach it.

        Raises:
            ServeError: The front end ended before that.
        """
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        if self._process.stdout.readline().strip() != LISTENING.encode():
            raise ServeError(
                "a front end ended during its start",
                where=self._settings.address,
                why=ChildEnd.from_code(self._process.wait()).cause,
                remedy="see its output on stderr",
                reason="FrontEndFailed",
            )

    def tell_to_stop(self, grace_seconds: float) -> None:
        with contextlib.suppress(OSError, ValueError):  # it has ended
            self._send(self._process, f"{grace_seconds}\n")

    def wait_ended(self, seconds: float) -> None:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            kill_group(self._process)

    def _start(self) -> "subprocess.Popen[bytes]":
        process = start_child(python_command("enginesmith_runtime.server.front_ends"), stdin=subprocess.PIPE)
        self._send(process, self._settings.to_line())
        return process

    @staticmethod
    def _send(process: "subprocess.Popen[bytes]", line: str) -> None:
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        process.stdin.write(line.encode())
        process.stdin.flush()

    def _keep_running(self) -> None:
        while True:
            end = ChildEnd.from_code(self._process.wait())
            if self._stopping.wait(_PAUSE_SECONDS):
                return
            _log.warning("a front end ended (%s); another one takes its place", end.cause)
            self._process = self._start()
