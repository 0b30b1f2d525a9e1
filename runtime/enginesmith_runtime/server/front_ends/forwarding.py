"""The methods that a front end offers. Each call is forwarded to the process with the engines."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final

from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.front_ends.link import Link
from enginesmith_runtime.server.front_ends.settings import Settings
from enginesmith_runtime.server.tracing import context_fields, is_wanted
from enginesmith_runtime.server.transport.interface import (
    Answer,
    Body,
    CallContext,
    Emit,
    Methods,
    Reply,
    StreamMethod,
    UnaryMethod,
    WatchMethod,
)
from enginesmith_runtime.server.transport.pending import Outcome, begin

__all__ = ["forwarded_methods"]

_MOST_IDLE: Final = 32
"""Number of idle links that are kept for later calls. Each keeps memory for its largest message so far."""

_LARGEST_KEPT_BYTES: Final = 32 << 20
"""Memory that a link may keep; equal to the largest buffer that `memory.keep_freed_memory` keeps."""


def forwarded_methods(settings: Settings) -> Methods:
    """Return handlers that forward calls to the process with the engines."""
    carrier = _Carrier(
        settings.engines, threads=settings.limits.max_waiting_calls, names_clients=settings.names_clients
    )
    free = frozenset(settings.free)
    return {
        **{
            name: UnaryMethod(partial(carrier.call, name), waits, free=name in free)
            for name, waits in settings.unary.items()
        },
        **{name: StreamMethod(partial(carrier.call, name), limit) for name, limit in settings.streams.items()},
        **{name: WatchMethod(partial(carrier.watch, name), free=name in free) for name in settings.watches},
    }


class _Carrier:
    """The links to the process with the engines."""

    def __init__(self, engines: str, *, threads: int, names_clients: bool) -> None:
        self._engines = engines
        self._names_clients = names_clients
        self._traces = is_wanted()
        # The last used link comes first, so that few links carry large messages and need memory for them.
        self._idle: list[Link] = []
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="forward")

    def call(self, method: str, data: Body, context: CallContext, reply: Reply) -> None:
        """Forward one request and return its response."""
        carry = partial(self._carry, method)
        if context.may_run_here and context.may_block:
            carry(data, context, reply)
        else:
            self._threads.submit(begin, carry, data, context, reply)

    def watch(self, method: str, data: Body, emit: Emit) -> Callable[[], None]:
        """Forward one request, and its responses until the returned function is called."""
        link = self._connect()
        try:
            link.send([method, None], data)
        except OSError:
            link.close()
            raise _ended() from None

        def emit_all() -> None:
            while (packet := link.receive()) is not None:
                emit(bytes(packet[1]))
            link.close()
            emit(None)

        threading.Thread(target=emit_all, name="watch", daemon=True).start()
        return link.hang_up

    def _carry(self, method: str, data: Body, context: CallContext, reply: Reply) -> None:
        try:
            link = self._idle.pop()
        except IndexError:
            link = self._connect()
        errand = _Errand(link)
        context.on_cancel(errand.cancel)
        packet = None
        with suppress(OSError):  # the other side hung up
            link.send([method, context.deadline, *self._sender(context)], data)
            packet = link.receive()
        errand.end()
        if packet is None or errand.cancelled:
            link.close()
            raise _cancelled() if errand.cancelled else _ended()
        (kind, *rest), body = packet
        outcome: Outcome
        if kind == "answer":
            outcome = Answer(bytes(body), tuple((name, value) for name, value in rest[0]))
        else:
            outcome = ProtocolError(Code(rest[0]), bytes(body).decode(), reason=rest[1])
        self._give_back(link)
        reply(outcome)

    def _sender(self, context: CallContext) -> tuple[object, ...]:
        """Return the client's name, an id of its connection that is unique over all front ends, and its trace."""
        if not (self._names_clients or self._traces):
            return ()
        trace = context_fields(context.metadata()) if self._traces else {}
        return (context.client, f"{os.getpid()}-{hash(context.source)}", trace)

    def _give_back(self, link: Link) -> None:
        if len(self._idle) < _MOST_IDLE and link.memory_bytes <= _LARGEST_KEPT_BYTES:
            self._idle.append(link)
        else:
            link.close()

    def _connect(self) -> Link:
        try:
            return Link.connect(self._engines)
        except OSError:
            raise _ended() from None


class _Errand:
    """One forwarded call. Safe from any thread.

    Attributes:
        cancelled: Whether the client went away before the response.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._ended = False
        self.cancelled = False

    def cancel(self) -> None:
        """Hang up if the response has not arrived."""
        with self._lock:
            if not self._ended:
                self.cancelled = True
                self._link.hang_up()

    def end(self) -> None:
        """Detach the call from the link, which may carry another call. A later cancellation has no effect."""
        with self._lock:
            self._ended = True


def _cancelled() -> ProtocolError:
    return ProtocolError(Code.CANCELLED, "the client cancelled the request")


def _ended() -> ProtocolError:
    return ProtocolError(Code.UNAVAILABLE, "the server ends; send the request to another one", reason="ShuttingDown")
