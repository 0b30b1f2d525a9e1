"""What the fields of a request say: RFC 9113's rules for them (section 8), and gRPC's meaning."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Fields", "RequestHead", "read_head", "trailers_malformed"]

Fields = Sequence[tuple[bytes, bytes]]

_NAME: Final = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
"""A token in lower case; a colon begins the names that HTTP/2 gives a meaning."""

_VALUE: Final = re.compile(rb"(?:[^\x00\r\n \t](?:[^\x00\r\n]*[^\x00\r\n \t])?)?").fullmatch

_OF_A_CONNECTION: Final = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
"""HTTP/1's fields about a connection: in HTTP/2 a mark of a smuggled request."""

_PSEUDO: Final = {b":method", b":scheme", b":path", b":authority"}

_CONTENT_TYPE: Final = re.compile(rb"application/grpc(?:[+;].*)?", re.IGNORECASE).fullmatch

_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])").fullmatch

_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}

_OF_GRPC: Final = {b"te", b"content-type", b"content-length"}

_FIELD_OVERHEAD: Final = 32
"""What RFC 9113 counts for a field in addition to its bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """One request's fields. Connections share these objects.

    Attributes:
        path: the full name of the method.
        timeout_seconds: that the client waits; None: for ever.
        encoding: how messages with the flag for it are compressed; "identity": not at all.
        content_length: of the body; None: not said.
        size: bytes of the fields, as RFC 9113 counts them.
        malformed: the rule of HTTP/2 that the request breaks; "": none.
        http_status: what a request that is no call of gRPC is answered with; 0: it is one.
        timeout_malformed: what `grpc-timeout` holds where it is no duration.
    """

    path: str = ""
    timeout_seconds: float | None = None
    encoding: str = "identity"
    content_length: int | None = None
    size: int = 0
    malformed: str = ""
    http_status: int = 0
    timeout_malformed: str = ""
    fields: Fields = ()

    @property
    def authorization(self) -> str | None:
        """Return the field of that name; None: there is none."""
        return next((value.decode("latin-1") for name, value in self.fields if name == b"authorization"), None)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what the client sent in addition to what HTTP/2 and gRPC need."""
        return tuple(
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in self.fields
            if name not in _OF_GRPC and not name.startswith((b":", b"grpc-"))
        )


def read_head(fields: Fields) -> RequestHead:
    """Return what the fields of a request say."""
    size = sum(len(name) + len(value) + _FIELD_OVERHEAD for name, value in fields)
    malformed = _field_malformed(fields) or _pseudo_malformed(fields)
    lengths = {value for name, value in fields if name == b"content-length"}
    if len(lengths) > 1 or not all(value.isdigit() for value in lengths):
        malformed = malformed or "content-length is no number"
    if malformed:
        return RequestHead(malformed=malformed, size=size)
    values = dict(fields)
    timeout = values.get(b"grpc-timeout")
    seconds = None if timeout is None else _seconds(timeout)
    return RequestHead(
        path=values.get(b":path", b"").decode("latin-1"),
        timeout_seconds=seconds,
        encoding=values.get(b"grpc-encoding", b"identity").decode("latin-1"),
        content_length=int(lengths.pop()) if lengths else None,
        size=size,
        http_status=_http_status(values),
        timeout_malformed="" if timeout is None or seconds is not None else timeout.decode("latin-1"),
        fields=tuple(fields),
    )


def trailers_malformed(fields: Fields) -> str:
    """Return the rule that a request's trailers break; "": none."""
    if any(name.startswith(b":") for name, _ in fields):
        return "trailers hold a pseudo-header field"
    return _field_malformed(fields)


def _field_malformed(fields: Fields) -> str:
    for name, value in fields:
        if not _NAME(name):
            return "a field's name is no token in lower case"
        if not _VALUE(value):
            return "a field's value has a control character, or a space at one of its ends"
        if name in _OF_A_CONNECTION or (name == b"te" and value.lower() != b"trailers"):
            return f"field {name.decode()} is HTTP/1's"
    return ""


def _pseudo_malformed(fields: Fields) -> str:
    found: dict[bytes, bytes] = {}
    regular = False
    for name, value in fields:
        if not name.startswith(b":"):
            regular = True
        elif regular or name in found or name not in _PSEUDO:
            return "a pseudo-header field is unknown, repeated, or comes after another field"
        else:
            found[name] = value
    if found.get(b":method") == b"CONNECT":
        return "" if b":path" not in found and b":scheme" not in found else "CONNECT has a path or a scheme"
    if not found.keys() >= {b":method", b":scheme", b":path"}:
        return "a pseudo-header field is missing"
    path = found[b":path"]
    return "" if path.startswith(b"/") or (path, found[b":method"]) == (b"*", b"OPTIONS") else "the path is no path"


def _http_status(values: dict[bytes, bytes]) -> int:
    if values[b":method"] != b"POST":
        return 405
    return 0 if _CONTENT_TYPE(values.get(b"content-type", b"")) else 415


def _seconds(timeout: bytes) -> float | None:
    found = _TIMEOUT(timeout)
    return None if found is None else int(found[1]) * _UNITS[found[2]]
