"""Answers the calls that arrive over links, in the process with the engines."""

import select
import threading
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Any, Final

from typing_extensions import override

from enginesmith_runtime.server.errors import ProtocolError
from enginesmith_runtime.server.front_ends.link import Link
from enginesmith_runtime.server.transport.interface import (
    Body,
    Call,
    CallContext,
    Emit,
    Methods,
    StreamMethod,
    UnaryMethod,
    WatchMethod,
)
from enginesmith_runtime.server.transport.pending import Outcome, Pending, begin

__all__ = ["Calls"]


class Calls:
    """Answers the calls of links. Each link has its own thread."""

    def __init__(self, methods: Methods) -> None:
        self._methods = methods
        self._departures = _Departures()

    def serve(self, link: Link) -> None:
        """Answer one call after another until the other side hangs up."""
        try:
            while (packet := link.receive()) is not None:
                (name, deadline, *sender), data = packet
                match self._methods[name]:
                    case UnaryMethod(call=call) | StreamMethod(call=call):
                        _send(link, self._answer(call, data, link, deadline, sender))
                    case WatchMethod(subscribe=subscribe):
                        _watch(subscribe, bytes(data), link)
                # Release the last reference to a large request now, and not when the next request arrives.
                del packet, data
        except OSError:  # the front end has ended, so nothing waits for the response
            return
        finally:
            link.close()

    def _answer(self, call: Call, data: Body, link: Link, deadline: float | None, sender: Sequence[Any]) -> Outcome:
        pending = Pending()
        context = _LinkCallContext(link, pending, self._departures, deadline, sender)
        begin(call, data, context, pending.reply)
        outcome = pending.wait()
        context.end()
        return outcome


def _send(link: Link, outcome: Outcome) -> None:
    if isinstance(outcome, ProtocolError):
        link.send(["error", outcome.code.value, outcome.reason], outcome.message.encode())
    else:
        link.send(["answer", outcome.metadata], outcome.body)


def _watch(subscribe: Callable[[Body, Emit], Callable[[], None]], data: Body, link: Link) -> None:
    def emit(body: bytes | None) -> None:
        if body is None:
            link.hang_up()
            return
        with suppress(OSError):  # the other side hung up; `receive` reports it
            link.send(["emitted"], body)

    unsubscribe = subscribe(data, emit)
    try:
        link.receive()
    finally:
        unsubscribe()


class _LinkCallContext(CallContext):
    """Context of one call. A front end hangs up if the client has gone. `sender`: client, connection and trace."""

    def __init__(
        self,
        link: Link,
        pending: Pending,
        departures: "_Departures",
        deadline: float | None,
        sender: Sequence[Any],
    ) -> None:
        super().__init__(deadline, may_run_here=True)
        self._sender = sender
        self._link = link
        self._pending = pending
        self._departures = departures
        self._watched = False

    @property
    @override
    def source(self) -> Hashable:
        return self._sender[1] if self._sender else None

    @property
    @override
    def client(self) -> str | None:
        return self._sender[0] if self._sender else None

    @override
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple(self._sender[2].items()) if self._sender else ()

    @property
    @override
    def cancelled(self) -> bool:
        return self._link.other_side_gone

    @override
    def run_here(self, work: Callable[[], None]) -> None:
        self._pending.run(work)

    @override
    def on_cancel(self, callback: Callable[[], None]) -> None:
        self._watched = True
        self._departures.watch(self._link, callback)

    def end(self) -> None:
        if self._watched:
            self._departures.forget(self._link)


class _Departures:
    """Calls back when the other side of a link hangs up while it waits for an answer."""

    # The other side sends nothing while it waits, so a readable connection means that it has hung up.
    _EVENTS: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: dict[int, tuple[Link, Callable[[], None]]] = {}
        self._epoll = select.epoll()
        threading.Thread(target=self._listen, name="departures", daemon=True).start()

    def watch(self, link: Link, callback: Callable[[], None]) -> None:
        with self._lock:
            self._callbacks[link.fileno()] = (link, callback)
            self._epoll.register(link.fileno(), self._EVENTS)

    def forget(self, link: Link) -> None:
        with self._lock:
            del self._callbacks[link.fileno()]
            self._epoll.unregister(link.fileno())

    def _listen(self) -> None:
        while True:
            for descriptor, _ in self._epoll.poll():
                with self._lock:
                    found = self._callbacks.get(descriptor)
                # The descriptor may have become another link's meanwhile.
                if found is not None and found[0].other_side_gone:
                    found[1]()
