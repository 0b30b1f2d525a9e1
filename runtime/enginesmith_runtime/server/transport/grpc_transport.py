"""The transport adapter for grpcio: its thread-pool server, with bytes on both sides.

Generic handlers without serialisers hand the received bytes on as they are. The thread that takes a request runs its
inference where an instance is idle; docs/adr/0008 has the measurements that decided for threads.
"""

import base64
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, TypeAlias

import grpc
from typing_extensions import override

from enginesmith_runtime.server.call_threads import CallThreads
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.transport.farewell import Farewell
from enginesmith_runtime.server.transport.goaway import tell_clients_to_go, wait_until_gone
from enginesmith_runtime.server.transport.grpc_context import Departures, GrpcCallContext, authorization
from enginesmith_runtime.server.transport.interface import (
    Answer,
    Call,
    Emit,
    Method,
    Methods,
    StreamMethod,
    UnaryMethod,
    WatchMethod,
)
from enginesmith_runtime.server.transport.limits import TransportLimits, address_unavailable, call_kind
from enginesmith_runtime.server.transport.pending import Pending, begin
from enginesmith_runtime.server.transport.tls import Certificates
from enginesmith_runtime.server.transport.tokens import Tokens

__all__ = ["GrpcTransport"]

# The library ships no types.
GrpcBehavior: TypeAlias = Callable[..., Any]
GrpcContext: TypeAlias = Any
GrpcHandler: TypeAlias = Any

_STATUS: Final = {code: next(status for status in grpc.StatusCode if status.value[0] == code.value) for code in Code}

_PROMPT_THREADS: Final = 64
"""For calls that wait for no instance: health, questions about models and the server, shared memory."""

_REFUSAL_THREADS: Final = 4
"""For calls that are refused because there are enough of their kind."""

_KEEPALIVE_MS: Final = 60_000
"""A client that vanished without a word is found out after a minute and 20 seconds."""

_SENDING_SECONDS: Final = 5.0
"""For what was answered to reach its client, once no handler runs any more and the server ends."""

_TELLING_SECONDS: Final = 0.2
"""For acknowledging what was being sent when answers were held back, before a client gets GOAWAY."""

_READING_SECONDS: Final = 0.01
"""For clients to read GOAWAY and to choose another connection for their next calls, before they get their answers."""

_LEAVING_SECONDS: Final = 1.0
"""For clients to get their last answers and to close their connections."""


def _options(limits: TransportLimits) -> list[tuple[str, int]]:
    """Return the options of the library's server."""
    options = [
        ("grpc.max_receive_message_length", limits.largest_message),
        ("grpc.max_send_message_length", limits.largest_message),
        ("grpc.so_reuseport", int(limits.share_port)),  # else a second server on the port is no error
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]
    if limits.max_connection_age_seconds is not None:
        options += [
            ("grpc.max_connection_age_ms", int(limits.max_connection_age_seconds * 1000)),
            ("grpc.max_connection_age_grace_ms", int(limits.grace_seconds * 1000)),
        ]
    return options


class GrpcTransport:
    """A grpcio server for a map of methods."""

    def __init__(
        self,
        methods: Methods,
        limits: TransportLimits,
        *,
        certificates: Certificates | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        self._farewell = Farewell()
        self._certificates = certificates
        self._port: int | None = None
        kinds = _Kinds(limits)
        self._server = grpc.server(
            kinds.prompt,
            handlers=(_Handlers(methods, self._farewell, kinds, tokens),),
            options=_options(limits),
        )

    @property
    def name(self) -> str:
        """See `Transport`."""
        return "grpcio"

    def start(self, address: str) -> str:
        """Listen; see `Transport`."""
        try:
            port = (
                self._server.add_insecure_port(address)
                if self._certificates is None
                else self._server.add_secure_port(address, _credentials(self._certificates))
            )
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
        # This server cannot write its own GOAWAY frame into a TLS stream: clients get the one of the library.
        if self._port is None or self._certificates is not None:
            return
        # A client that begins a call while it reads GOAWAY may lose it, so it must be silent then.
        self._farewell.fall_silent()
        tell_clients_to_go(self._port, _TELLING_SECONDS)
        time.sleep(_READING_SECONDS)
        self._farewell.release()
        wait_until_gone(self._port, seconds)

    def _cancel_forgotten(self, ended: threading.Event, grace_seconds: float) -> None:
        """Cancel a request that the library had not handed over when it was stopped; nothing else would answer it."""
        if self._farewell.wait_all_left(grace_seconds) and not ended.wait(_SENDING_SECONDS):
            self._server.stop(0)


class _Kinds:
    """The threads of each kind of calls; see `TransportLimits.kinds`."""

    def __init__(self, limits: TransportLimits) -> None:
        prompt, *others = limits.kinds()
        self.prompt = CallThreads(_PROMPT_THREADS, name=prompt.name, most=prompt.most, refusal=prompt.refusal)
        self.all = (self.prompt, *(CallThreads(kind.most, name=kind.name, refusal=kind.refusal) for kind in others))
        # Each takes a moment, so any number may wait.
        self.refusals = CallThreads(_REFUSAL_THREADS, name="grpc-refuse", most=sys.maxsize, refusal="")

    def of(self, method: Method) -> CallThreads:
        """Return the threads for the calls of a method."""
        return self.all[call_kind(method)]


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]  # the library has no types
    """Finds the handler of a method by its full name; refuses a call whose kind has no thread left."""

    def __init__(self, methods: Methods, farewell: Farewell, kinds: _Kinds, tokens: Tokens | None) -> None:
        self._handlers = {
            name: (kinds.of(method), _handler(method, farewell, kinds.of(method), tokens))
            for name, method in methods.items()
        }
        self._refusers = {
            kind: _refuser(ProtocolError(Code.RESOURCE_EXHAUSTED, kind.refusal), kinds.refusals) for kind in kinds.all
        }
        self._refusals = kinds.refusals
        self._tokens = tokens
        self._free = frozenset(name for name, method in methods.items() if method.free)

    @override
    def service(self, handler_call_details: GrpcContext) -> GrpcHandler:
        found = self._handlers.get(handler_call_details.method)
        if found is None:
            return None
        if self._tokens is not None and handler_call_details.method not in self._free:
            sender = self._tokens.admit(authorization(handler_call_details.invocation_metadata))
            if isinstance(sender, ProtocolError):
                return _refuser(sender, self._refusals)
        threads, handler = found
        return self._refusers[threads] if threads.full else handler


