"""The listening server: an event loop on a thread of its own, and a few threads for what takes long."""

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from enginesmith_runtime.server.transport.http.connection import Connection
from enginesmith_runtime.server.transport.http.encodings import encode
from enginesmith_runtime.server.transport.http.interface import (
    HttpAdmission,
    HttpAnswer,
    HttpHandler,
    HttpReply,
    HttpRequest,
)
from enginesmith_runtime.server.transport.interface import CallContext
from enginesmith_runtime.server.transport.limits import address_unavailable
from enginesmith_runtime.server.transport.tls import Certificates

__all__ = ["HttpLimits", "HttpTransport"]

_WORKERS: Final = 4
"""Threads that read and compress large bodies."""

_LARGE_BYTES: Final = 64 << 10
"""A smaller body is read on the event loop: a hand-over would take longer."""

_SMALL_ANSWER_BYTES: Final = 1 << 10
"""An answer up to this size is never compressed."""

_RECEIVED_MESSAGES: Final = 8
"""Of the largest size, which may be in memory before they are handed over."""

_POLL_SECONDS: Final = 0.02

_HELLO_SECONDS: Final = 10.0
_GOODBYE_SECONDS: Final = 1.0
"""For the begin and the end of TLS. A client that is idle reads nothing, and must not hold up the end."""


@dataclass(frozen=True, kw_only=True)
class HttpLimits:
    """What a server allows its clients.

    Attributes:
        max_message_bytes: of one body, with and without its content encoding.
        max_connections: further ones get 503.
    """

    max_message_bytes: int
    max_connections: int = 1024


class HttpTransport:
    """HTTP/1.1 for one handler; see `Transport`.

    Args:
        handler: of requests.
        limits: of bodies and connections.
        certificates: for TLS; None: plaintext.

    Attributes:
        admit: says which requests may come; None: all.
        room: bytes that bodies which are being received may still take.
        connections: that are open and were not refused.
        draining: every answer from now on closes its connection. The server still accepts connections. Set it before
            `stop`, so that a client that sends one request after another leaves before its connection is closed.
    """

    def __init__(
        self,
        handler: HttpHandler,
        limits: HttpLimits,
        *,
        certificates: Certificates | None = None,
        admit: HttpAdmission | None = None,
    ) -> None:
        self.admit = admit
        self._certificates = certificates
        self.max_message_bytes = limits.max_message_bytes
        self.draining = False
        self._handler = handler
        self._limits = limits
        self.room = _RECEIVED_MESSAGES * limits.max_message_bytes
        self._loop = asyncio.new_event_loop()
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="http")
        self.connections: set[Connection] = set()
        self._server: asyncio.Server | None = None

    def start(self, address: str) -> str:
        """Listen; see `Transport`."""
        host, _, port = address.rpartition(":")
        certificates = self._certificates
        create = self._loop.create_server(
            lambda: Connection(self),
            host.strip("[]") or None,
            int(port),
            ssl=None if certificates is None else certificates.context,
            ssl_handshake_timeout=None if certificates is None else _HELLO_SECONDS,
            ssl_shutdown_timeout=None if certificates is None else _GOODBYE_SECONDS,
        )
        try:
            self._server = self._loop.run_until_complete(create)
        except OSError as error:
            raise address_unavailable(address) from error
        threading.Thread(target=self._loop.run_forever, name="http", daemon=True).start()
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    def stop(self, grace_seconds: float) -> None:
        """Take no new call, close what is idle, and return when the running ones ended or time is up."""
        if self._server is not None:
            asyncio.run_coroutine_threadsafe(self._drain(self._server, grace_seconds), self._loop).result()

    async def _drain(self, server: asyncio.Server, grace_seconds: float) -> None:
        server.close()
        self.draining = True
        until = self._loop.time() + grace_seconds
        while self.connections and self._loop.time() < until:
            for connection in [one for one in self.connections if not one.busy]:
                connection.close()
            await asyncio.sleep(_POLL_SECONDS)
        for connection in tuple(self.connections):
            connection.abort()

    def enter(self, connection: Connection) -> bool:
        """See `Connections`."""
        if len(self.connections) >= self._limits.max_connections:
            return False
        self.connections.add(connection)
        return True

    def leave(self, connection: Connection) -> None:
        """See `Connections`."""
        self.connections.discard(connection)

    def reserve(self, size: int) -> bool:
        """See `Connections`."""
        if size > self.room:
            return False
        self.room -= size
        return True

    def serve(self, request: HttpRequest, context: CallContext, reply: HttpReply) -> None:
        """See `Connections`."""

        def on_loop(answer: HttpAnswer) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and its clients with it
                self._loop.call_soon_threadsafe(reply, answer)

        if len(request.body) < _LARGE_BYTES:
            self._handler(request, context, on_loop)
        else:
            self._workers.submit(self._handler, request, context, on_loop)

    def encode(self, encoding: str, answer: HttpAnswer, then: HttpReply) -> None:
        """See `Connections`."""
        if len(answer.body) <= _SMALL_ANSWER_BYTES:
            then(answer)
            return

        def work() -> None:
            headers = (*answer.headers, ("content-encoding", encoding), ("vary", "accept-encoding"))
            encoded = replace(answer, body=encode(encoding, answer.body), headers=headers)
            self._loop.call_soon_threadsafe(then, encoded)

        self._workers.submit(work)
