"""What the connections of one listener share: the methods, the limits, the event loop and the way to it."""

import fcntl
import termios
import time
from asyncio import AbstractEventLoop, TimerHandle
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, TypeVar

from enginesmith_runtime.server.memory import give_freed_memory_back
from enginesmith_runtime.server.transport.http2.bounds import BRIEF_BODY_BYTES, KEPT_BYTES, Bounds
from enginesmith_runtime.server.transport.http2.header_blocks import KnownHeads
from enginesmith_runtime.server.transport.http2.message_reader import inflate
from enginesmith_runtime.server.transport.interface import (
    Body,
    Call,
    CallContext,
    GatheredT,
    Method,
    Methods,
    Reply,
    StreamMethod,
    UnaryMethod,
)
from enginesmith_runtime.server.transport.limits import TransportLimits, call_kind
from enginesmith_runtime.server.transport.pending import begin
from enginesmith_runtime.server.transport.tokens import Tokens

if TYPE_CHECKING:
    from enginesmith_runtime.server.transport.http2.connection import Connection
    from enginesmith_runtime.server.transport.http2.stream import Stream

__all__ = ["Service"]

_ArgumentT = TypeVar("_ArgumentT")

_READERS: Final = 2
"""Threads that read large and compressed requests; each holds the interpreter's lock for most of that."""

_ALONE_CALLS: Final = 16
"""That came while no other one was there; then the next one most likely does, too."""

_MOST_GATHERED: Final = 256
"""Requests: far fewer than the open streams that one connection may have."""


