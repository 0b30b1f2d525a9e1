"""What a transport adapter and the protocol agree on: bytes in, bytes out.

A handler gets the bytes of a request and a `reply` that it calls once, from any thread: at once where the answer is
known, from an instance's thread after an inference that was queued. So an adapter may wait with a thread, an event loop
or in native code.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from enginesmith_runtime.server.errors import ProtocolError
from enginesmith_runtime.server.transport.compiling import mypyc_attr

__all__ = [
    "Answer",
    "Body",
    "Call",
    "CallContext",
    "Content",
    "Emit",
    "GatheredT",
    "Method",
    "Methods",
    "Reply",
    "StreamMethod",
    "Transport",
    "UnaryMethod",
    "WatchMethod",
]

GatheredT = TypeVar("GatheredT")


@mypyc_attr(allow_interpreted_subclasses=True)
class CallContext:
    """What a call carries in addition to its bytes. Each adapter has its own: only it knows when a client has gone.

    Attributes:
        deadline: on `time.monotonic()`'s clock, in seconds; None: the client waits for ever.
        may_run_here: whether the thread that calls the handler may run the inference itself, at once or by `run_here`.
        may_block: whether that thread may run one that takes long, and waits for `run_here`; False: an event loop, on
            which only what is quick runs.
    """

    def __init__(self, deadline: float | None = None, *, may_run_here: bool = False, may_block: bool = True) -> None:
        self.deadline = deadline
        self.may_run_here = may_run_here
        self.may_block = may_block

    @property
    def source(self) -> Hashable:
        """Return what tells the call's connection from others; connections take turns where requests wait."""
        return None

    @property
    def client(self) -> str | None:
        """Return the name of the client whose token came with the call; None: calls need no token."""
        return None

    @property
    def cancelled(self) -> bool:
        """Whether the client has gone; work not yet begun is then dropped."""
        return False

    def comes_alone(self) -> bool:
        """Count this call; return whether it and those before it each came while no other one was there."""
        return False

    def run_here(self, work: Callable[[], None]) -> None:
        """Run `work` on the thread that called the handler and now waits for the answer, where `may_run_here` says so.

        Called from any thread, and before `reply`, which `work` then calls; it may answer other calls, too.
        """
        work()

    def gather(self, run: Callable[[Sequence[GatheredT]], None], item: GatheredT) -> bool:
        """Call `run` on this thread with `item` and all that came with it, once what has arrived is read.

        Returns False, and does nothing, where the adapter does not wait for that.
        """
        del run, item
        return False

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what the client sent in addition to the request; values of names with `-bin` are base64."""
        return ()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the client goes, from any thread; at once where it has gone already."""


Content = bytes | tuple[bytes | memoryview, ...]
"""A message, or its parts in order, which nothing overwrites later."""


class Answer(NamedTuple):
    """A successful answer: the message, the initial metadata that goes before it and the trailing one after it.

    Values of names with `-bin` are base64.
    """

    content: Content
    metadata: tuple[tuple[str, str], ...] = ()
    trailers: tuple[tuple[str, str], ...] = ()

    @property
    def body(self) -> bytes:
        """Return the message in one piece: a copy where it has parts."""
        return self.content if isinstance(self.content, bytes) else b"".join(self.content)

    @property
    def size(self) -> int:
        """Return the message's size in bytes."""
        return len(self.content) if isinstance(self.content, bytes) else sum(map(len, self.content))


Body = bytes | memoryview
"""Of a request; a view is valid until the reply."""

Reply = Callable[[Answer | ProtocolError], None]
Call = Callable[[Body, CallContext, Reply], None]
Emit = Callable[[bytes | None], None]
"""Sends one more message; None: there is none, and the call ends."""


@dataclass(frozen=True, slots=True)
class UnaryMethod:
    """One request, one answer. The handler raises `ProtocolError` or replies, never both.

    Attributes:
        waits: whether a call may wait for an instance; the others are answered at once.
        free: whether a call needs no token where others do.
        brief: returns the handler of a large request that takes as little time as a small one, so that an event loop
            may call it, or None where the request takes longer; None: every large request does.
    """

    call: Call
    waits: bool = False
    free: bool = False
    brief: Callable[[Body], Call | None] | None = None


@dataclass(frozen=True, slots=True)
class StreamMethod:
    """A stream of requests, each with one answer; answers keep the order of their requests.

    What the first answer has as metadata is the stream's, and what the last one has as trailers.

    Attributes:
        in_flight: how many requests of one stream may be unanswered; the adapter reads no further until one is.
    """

    call: Call
    in_flight: int
    free: bool = False
    brief: None = None


@dataclass(frozen=True, slots=True)
class WatchMethod:
    """One request, answers until the client leaves.

    Attributes:
        subscribe: takes the request and an `emit` that may be called from any thread; returns how to end it.
        free: as for `UnaryMethod`.
    """

    subscribe: Callable[[Body, Emit], Callable[[], None]]
    free: bool = False


Method = UnaryMethod | StreamMethod | WatchMethod
Methods = Mapping[str, Method]
"""By full name, with a slash before the service and before the method."""


class Transport(Protocol):
    """A listening server over some wire."""

    @property
    def name(self) -> str:
        """Return what serves, for people."""
        ...

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
