"""The transport adapter for grpcio: its thread-pool server, with bytes on both sides.

Generic handlers without serialisers hand the received bytes on as they are. The thread that takes a request runs its
inference where an instance is idle; docs/adr/0008 has the measurements that decided for threads.
"""

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

import grpc
from typing_extensions import override

from enginesmith_contract.errors import ServeError
from enginesmith_contract.serve_request import GRPC_MESSAGE_BYTES
from enginesmith_runtime.server.call_threads import CallThreads
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.transport.farewell import Farewell
from enginesmith_runtime.server.transport.goaway import tell_clients_to_go, wait_until_gone
from enginesmith_runtime.server.transport.interface import (
    Answer,
    Call,
    CallContext,
    Emit,
    Method,
    Methods,
    StreamMethod,
    UnaryMethod,
    WatchMethod,
)
from enginesmith_runtime.server.transport.pending import Pending, begin

__all__ = ["GrpcLimits", "GrpcTransport", "address_unavailable"]

# The library ships no types.
GrpcBehavior: TypeAlias = Callable[..., Any]
GrpcContext: TypeAlias = Any
GrpcHandler: TypeAlias = Any

_STATUS: Final = {code: next(status for status in grpc.StatusCode if status.value[0] == code.value) for code in Code}

_PROMPT_THREADS: Final = 64
"""For calls that wait for no instance: health, questions about models and the server, shared memory."""

_PROMPT_CALLS: Final = 4096
"""Of these that may wait for one of the threads."""

_WATCHES: Final = 1024
"""Clients that watch health; each has a thread."""

_REFUSAL_THREADS: Final = 4
"""For calls that are refused because there are enough of their kind."""

_KEEPALIVE_MS: Final = 60_000
"""A client that vanished without a word is found out after a minute and 20 seconds."""

_SENDING_SECONDS: Final = 5.0
"""For what was answered to reach its client, once no handler runs any more and the server ends."""

_TELLING_SECONDS: Final = 0.2
"""For acknowledging what was being sent when answers were held back, before a client gets GOAWAY."""

_LEAVING_SECONDS: Final = 1.0
"""For clients to get their last answers and to close their connections."""


@dataclass(frozen=True, kw_only=True)
class GrpcLimits:
    """What a ServeRequest says about connections and messages; see there.

    Attributes:
        max_waiting_calls: inferences that run, wait or are being received; each has a thread, and more are refused.
        max_streams: open streams of requests; the same.
        share_port: whether other processes of this server listen on the port too.
    """

    max_message_bytes: int
    max_connection_age_seconds: float | None
    grace_seconds: float
    max_waiting_calls: int
    max_streams: int
    share_port: bool = False

    def options(self) -> list[tuple[str, int]]:
        """Return the options of the library's server."""
        # The library's own refusal names no field, so it comes later than ours. A stream wraps its answers, too.
        largest = min(2 * self.max_message_bytes, GRPC_MESSAGE_BYTES - 1)
        options = [
            ("grpc.max_receive_message_length", largest),
            ("grpc.max_send_message_length", largest),
            ("grpc.so_reuseport", int(self.share_port)),  # else a second server on the port is no error
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ]
        if self.max_connection_age_seconds is not None:
            options += [
                ("grpc.max_connection_age_ms", int(self.max_connection_age_seconds * 1000)),
                ("grpc.max_connection_age_grace_ms", int(self.grace_seconds * 1000)),
            ]
        return options


def address_unavailable(address: str) -> ServeError:
    """Return what a server ends with that cannot listen on host:port."""
    return ServeError(
        "cannot listen",
        where=address,
        why="the port is taken or the host is not this machine's",
        remedy="choose another address, or port 0 for a free one",
        reason="AddressUnavailable",
    )


