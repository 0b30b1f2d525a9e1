"""JSON of requests and responses: reading and checking bodies, and writing messages of gRPC as documents."""

import contextlib
import json
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from enginesmith_contract.protos.inference_pb2 import InferParameter
from enginesmith_runtime.server.protocol.tensor_headers import invalid

__all__ = ["Document", "as_document", "parameter", "parameter_value", "read_document", "take"]

Document = dict[str, Any]
_ValueT = TypeVar("_ValueT")

_KINDS: Final[Mapping[type, str]] = {
    str: "a string", int: "a whole number", bool: "true or false", list: "a list", dict: "an object",
}  # fmt: skip

_PARAMETERS: Final[Mapping[type, str]] = {
    bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param",
}  # fmt: skip


def read_document(content: bytes | memoryview) -> Document:
    """Return the JSON object in `content`; an empty body is an empty object.

    NaN and infinities are read as floats, so that the error can name the tensor.

    Raises:
        ProtocolError: INVALID_ARGUMENT with the position of the error in the JSON.
    """
    if not content:
        return {}
    try:
        document = json.loads(bytes(content))
    except RecursionError:
        raise invalid("the body's JSON is nested too deeply") from None
    except ValueError as error:  # invalid UTF-8, invalid JSON, or a number with thousands of digits
        raise invalid(f"the body is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise invalid("the body's JSON is not an object")
    return document


def take(document: Document, name: str, kind: type[_ValueT], where: str = "the request") -> _ValueT:
    """Return a field of `document`, or an empty value of its kind if it is missing.

    Raises:
        ProtocolError: INVALID_ARGUMENT if the field has another kind.
    """
    value = document.get(name)
    if value is None:
        return kind()
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise invalid(f"{where}: '{name}' is not {_KINDS[kind]}")
    return value


def parameter(where: str, name: str, value: object) -> InferParameter:
    """Return a parameter as a message of gRPC.

    Raises:
        ProtocolError: INVALID_ARGUMENT if the value is a list, an object or too large.
    """
    field = _PARAMETERS.get(type(value))
    if isinstance(value, int) and value >= 1 << 63:
        field = "uint64_param"
    if field is not None:
        chosen: Document = {field: value}
        with contextlib.suppress(ValueError):  # a number of more than 64 bits, or invalid UTF-8
            return InferParameter(**chosen)
    raise invalid(f"{where}: parameter '{name}' is not a 64-bit number, string, true or false")


def parameter_value(given: InferParameter) -> object:
    """Return the value that `parameter` received."""
    chosen = given.WhichOneof("parameter_choice")
    return None if chosen is None else getattr(given, chosen)


def as_document(message: Message) -> Document:
    """Return a message of gRPC in JSON, as Triton writes it: every field with its proto name, numbers as numbers."""
    document: Document = {}
    for field in message.DESCRIPTOR.fields:
        value: Any = getattr(message, field.name)
        names = field.enum_type.values_by_number if field.enum_type is not None else {}
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            document[field.name] = {key: _plain(value[key]) for key in value}
        elif field.is_repeated:
            document[field.name] = [_plain(one) for one in value]
        elif not field.has_presence or message.HasField(field.name):
            document[field.name] = names[value].name if names else _plain(value)
    return document


def _plain(value: object) -> object:
    if isinstance(value, InferParameter):
        return parameter_value(value)
    return as_document(value) if isinstance(value, Message) else value
