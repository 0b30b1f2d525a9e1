"""What the HTTP transport and the REST protocol agree on: whole requests in, whole answers out."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from enginesmith_runtime.server.transport.interface import CallContext

__all__ = ["HttpAdmission", "HttpAnswer", "HttpHandler", "HttpReply", "HttpRequest", "refusal"]


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpRequest:
    """One request.

    Attributes:
        path: the decoded segments between the slashes, without the query.
        headers: by lower-case name.
        body: without its transfer and content encodings.
    """

    method: str
    path: tuple[str, ...]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """One answer; the transport adds length, encoding and what concerns the connection."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


HttpAdmission = Callable[[tuple[str, ...], str], HttpAnswer | str | None]
"""Returns the client of a request by its path and its header `authorization`, or why it is refused; None: no client."""

HttpReply = Callable[[HttpAnswer], None]
"""Called once, from any thread."""

HttpHandler = Callable[[HttpRequest, CallContext, HttpReply], None]
"""Replies to every request, and never raises."""


def refusal(status: int, message: str, *headers: tuple[str, str]) -> HttpAnswer:
    """Return an answer that says why there is none."""
    body = json.dumps({"error": message}).encode()
    return HttpAnswer(status, body, (("content-type", "application/json"), *headers))
