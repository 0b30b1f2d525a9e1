"""What a transport adapter and the protocol agree on: bytes in, bytes out.

A handler gets the bytes of a request and a `reply` that it calls once, from any thread: at once where the answer is
known, from an instance's thread after an inference that was queued. So an adapter may wait with a thread, an event loop
or in native code.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from enginesmith_runtime.server.errors import ProtocolError

__all__ = [
    "Answer",
    "Body",
    "Call",
    "CallContext",
    "Emit",
    "Method",
    "Methods",
    "Reply",
    "StreamMethod",
    "Transport",
    "UnaryMethod",
    "WatchMethod",
]


class CallContext:
    """What a call carries in addition to its bytes. Each adapter has its own: only it knows when a client has gone.

    Attributes:
        deadline: on `time.monotonic()`'s clock, in seconds; None: the client waits for ever.
        may_run_here: whether the thread that calls the handler may run the inference itself, at once or by `run_here`.
    """

    def __init__(self, deadline: float | None = None, *, may_run_here: bool = False) -> None:
        self.deadline = deadline
        self.may_run_here = may_run_here

    @property
    def cancelled(self) -> bool:
        """Whether the client has gone; work not yet begun is then dropped."""
        return False

    def run_here(self, work: Callable[[], None]) -> None:
        """Run `work` on the thread that called the handler and now waits for the answer, where `may_run_here` says so.

        Called from any thread, and before `reply`, which `work` then calls.
        """
        work()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the client goes, from any thread; at once where it has gone already."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer: the message's bytes and the initial metadata that goes before it."""

    body: bytes
    metadata: tuple[tuple[str, str], ...] = ()


Body = bytes | memoryview
"""Of a request; a view is valid until the reply."""

Reply = Callable[[Answer | ProtocolError], None]
Call = Callable[[Body, CallContext, Reply], None]
Emit = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class UnaryMethod:
    """One request, one answer. The handler raises `ProtocolError` or replies, never both.

    Attributes:
        waits: whether a call may wait for an instance; the others are answered at once.
    """

    call: Call
    waits: bool = False


@dataclass(frozen=True, slots=True)
class StreamMethod:
    """A stream of requests, each with one answer; answers keep the order of their requests.

    Attributes:
        in_flight: how many requests of one stream may be unanswered; the adapter reads no further until one is.
    """

    call: Call
    in_flight: int


@dataclass(frozen=True, slots=True)
class WatchMethod:
    """One request, answers until the client leaves.

    Attributes:
        subscribe: takes the request and an `emit` that may be called from any thread; returns how to end it.
    """

    subscribe: Callable[[Body, Emit], Callable[[], None]]


Method = UnaryMethod | StreamMethod | WatchMethod
Methods = Mapping[str, Method]
"""By full name, with a slash before the service and before the method."""


class Transport(Protocol):
    """A listening server over some wire."""

    def start(self, address: str) -> str:
        """Listen on host:port; returns the address with the port that was taken.

        Raises:
            enginesmith_contract.errors.ServeError: the address cannot be had.
        """
        ...

    def stop(self, grace_seconds: float) -> None:
        """Send clients elsewhere, take no new call, and return when the running ones ended or time is up.

        A second call with a shorter time from another thread shortens the wait.
        """
        ...
