"""Parsing of messages: garbage is the client's fault, and is answered as such."""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.transport.interface import Body

__all__ = ["parse"]

_MessageT = TypeVar("_MessageT", bound=Message)


def parse(kind: type[_MessageT], data: Body) -> _MessageT:
    """Return the message in `data`.

    Raises:
        ProtocolError: INVALID_ARGUMENT; the bytes hold no such message.
    """
    try:
        return kind.FromString(bytes(data))
    except DecodeError:
        name = kind.DESCRIPTOR.name
        raise ProtocolError(
            Code.INVALID_ARGUMENT, f"the bytes are no {name}: the message is cut off or garbled"
        ) from None