class GrpcTransport:
    """A grpcio server for a map of methods."""

    def __init__(self, methods: Methods, limits: GrpcLimits) -> None:
        self._farewell = Farewell()
        self._port: int | None = None
        kinds = _Kinds(limits)
        self._server = grpc.server(
            kinds.prompt,
            handlers=(_Handlers(methods, self._farewell, kinds),),
            options=limits.options(),
        )

    def start(self, address: str) -> str:
        """Listen; see `Transport`."""
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise address_unavailable(address) from error
        self._server.start()
        self._port = port
        return f"{address.rpartition(':')[0]}:{port}"

    def stop(self, grace_seconds: float) -> None:
        """Send GOAWAY, take no new call, return when the running ones ended or the time is up."""
        self._send_clients_away(min(grace_seconds, _LEAVING_SECONDS))
        self._farewell.fall_silent()
        ended = self._server.stop(grace_seconds)
        self._farewell.release()
        threading.Thread(target=self._cancel_forgotten, args=(ended, grace_seconds), daemon=True).start()
        ended.wait()

    def _send_clients_away(self, seconds: float) -> None:
        """Let clients send their next requests elsewhere; slow ones get a second, more forceful signal."""
        if self._port is None:
            return
        with self._farewell.answers_held():
            tell_clients_to_go(self._port, _TELLING_SECONDS)
        wait_until_gone(self._port, seconds)

    def _cancel_forgotten(self, ended: threading.Event, grace_seconds: float) -> None:
        """Cancel a request that the library had not handed over when it was stopped; nothing else would answer it."""
        if self._farewell.wait_all_left(grace_seconds) and not ended.wait(_SENDING_SECONDS):
            self._server.stop(0)


class _Kinds:
    """The threads of each kind of calls."""

    def __init__(self, limits: GrpcLimits) -> None:
        self.prompt = CallThreads(
            _PROMPT_THREADS, name="grpc", most=_PROMPT_CALLS, refusal=f"{_PROMPT_CALLS} calls wait; try again later"
        )
        self.waiting = CallThreads(
            limits.max_waiting_calls,
            name="grpc-infer",
            refusal=f"{limits.max_waiting_calls} inferences run, wait or are being received; try again later or on "
            "another replica, or raise serving.maxQueued",
        )
        self.streams = CallThreads(
            limits.max_streams,
            name="grpc-stream",
            refusal=f"{limits.max_streams} streams are open, as many as there may be; end one, or raise "
            "serving.maxStreams",
        )
        self.watches = CallThreads(
            _WATCHES, name="grpc-watch", refusal=f"{_WATCHES} calls watch health, as many as there may be"
        )
        # Each takes a moment, so any number may wait.
        self.refusals = CallThreads(_REFUSAL_THREADS, name="grpc-refuse", most=sys.maxsize, refusal="")

    def of(self, method: Method) -> CallThreads:
        """Return the threads for the calls of a method."""
        match method:
            case UnaryMethod(waits=waits):
                return self.waiting if waits else self.prompt
            case StreamMethod():
                return self.streams
            case WatchMethod():
                return self.watches


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]  # the library has no types
    """Finds the handler of a method by its full name; refuses a call whose kind has no thread left."""

    def __init__(self, methods: Methods, farewell: Farewell, kinds: _Kinds) -> None:
        self._handlers = {
            name: (kinds.of(method), _handler(method, farewell, kinds.of(method))) for name, method in methods.items()
        }
        self._refusers = {
            kind: _refuser(kind, kinds.refusals) for kind in (kinds.prompt, kinds.waiting, kinds.streams, kinds.watches)
        }

    @override
    def service(self, handler_call_details: GrpcContext) -> GrpcHandler:
        found = self._handlers.get(handler_call_details.method)
        if found is None:
            return None
        threads, handler = found
        return self._refusers[threads] if threads.full else handler


def _handler(method: Method, farewell: Farewell, threads: CallThreads) -> GrpcHandler:
    match method:
        case UnaryMethod(call=call):
            return grpc.unary_unary_rpc_method_handler(_on(threads, partial(_serve_unary, call, farewell)))
        case StreamMethod():
            return grpc.stream_stream_rpc_method_handler(_on(threads, partial(_serve_stream, method, farewell)))
        case WatchMethod(subscribe=subscribe):
            return grpc.unary_stream_rpc_method_handler(_on(threads, partial(_serve_watch, subscribe)))


def _refuser(kind: CallThreads, threads: CallThreads) -> GrpcHandler:
    error = ProtocolError(Code.RESOURCE_EXHAUSTED, kind.refusal)
    # As a stream, whatever the call is: the library then waits for no request before it lets the handler refuse.
    return grpc.stream_stream_rpc_method_handler(_on(threads, lambda _requests, context: _abort(context, error)))


