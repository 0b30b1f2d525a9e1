"""/healthz, /readyz and /metrics, answered by a thread of their own.

The first listing of a large cluster keeps the event loop busy for seconds, and a probe must not take that for a hang:
the loop reports every second that it is alive, and only a minute without a report is a failure.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from typing_extensions import override

__all__ = ["Health", "HealthServer"]

_STALE_SECONDS: Final = 60.0
_OK: Final = 200
_MISSING: Final = 404
_UNAVAILABLE: Final = 503


@dataclass(kw_only=True)
class Health:
    """The state that the probes receive.

    Attributes:
        clock: monotonic seconds.
        metrics: text for Prometheus.
        not_ready: why this replica is not ready; empty: it is.
        may_not_work: why this replica may not work at all; empty: it may.
    """

    clock: Callable[[], float]
    metrics: Callable[[], bytes]
    not_ready: str = "the cluster was not listed yet"
    may_not_work: str = ""
    alive_at: float = field(default=0.0)

    def beat(self) -> None:
        """Record that the event loop is alive."""
        self.alive_at = self.clock()

    def answer(self, path: str) -> tuple[int, bytes]:
        """Return status code and body for a path."""
        match path.partition("?")[0]:
            case "/healthz":
                age = self.clock() - self.alive_at
                return (_OK, b"ok\n") if age < _STALE_SECONDS else (_UNAVAILABLE, b"the event loop hangs\n")
            case "/readyz":
                problem = self.may_not_work or self.not_ready
                return (_UNAVAILABLE, f"{problem}\n".encode()) if problem else (_OK, b"ok\n")
            case "/metrics":
                return _OK, self.metrics()
            case _:
                return _MISSING, b"not found\n"


class HealthServer:
    """Serves `health` until it is stopped."""

    def __init__(self, health: Health, address: tuple[str, int]) -> None:
        health.beat()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = health.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            @override
            def log_message(self, format: str, *args: Any) -> None:
                """Log nothing, because probes arrive every few seconds."""

        self._server = ThreadingHTTPServer(address, Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