def _credentials(certificates: Certificates) -> GrpcContext:
    """Return the library's credentials, for which it asks again at each handshake."""

    def read() -> GrpcContext:
        pem = certificates.read()
        return grpc.ssl_server_certificate_configuration(((pem.key, pem.certificate),), pem.client_ca)

    return grpc.dynamic_ssl_server_credentials(
        read(),
        lambda: read() if certificates.reload() else None,
        require_client_authentication=certificates.files.client_ca is not None,
    )


def _handler(method: Method, farewell: Farewell, threads: CallThreads, tokens: Tokens | None) -> GrpcHandler:
    match method:
        case UnaryMethod(call=call):
            return grpc.unary_unary_rpc_method_handler(_on(threads, partial(_serve_unary, call, farewell, tokens)))
        case StreamMethod():
            return grpc.stream_stream_rpc_method_handler(_on(threads, partial(_serve_stream, method, farewell, tokens)))
        case WatchMethod(subscribe=subscribe):
            return grpc.unary_stream_rpc_method_handler(_on(threads, partial(_serve_watch, subscribe)))


def _refuser(error: ProtocolError, threads: CallThreads) -> GrpcHandler:
    # As a stream, whatever the call is: the library then waits for no request before it lets the handler refuse.
    return grpc.stream_stream_rpc_method_handler(_on(threads, lambda _requests, context: _abort(context, error)))


def _on(threads: CallThreads, behavior: GrpcBehavior) -> GrpcBehavior:
    """Let the library run a handler on these threads and not on the server's own."""
    on_threads = partial(behavior)
    on_threads.experimental_thread_pool = threads  # type: ignore[attr-defined]  # where the library looks for it
    return on_threads


def _serve_unary(call: Call, farewell: Farewell, tokens: Tokens | None, data: bytes, context: GrpcContext) -> bytes:
    farewell.arrive()
    try:
        pending = Pending()
        begin(call, data, GrpcCallContext(context, pending, tokens), pending.reply)
        outcome = pending.wait()
    finally:
        farewell.leave()
    if isinstance(outcome, Answer):
        if outcome.metadata:
            context.send_initial_metadata(_pairs(outcome.metadata))
        if outcome.trailers:
            context.set_trailing_metadata(_pairs(outcome.trailers))
        return outcome.body
    _abort(context, outcome)
    return b""  # not reached: abort raises


def _serve_stream(
    method: StreamMethod,
    farewell: Farewell,
    tokens: Tokens | None,
    requests: Iterator[bytes],
    context: GrpcContext,
) -> Iterator[bytes]:
    """Answer in order; a thread of its own reads, so that requests are taken while earlier ones run."""
    farewell.arrive()
    answers: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
    room = threading.Semaphore(method.in_flight)
    departures = Departures(context)

    def read() -> None:
        try:
            for data in requests:
                room.acquire()
                pending = Pending()
                begin(method.call, data, GrpcCallContext(context, pending, tokens, departures), pending.reply)
                answers.put(pending)
        except grpc.RpcError:  # the client cancelled; the library raises its bare base class here
            return
        finally:
            answers.put(None)

    # A client that goes while the reader waits for room must not leave it waiting.
    context.add_callback(partial(room.release, method.in_flight))
    threading.Thread(target=read, name="grpc-stream", daemon=True).start()
    first = True
    try:
        while (pending := answers.get()) is not None:
            outcome = pending.wait()
            departures.forget(pending)
            room.release()
            if isinstance(outcome, ProtocolError):
                _abort(context, outcome)
            else:
                if first and outcome.metadata:
                    context.send_initial_metadata(_pairs(outcome.metadata))
                first = False
                context.set_trailing_metadata(_pairs(outcome.trailers))
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


def _pairs(metadata: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str | bytes], ...]:
    return tuple((name, base64.b64decode(value) if name.endswith("-bin") else value) for name, value in metadata)


def _abort(context: GrpcContext, error: ProtocolError) -> None:
    context.abort(_STATUS[error.code], error.message)