def _on(threads: CallThreads, behavior: GrpcBehavior) -> GrpcBehavior:
    """Let the library run a handler on these threads and not on the server's own."""
    on_threads = partial(behavior)
    on_threads.experimental_thread_pool = threads  # type: ignore[attr-defined]  # where the library looks for it
    return on_threads


class _GrpcCallContext(CallContext):
    """One call, or one request of a stream, which has `departures` and is not run by the thread that reads it."""

    def __init__(self, context: GrpcContext, pending: Pending, departures: "_Departures | None" = None) -> None:
        remaining = context.time_remaining()
        super().__init__(None if remaining is None else time.monotonic() + remaining, may_run_here=departures is None)
        self._context = context
        self._pending = pending
        self._departures = departures

    @property
    @override
    def cancelled(self) -> bool:
        return not self._context.is_active()

    @override
    def run_here(self, work: Callable[[], None]) -> None:
        self._pending.run(work)

    @override
    def on_cancel(self, callback: Callable[[], None]) -> None:
        if self._departures is not None:
            self._departures.watch(self._pending, callback)
        elif not self._context.add_callback(callback):
            callback()


class _Departures:
    """What the calls of one stream want to be told when its client goes, each until it has its answer."""

    def __init__(self, context: GrpcContext) -> None:
        self._lock = threading.Lock()
        self._callbacks: dict[Pending, Callable[[], None]] = {}
        self._gone = not context.add_callback(self._tell)

    def watch(self, pending: Pending, callback: Callable[[], None]) -> None:
        with self._lock:
            self._callbacks[pending] = callback
        if self._gone:
            callback()

    def forget(self, pending: Pending) -> None:
        with self._lock:
            self._callbacks.pop(pending, None)

    def _tell(self) -> None:
        with self._lock:
            self._gone = True
            callbacks = tuple(self._callbacks.values())
        for callback in callbacks:
            callback()


def _serve_unary(call: Call, farewell: Farewell, data: bytes, context: GrpcContext) -> bytes:
    farewell.arrive()
    try:
        pending = Pending()
        begin(call, data, _GrpcCallContext(context, pending), pending.reply)
        outcome = pending.wait()
    finally:
        farewell.leave()
    if isinstance(outcome, Answer):
        if outcome.metadata:
            context.send_initial_metadata(outcome.metadata)
        return outcome.body
    _abort(context, outcome)
    return b""  # not reached: abort raises


def _serve_stream(
    method: StreamMethod,
    farewell: Farewell,
    requests: Iterator[bytes],
    context: GrpcContext,
) -> Iterator[bytes]:
    """Answer in order; a thread of its own reads, so that requests are taken while earlier ones run."""
    farewell.arrive()
    answers: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
    room = threading.Semaphore(method.in_flight)
    departures = _Departures(context)

    def read() -> None:
        try:
            for data in requests:
                room.acquire()
                pending = Pending()
                begin(method.call, data, _GrpcCallContext(context, pending, departures), pending.reply)
                answers.put(pending)
        except grpc.RpcError:  # the client cancelled; the library raises its bare base class here
            return
        finally:
            answers.put(None)

    # A client that goes while the reader waits for room must not leave it waiting.
    context.add_callback(partial(room.release, method.in_flight))
    threading.Thread(target=read, name="grpc-stream", daemon=True).start()
    try:
        while (pending := answers.get()) is not None:
            outcome = pending.wait()
            departures.forget(pending)
            room.release()
            if isinstance(outcome, ProtocolError):
                _abort(context, outcome)
            else:
                yield outcome.body
    finally:
        farewell.leave()


def _serve_watch(
    subscribe: Callable[[bytes, Emit], Callable[[], None]],
    data: bytes,
    context: GrpcContext,
) -> Iterator[bytes]:
    messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    try:
        unsubscribe = subscribe(data, messages.put)
    except ProtocolError as error:
        _abort(context, error)
        return
    context.add_callback(partial(messages.put, None))
    try:
        while (message := messages.get()) is not None:
            yield message
    finally:
        unsubscribe()


def _abort(context: GrpcContext, error: ProtocolError) -> None:
    context.abort(_STATUS[error.code], error.message)
