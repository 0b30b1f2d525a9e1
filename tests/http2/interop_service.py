"""The service of gRPC's interoperability tests on the transport's interface, and methods that tests of its wire need.

Answers to `Wait` come when the test says so; `Counters` says what the handlers saw.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from tests.http2 import interop_pb2 as pb

from enginesmith_runtime.server.errors import Code, ProtocolError
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

MessageT = TypeVar("MessageT", bound=Message)

SERVICE = "/grpc.testing.TestService"
WAIT = "/enginesmith.testing.Calls/Wait"
RELEASE = "/enginesmith.testing.Calls/Release"
COUNTERS = "/enginesmith.testing.Calls/Counters"


@dataclass
class Calls:
    """Calls of `Wait`, which a test releases, and what happened to them. Safe from any thread."""

    begun: int = 0
    cancelled: int = 0
    waiting: list[Reply] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self, _data: Body, context: CallContext, reply: Reply) -> None:
        """Answer when `release` is called, or when the client has gone."""
        with self._lock:
            self.begun += 1
            self.waiting.append(reply)
        context.on_cancel(lambda: self._cancel(reply))

    def release(self, _data: Body, _context: CallContext, reply: Reply) -> None:
        """Answer all that waits."""
        with self._lock:
            waiting, self.waiting = self.waiting, []
        for one in waiting:
            one(Answer(b"released"))
        reply(Answer(b""))

    def counters(self, _data: Body, _context: CallContext, reply: Reply) -> None:
        """Answer with the counters as JSON."""
        with self._lock:
            counters = {"begun": self.begun, "cancelled": self.cancelled, "waiting": len(self.waiting)}
        reply(Answer(json.dumps(counters).encode()))

    def _cancel(self, reply: Reply) -> None:
        with self._lock:
            if reply not in self.waiting:
                return
            self.waiting.remove(reply)
            self.cancelled += 1
        reply(ProtocolError(Code.CANCELLED, "the client has gone"))


def methods(calls: Calls | None = None) -> Methods:
    """Return all methods. `StreamingInputCall` is there to be cancelled: no method of the interface answers once."""
    calls = calls or Calls()
    return {
        f"{SERVICE}/EmptyCall": UnaryMethod(_empty),
        f"{SERVICE}/UnaryCall": UnaryMethod(_unary, waits=True),
        f"{SERVICE}/FullDuplexCall": StreamMethod(_duplex, in_flight=4),
        f"{SERVICE}/StreamingInputCall": StreamMethod(_duplex, in_flight=4),
        f"{SERVICE}/StreamingOutputCall": WatchMethod(_many),
        WAIT: UnaryMethod(calls.wait, waits=True),
        RELEASE: UnaryMethod(calls.release),
        COUNTERS: UnaryMethod(calls.counters),
    }


def _empty(_data: Body, _context: CallContext, reply: Reply) -> None:
    reply(Answer(b""))


def _unary(data: Body, context: CallContext, reply: Reply) -> None:
    request = _read(pb.SimpleRequest, data)
    _refuse(request.response_status)
    payload = pb.Payload(body=bytes(request.response_size))
    reply(_answer(pb.SimpleResponse(payload=payload), context))


def _duplex(data: Body, context: CallContext, reply: Reply) -> None:
    request = _read(pb.StreamingOutputCallRequest, data)
    _refuse(request.response_status)
    if request.payload.body and not request.response_parameters:
        # No answer is asked for: such a call ends by its deadline.
        context.on_cancel(lambda: reply(ProtocolError(Code.CANCELLED, "the client has gone")))
        return
    size = sum(one.size for one in request.response_parameters)
    answer = _answer(pb.StreamingOutputCallResponse(payload=pb.Payload(body=bytes(size))), context)
    later = sum(one.interval_us for one in request.response_parameters) / 1e6
    if later:
        threading.Timer(later, reply, (answer,)).start()
    else:
        reply(answer)


def _many(data: Body, emit: Emit) -> Callable[[], None]:
    request = _read(pb.StreamingOutputCallRequest, data)
    for one in request.response_parameters:
        emit(pb.StreamingOutputCallResponse(payload=pb.Payload(body=bytes(one.size))).SerializeToString())
    emit(None)
    return lambda: None


def _answer(message: Message, context: CallContext) -> Answer:
    """Return an answer with the metadata that the tests ask for."""
    sent = {name: ((name, value),) for name, value in context.metadata()}
    return Answer(
        message.SerializeToString(),
        metadata=sent.get("x-grpc-test-echo-initial", ()),
        trailers=sent.get("x-grpc-test-echo-trailing-bin", ()),
    )


def _read(kind: type[MessageT], data: Body) -> MessageT:
    try:
        return kind.FromString(bytes(data))
    except DecodeError:
        raise ProtocolError(Code.INVALID_ARGUMENT, "the request is no message of its kind") from None


def _refuse(status: pb.EchoStatus) -> None:
    if status.code:
        raise ProtocolError(Code(status.code), status.message)
