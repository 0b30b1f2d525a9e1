"""How a stream begins: the limits that it meets, the method that it asks for, or the answer that says why not."""

from typing import TYPE_CHECKING, Final

from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.transport.http2.answer_head import http_head
from enginesmith_runtime.server.transport.http2.calls import DeadStream, open_call
from enginesmith_runtime.server.transport.http2.faults import ConnectionFault, StreamFault
from enginesmith_runtime.server.transport.http2.request_head import RequestHead
from enginesmith_runtime.server.transport.http2.wire import ErrorCode
from enginesmith_runtime.server.transport.interface import Method

if TYPE_CHECKING:
    from enginesmith_runtime.server.transport.http2.connection import Connection

__all__ = ["Openings"]

_TEXTS: Final = {
    405: b"This is a server of gRPC: calls are POST requests.\n",
    415: b"This is a server of gRPC: the content-type of a call is application/grpc.\n",
}

_MOST_GAPS: Final = 64


class Openings:
    """Begins the streams of one connection."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._gaps: list[range] = []

    def was_skipped(self, number: int) -> bool:
        """Whether the client opened a higher stream without having opened this one."""
        return any(number in gap for gap in self._gaps)

    def open(self, number: int, head: RequestHead, *, ended: bool) -> None:
        """Begin a stream whose number is higher than those before; `ended`: the client sends nothing more.

        Raises:
            StreamFault: it must be reset.
        """
        connection = self._connection
        if not number & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"a client cannot open stream {number}")
        if number > connection.lifetime.last_accepted:
            # Sent before the client knew that it was told to go; it sends the call elsewhere.
            connection.last = number
            return
        if number > connection.last + 2:
            self._gaps = [*self._gaps, range(connection.last + 2, number, 2)][-_MOST_GAPS:]
        connection.last = number
        if head.malformed:
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, head.malformed)
        service = connection.service
        if len(connection.streams) >= service.bounds.streams:
            raise StreamFault(number, ErrorCode.REFUSED_STREAM, "too many streams are open")
        found = service.methods.get(head.path)
        if head.http_status or found is None or service.is_full(found[1]):
            self._refuse(number, head, ended=ended)
            return
        method, kind = found
        sender = self._admit(head, method)
        if isinstance(sender, ProtocolError):
            self._fail(number, head, sender, ended=ended)
            return
        service.open_calls[kind] += 1
        stream = connection.streams[number] = open_call(connection, number, head, kind, method)
        if sender is not None:
            stream.sender = sender
        if ended:
            stream.end_input()

    def _admit(self, head: RequestHead, method: Method) -> str | ProtocolError | None:
        """Return the client whose token comes with a call, or why the call is refused; None: calls need no token."""
        service = self._connection.service
        if head.size > service.bounds.header_list_bytes:
            return ProtocolError(
                Code.RESOURCE_EXHAUSTED,
                f"the metadata has {head.size} bytes, more than {service.bounds.header_list_bytes}",
            )
        if head.timeout_malformed:
            return ProtocolError(Code.INVALID_ARGUMENT, f"grpc-timeout '{head.timeout_malformed}' is no duration")
        if self._connection.held.too_many:
            return self._connection.held.refuse()
        return None if service.tokens is None or method.free else service.tokens.admit(head.authorization)

    def _refuse(self, number: int, head: RequestHead, *, ended: bool) -> None:
        connection, service = self._connection, self._connection.service
        if not head.http_status:
            found = service.methods.get(head.path)
            error = (
                ProtocolError(Code.UNIMPLEMENTED, "Method not found!")
                if found is None
                else service.kinds[found[1]].refuse()
            )
            self._fail(number, head, error, ended=ended)
            return
        stream = connection.streams[number] = DeadStream(connection, number, head)
        stream.answered = True
        text = _TEXTS[head.http_status]
        is_head = (b":method", b"HEAD") in head.fields
        if is_head:
            connection.output.end(stream, http_head(head.http_status, len(text)))
        else:
            connection.output.headers(number, http_head(head.http_status, len(text)), 0)
            connection.output.text(stream, text)
        if ended:
            stream.end_input()

    def _fail(self, number: int, head: RequestHead, error: ProtocolError, *, ended: bool) -> None:
        stream = self._connection.streams[number] = DeadStream(self._connection, number, head)
        if ended:
            stream.client_done = True
        stream.fail(error)
