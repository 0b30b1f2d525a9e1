"""What a call over HTTP carries: whether its client is still there."""

import threading
from collections.abc import Callable, Hashable, Mapping

from typing_extensions import override

from enginesmith_runtime.server.transport.interface import CallContext

__all__ = ["HttpContext"]


class HttpContext(CallContext):
    """One request; cancelled when its connection ends before the answer. Safe from any thread.

    Args:
        source: its connection.
        client: as for `CallContext`.
        headers: by lower-case name.
    """

    def __init__(
        self, source: Hashable = None, client: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self._source = source
        self._client = client
        self._headers = headers or {}
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._cancelled = False

    @property
    @override
    def source(self) -> Hashable:
        return self._source

    @property
    @override
    def client(self) -> str | None:
        return self._client

    @property
    @override
    def cancelled(self) -> bool:
        return self._cancelled

    @override
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple(self._headers.items())

    @override
    def on_cancel(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if not self._cancelled:
                self._callbacks.append(callback)
                return
        callback()

    def cancel(self) -> None:
        """Say that the client has gone."""
        with self._lock:
            self._cancelled = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
