"""The listening server: its event loop, its sockets, and its end."""

import asyncio
import contextlib
import logging
import math
import resource
import socket
import threading
import time
from collections.abc import Sequence
from typing import Final

from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.transport.compiling import is_compiled
from enginesmith_runtime.server.transport.http2.bounds import Bounds
from enginesmith_runtime.server.transport.http2.connection import Connection
from enginesmith_runtime.server.transport.http2.event_loop import LOOP_NAME, new_event_loop
from enginesmith_runtime.server.transport.http2.service import Service
from enginesmith_runtime.server.transport.interface import Methods
from enginesmith_runtime.server.transport.limits import TransportLimits, address_unavailable
from enginesmith_runtime.server.transport.tls import Certificates
from enginesmith_runtime.server.transport.tokens import Tokens

__all__ = ["Http2Transport"]

_log = logging.getLogger(__name__)

_BACKLOG: Final = 4096
"""Connections that the kernel has accepted; it takes fewer where its own limit is lower."""

_LOOK_SECONDS: Final = 0.01
"""Between two looks at whether all clients have gone, while the server ends."""

_LAST_SECONDS: Final = 5.0
"""For the event loop to end, after everything else is over."""


class Http2Transport:
    """A server for a map of methods; see `Transport`."""

    def __init__(
        self,
        methods: Methods,
        limits: TransportLimits,
        bounds: Bounds | None = None,
        certificates: Certificates | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        self._service = Service(methods, limits, bounds or Bounds(), tokens)
        self._limits = limits
        self._certificates = certificates
        self._loop = new_event_loop()
        self._listening = threading.Event()
        self._ended = threading.Event()
        self._servers: list[asyncio.Server] = []
        self._lock = threading.Lock()
        self._ends_at = math.inf
        self._gave_up = False

    @property
    def name(self) -> str:
        """See `Transport`."""
        return f"http2 on {LOOP_NAME}{', compiled' if is_compiled(Connection) else ''}"

    def start(self, address: str) -> str:
        """Listen; see `Transport`."""
        sockets, address = _listen(address, share_port=self._limits.share_port)
        _allow_many_files()
        threading.Thread(target=self._run, args=(sockets,), name="http2", daemon=True).start()
        self._listening.wait()
        return address

    def stop(self, grace_seconds: float) -> None:
        """Send clients elsewhere, and return when their calls have ended or the time is up."""
        ends_at = time.monotonic() + grace_seconds
        with self._lock:
            first = self._ends_at == math.inf
            self._ends_at = min(ends_at, self._ends_at)
        if not self._listening.is_set():
            return
        if first:
            self._loop.call_soon_threadsafe(self._begin_end)
        while not self._ended.wait(self._service.bounds.tick_seconds):
            if time.monotonic() > self._ends_at + self._service.bounds.leaving_seconds + _LAST_SECONDS:
                _log.error("the event loop of the transport did not end; the process ends without it")
                return

    def _run(self, sockets: Sequence[socket.socket]) -> None:
        asyncio.set_event_loop(self._loop)
        self._service.bind(self._loop)
        for one in sockets:
            serve = self._loop.create_server(
                lambda: Connection(self._service),
                sock=one,
                backlog=_BACKLOG,
                ssl=None if self._certificates is None else self._certificates.context,
                ssl_handshake_timeout=None if self._certificates is None else self._service.bounds.handshake_seconds,
            )
            self._servers.append(self._loop.run_until_complete(serve))
        self._loop.call_later(self._service.bounds.tick_seconds, self._tick)
        self._loop.call_soon(self._listening.set)
        self._loop.run_forever()
        self._service.close()
        self._loop.close()
        self._ended.set()

    def _tick(self) -> None:
        # First, as in `_look`.
        self._loop.call_later(self._service.bounds.tick_seconds, self._tick)
        now = time.monotonic()
        for connection in tuple(self._service.connections):
            connection.run(connection.lifetime.tick, now)
            connection.flush()
        self._service.give_memory_back()

    def _begin_end(self) -> None:
        # Listening ends before clients get GOAWAY. A client that connected again after it would be reset when the
        # process ends.
        for server in self._servers:
            server.close()
        self._service.leaving = True
        self._loop.call_soon(self._look)
        for connection in tuple(self._service.connections):
            connection.leave()

    def _look(self) -> None:
        """End when every client has gone, when the grace has passed, and a moment later in any case."""
        # First: a fault at one connection must not keep the server from ending.
        self._loop.call_later(_LOOK_SECONDS, self._look)
        late = time.monotonic() - self._ends_at
        if not self._service.connections or late > self._service.bounds.leaving_seconds:
            self._loop.call_soon(self._loop.stop)
            return
        if late > 0 and not self._gave_up:
            self._gave_up = True
            error = ProtocolError(Code.UNAVAILABLE, "the server ends; send the request to another one")
            for connection in tuple(self._service.connections):
                connection.run(connection.lifetime.abandon, error)


def _listen(address: str, *, share_port: bool) -> tuple[list[socket.socket], str]:
    """Return sockets that are bound to host:port, and the address with the port that was taken.

    Raises:
        ServeError: the address cannot be had.
    """
    host, _, port = address.rpartition(":")
    sockets: list[socket.socket] = []
    with contextlib.ExitStack() as stack:
        try:
            number = int(port)
            found = socket.getaddrinfo(
                host.strip("[]") or None, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            for family, _, _, _, where in dict.fromkeys(found):
                one = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if share_port:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host.strip("[]") != "::"))
                # Every address of a name has the port that the first one got.
                one.bind((where[0], number, *where[2:]))
                one.setblocking(False)
                number = one.getsockname()[1]
                sockets.append(one)
        except (OSError, ValueError) as error:
            raise address_unavailable(address) from error
        stack.pop_all()
    return sockets, f"{host}:{number}"


def _allow_many_files() -> None:
    """Raise the process's own limit: each connection is a file."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
