"""What a call of grpcio carries: its client, its connection, and whether they are still there."""

import base64
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeAlias

from typing_extensions import override

from enginesmith_runtime.server.transport.interface import CallContext
from enginesmith_runtime.server.transport.pending import Pending
from enginesmith_runtime.server.transport.tokens import Tokens

__all__ = ["Departures", "GrpcCallContext", "authorization"]

GrpcContext: TypeAlias = Any
"""The library ships no types."""


def authorization(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """Return the field of that name; None: there is none."""
    return next((str(value) for name, value in metadata if name == "authorization"), None)


class Departures:
    """What the calls of one stream want to be told when its client goes, each until it has its answer."""

    def __init__(self, context: GrpcContext) -> None:
        self._lock = threading.Lock()
        self._callbacks: dict[Pending, Callable[[], None]] = {}
        self._gone = not context.add_callback(self._tell)

    def watch(self, pending: Pending, callback: Callable[[], None]) -> None:
        """Call `callback` when the client goes, until `forget`."""
        with self._lock:
            self._callbacks[pending] = callback
        if self._gone:
            callback()

    def forget(self, pending: Pending) -> None:
        """Note that a call has its answer."""
        with self._lock:
            self._callbacks.pop(pending, None)

    def _tell(self) -> None:
        with self._lock:
            self._gone = True
            callbacks = tuple(self._callbacks.values())
        for callback in callbacks:
            callback()


class GrpcCallContext(CallContext):
    """One call, or one request of a stream, which has `departures` and is not run by the thread that reads it."""

    def __init__(
        self,
        context: GrpcContext,
        pending: Pending,
        tokens: Tokens | None,
        departures: Departures | None = None,
    ) -> None:
        remaining = context.time_remaining()
        super().__init__(None if remaining is None else time.monotonic() + remaining, may_run_here=departures is None)
        self._context = context
        self._pending = pending
        self._tokens = tokens
        self._departures = departures

    @property
    @override
    def source(self) -> Hashable:
        peer: str = self._context.peer()
        return peer

    @property
    @override
    def client(self) -> str | None:
        if self._tokens is None:
            return None
        return self._tokens.find(authorization(self._context.invocation_metadata()))

    @property
    @override
    def cancelled(self) -> bool:
        return not self._context.is_active()

    @override
    def run_here(self, work: Callable[[], None]) -> None:
        self._pending.run(work)

    @override
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple(
            (name, base64.b64encode(value).decode() if isinstance(value, bytes) else value)
            for name, value in self._context.invocation_metadata()
        )

    @override
    def on_cancel(self, callback: Callable[[], None]) -> None:
        if self._departures is not None:
            self._departures.watch(self._pending, callback)
        elif not self._context.add_callback(callback):
            callback()