class Service:
    """The shared part; everything but `post`, `is_loop_thread` and replies belongs to the event loop's thread.

    Attributes:
        scratch: memory that connections read into; no two read at a time.
        open_calls: by kind; see `TransportLimits.kinds`.
        tokens: that calls need; None: they need none.
        held: bytes of requests and answers, of which there may be `most_held`; see `Bounds.held_bytes`.
        highest: the most that was held since the last tick; `peak`: since memory was last given back.
        connections: that are open.
        leaving: whether the server ends, and so tells clients to go.
        gathers: whether requests wait for those that arrived with them.
    """

    _loop: AbstractEventLoop

    def __init__(self, methods: Methods, limits: TransportLimits, bounds: Bounds, tokens: Tokens | None = None) -> None:
        self.limits = limits
        self.bounds = bounds
        self.methods: Mapping[str, tuple[Method, int]] = {
            name: (method, call_kind(method)) for name, method in methods.items()
        }
        self.kinds = limits.kinds()
        self.tokens = tokens
        self.open_calls = [0] * len(self.kinds)
        self.heads = KnownHeads()
        self.scratch = bytearray(bounds.read_bytes)
        self.connections: set[Connection] = set()
        self.held = 0
        self.highest = self.peak = 0
        self.leaving = False
        self.now = time.monotonic
        self.most_held = max(bounds.held_bytes, 8 * limits.max_message_bytes)
        self._loop_thread = 0
        self._posted: deque[tuple[Connection, Callable[[Any], None], Any]] = deque()
        self._woken = False
        self.gathers = False
        self._gathered: dict[Callable[[Any], None], list[Any]] = {}
        self._gatherers: list[Stream] = []
        self._last_reader: Connection | None = None
        self._turn_ends = False
        self._alone = 0
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="http2-read")

    def bind(self, loop: AbstractEventLoop) -> None:
        """Take the loop that runs on this thread."""
        self._loop = loop
        self._loop_thread = get_ident()

    def is_loop_thread(self) -> bool:
        """Whether the caller runs on the event loop."""
        return get_ident() == self._loop_thread

    def call_later(self, seconds: float, callback: Callable[[], None]) -> TimerHandle:
        """Call back on the event loop."""
        return self._loop.call_later(seconds, callback)

    def post(self, connection: "Connection", function: Callable[[_ArgumentT], None], argument: _ArgumentT) -> None:
        """Call a function for a connection on the event loop; many replies wake it once."""
        self._posted.append((connection, function, argument))
        if not self._woken and self._loop_thread:
            self._woken = True
            self._loop.call_soon_threadsafe(self._run_posted)

    def handle(
        self, method: UnaryMethod | StreamMethod, body: Body, context: CallContext, reply: Reply, encoding: str
    ) -> None:
        """Call a handler, here or, where reading the request takes long, on another thread.

        `encoding` says how the body is compressed; "": not at all.
        """
        call = method.call
        if encoding or len(body) > BRIEF_BODY_BYTES:
            brief = method.brief(body) if method.brief is not None and not encoding else None
            if brief is None:
                # The thread has other requests to read, so it waits for no instance.
                context.may_run_here = False
                self._readers.submit(begin, self._inflating(call, encoding) if encoding else call, body, context, reply)
                return
            call = brief
        begin(call, body, context, reply)

    def gather(self, stream: "Stream", run: Callable[[Sequence[GatheredT]], None], item: GatheredT) -> None:
        """Call `run` with `item` and all others that are gathered for it in this turn; see `CallContext`."""
        self._gathered.setdefault(run, []).append(item)
        self._gatherers.append(stream)
        self.gathers = True
        if len(self._gatherers) >= _MOST_GATHERED:
            self._end_turn()

    def comes_alone(self) -> bool:
        """Count the call that has just come; return whether it and those before it met no other."""
        met = len(self.connections) > 1 or sum(self.open_calls) > 1
        self._alone = 0 if met else self._alone + 1
        return self._alone > _ALONE_CALLS

    def is_full(self, kind: int) -> bool:
        """Return whether no further call of a kind may begin; what is gathered runs before one is refused."""
        if self.gathers and self.open_calls[kind] >= self.kinds[kind].most:
            self._end_turn()
        return self.open_calls[kind] >= self.kinds[kind].most

    def end_read(self, connection: "Connection") -> None:
        """Note that all that has come of one connection is read, and something was gathered."""
        alone = self._last_reader is connection and not self._turn_ends
        self._last_reader = connection
        if alone:
            self._end_turn()
        elif not self._turn_ends:
            # Several clients call: those whose bytes have come as well are read before this is called.
            self._turn_ends = True
            self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._turn_ends = self.gathers = False
        gathered, self._gathered = self._gathered, {}
        streams, self._gatherers = self._gatherers, []
        for run, items in gathered.items():
            run(items)
        for stream in streams:
            if stream.until is not None:
                stream.watch_deadline()
        connections = {stream.connection for stream in streams}
        if self._alone and (len(streams) > 1 or any(map(_has_more, connections))):
            # They had to wait.
            self._alone = 0
        for connection in connections:
            connection.flush()

    def inflate(self, body: Body, encoding: str) -> bytes:
        """Return a compressed message as it was."""
        return inflate(body, encoding, self.limits.largest_message)

    def give_memory_back(self) -> None:
        """Give the kernel what was freed, where far more was held than in the time since the last call."""
        self.peak = max(self.peak, self.highest)
        if self.peak > KEPT_BYTES and self.highest < self.peak // 4:
            self.peak = self.highest
            give_freed_memory_back()
        self.highest = self.held

    def close(self) -> None:
        """Start no further request."""
        self._readers.shutdown(wait=False, cancel_futures=True)

    def _inflating(self, call: Call, encoding: str) -> Call:
        return lambda body, context, reply: call(self.inflate(body, encoding), context, reply)

    def _run_posted(self) -> None:
        self._woken = False
        posted = self._posted
        touched = set()
        while posted:
            connection, function, argument = posted.popleft()
            connection.run(function, argument)
            touched.add(connection)
        for connection in touched:
            connection.flush()


def _has_more(connection: "Connection") -> bool:
    """Return whether a client has sent something that is not read yet."""
    with suppress(OSError, ValueError):  # the connection has gone
        descriptor: int = connection.transport.get_extra_info("socket").fileno()
        return any(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    return False
