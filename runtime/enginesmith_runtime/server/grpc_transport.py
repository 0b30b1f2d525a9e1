"""The transport adapter for grpcio: its event-loop server, with bytes on both sides.

The event loop carries any number of waiting requests without a thread each, and took a third less CPU per request than
the thread-pool server (docs/adr/0008). Generic handlers without serialisers hand the received bytes on as they are.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import grpc
import grpc.aio
from typing_extensions import override

from enginesmith_contract.errors import ServeError
from enginesmith_runtime.server.protocol.errors import Code, ProtocolError, internal_error
from enginesmith_runtime.server.transport.interface import (
    Answer,
    Call,
    CallContext,
    Method,
    Methods,
    Reply,
    StreamMethod,
    UnaryMethod,
    WatchMethod,
)

__all__ = ["GrpcLimits", "GrpcTransport"]

_STATUS: Final = {code: next(s for s in grpc.StatusCode if s.value[0] == code.value) for code in Code}

_KEEPALIVE_MS: Final = 60_000
"""A client that vanished without a word is found out after a minute and 20 seconds."""

Outcome = Answer | ProtocolError


@dataclass(frozen=True, kw_only=True)
class GrpcLimits:
    """What a ServeRequest says about connections and messages; see there."""

    max_message_bytes: int
    max_connection_age_seconds: float | None
    grace_seconds: float

    def options(self) -> list[tuple[str, int]]:
        """Return the options of the library's server."""
        options = [
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.so_reuseport", 0),  # else a second server on the port is no error
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


class GrpcTransport:
    """A grpcio server for a map of methods. Lives on one event loop."""

    def __init__(self, methods: Methods, limits: GrpcLimits) -> None:
        self._server = grpc.aio.server(handlers=(_Handlers(methods),), options=limits.options())

    async def start(self, address: str) -> str:
        """Listen; see `Transport`."""
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ServeError(
                "cannot listen",
                where=address,
                why="the port is taken or the host is not this machine's",
                remedy="choose another address, or port 0 for a free one",
                reason="AddressUnavailable",
            ) from error
        await self._server.start()
        return f"{address.rpartition(':')[0]}:{port}"

    async def stop(self, grace_seconds: float) -> None:
        """Send GOAWAY, take no new call, end running ones within the time."""
        await self._server.stop(grace_seconds)


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]  # the library has no types
    """Finds the handler of a method by its full name."""

    def __init__(self, methods: Methods) -> None:
        self._handlers = {name: _handler(method) for name, method in methods.items()}

    @override
    def service(self, handler_call_details: Any) -> Any:
        return self._handlers.get(handler_call_details.method)


def _handler(method: Method) -> Any:  # noqa: ANN401 - the library has no types
    match method:
        case UnaryMethod(call=call):
            return grpc.unary_unary_rpc_method_handler(partial(_serve_unary, call))
        case StreamMethod():
            return grpc.stream_stream_rpc_method_handler(partial(_serve_stream, method))
        case WatchMethod(subscribe=subscribe):
            return grpc.unary_stream_rpc_method_handler(partial(_serve_watch, subscribe))


async def _serve_unary(call: Call, data: bytes, context: Any) -> bytes:  # noqa: ANN401 - untyped library
    call_context = _call_context(context)
    future = _begin(call, data, call_context)
    try:
        outcome = await future
    except asyncio.CancelledError:
        call_context.cancel()
        raise
    if isinstance(outcome, Answer):
        if outcome.metadata:
            await context.send_initial_metadata(outcome.metadata)
        return outcome.body
    await context.abort(_STATUS[outcome.code], outcome.message)
    return b""  # not reached: abort raises


async def _serve_stream(method: StreamMethod, requests: Any, context: Any) -> None:  # noqa: ANN401 - untyped library
    answers: asyncio.Queue[asyncio.Future[Outcome] | None] = asyncio.Queue()
    room = asyncio.Semaphore(method.in_flight)
    unanswered: set[CallContext] = set()

    async def read() -> None:
        try:
            async for data in requests:
                await room.acquire()
                call_context = _call_context(context)
                unanswered.add(call_context)
                future = _begin(method.call, data, call_context)
                future.add_done_callback(partial(_discard, unanswered, call_context))
                answers.put_nowait(future)
        finally:
            answers.put_nowait(None)

    reader = asyncio.create_task(read())
    try:
        while (future := await answers.get()) is not None:
            outcome = await future
            room.release()
            if isinstance(outcome, ProtocolError):
                await context.abort(_STATUS[outcome.code], outcome.message)
            else:
                await context.write(outcome.body)
    finally:
        reader.cancel()
        for call_context in tuple(unanswered):
            call_context.cancel()


def _discard(unanswered: set[CallContext], call_context: CallContext, _future: asyncio.Future[Outcome]) -> None:
    unanswered.discard(call_context)


async def _serve_watch(
    subscribe: Callable[[bytes, Callable[[bytes], None]], Callable[[], None]],
    data: bytes,
    context: Any,  # noqa: ANN401 - the library has no types
) -> None:
    loop = asyncio.get_running_loop()
    messages: asyncio.Queue[bytes] = asyncio.Queue()
    try:
        unsubscribe = subscribe(data, lambda message: _call_soon(loop, partial(messages.put_nowait, message)))
    except ProtocolError as error:
        await context.abort(_STATUS[error.code], error.message)
        return
    try:
        while True:
            await context.write(await messages.get())
    finally:
        unsubscribe()


def _call_context(context: Any) -> CallContext:  # noqa: ANN401 - the library has no types
    remaining = context.time_remaining()
    return CallContext(None if remaining is None else time.monotonic() + remaining)


def _begin(call: Call, data: bytes, context: CallContext) -> asyncio.Future[Outcome]:
    """Call the handler; the future holds what it replies, whichever thread it replies from."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Outcome] = loop.create_future()
    reply = _reply_to(loop, future)
    try:
        call(data, context, reply)
    except ProtocolError as error:
        future.set_result(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an id and the log the rest
        future.set_result(internal_error(error))
    return future


def _reply_to(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Outcome]) -> Reply:
    thread = threading.get_ident()

    def settle(outcome: Outcome) -> None:
        if not future.done():  # a client that has gone cancelled it
            future.set_result(outcome)

    def reply(outcome: Outcome) -> None:
        if threading.get_ident() == thread:
            settle(outcome)
        else:
            _call_soon(loop, partial(settle, outcome))

    return reply


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], Awaitable[None] | None]) -> None:
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:  # the loop has ended, and every client with it
        return
