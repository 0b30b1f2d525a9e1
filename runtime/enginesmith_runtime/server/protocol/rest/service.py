"""The HTTP paths of the protocol. Each path calls a method of gRPC, with JSON for request and response."""

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import Message

from enginesmith_contract.protos import inference_pb2 as pb
from enginesmith_runtime.server.errors import Code, ProtocolError, internal_error
from enginesmith_runtime.server.protocol.infer import Inference
from enginesmith_runtime.server.protocol.rest.documents import Document, as_document, read_document
from enginesmith_runtime.server.protocol.rest.infer import infer
from enginesmith_runtime.server.protocol.service import SERVICE
from enginesmith_runtime.server.protocol.tensor_headers import invalid
from enginesmith_runtime.server.tracing import trace_id
from enginesmith_runtime.server.transport.http.interface import (
    HttpAdmission,
    HttpAnswer,
    HttpReply,
    HttpRequest,
    refusal,
)
from enginesmith_runtime.server.transport.interface import Answer, Call, CallContext, Methods, UnaryMethod
from enginesmith_runtime.server.transport.tokens import Tokens

__all__ = ["RestService", "admission"]

_STATUS: Final[Mapping[Code, int]] = {
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAUTHENTICATED: 401,
    Code.UNAVAILABLE: 503,
}
_RETRY: Final = (("retry-after", "1"),)
"""Header for refused clients that can retry."""

_AUTHENTICATE: Final = (("www-authenticate", "Bearer"),)

_READY_LENGTHS: Final = (4, 6)
"""Lengths of the paths for the readiness of a model and of a version."""


@dataclass(frozen=True)
class _Route:
    """One path: the gRPC method, the request field for each variable, and the function that writes the response."""

    method: str
    path: str
    call: str
    write: Callable[[Any], HttpAnswer]


def _document(message: Message) -> HttpAnswer:
    return _json(as_document(message))


def _json(document: object, status: int = 200) -> HttpAnswer:
    return HttpAnswer(status, json.dumps(document).encode(), (("content-type", "application/json"),))


def _state(field: str, message: Message) -> HttpAnswer:
    """Write a health response. Probes read the status code, and clients read the field."""
    good = getattr(message, field)
    return _json({field: good}, 200 if good else 503)


def _regions(message: pb.SystemSharedMemoryStatusResponse | pb.CudaSharedMemoryStatusResponse) -> HttpAnswer:
    return _json(list(as_document(message)["regions"].values()))


def _nothing(_message: Message) -> HttpAnswer:
    return HttpAnswer(200)


_MODEL: Final = ("v2/models/{name}", "v2/models/{name}/versions/{version}")
_SHARED: Final = (("systemsharedmemory", "SystemSharedMemory"), ("cudasharedmemory", "CudaSharedMemory"))

_ROUTES: Final = (
    _Route("GET", "v2", "ServerMetadata", _document),
    _Route("GET", "v2/health/live", "ServerLive", partial(_state, "live")),
    _Route("GET", "v2/health/ready", "ServerReady", partial(_state, "ready")),
    _Route("GET", "v2/models/stats", "ModelStatistics", _document),
    _Route("POST", "v2/repository/index", "RepositoryIndex", lambda answer: _json(as_document(answer)["models"])),
    _Route("POST", "v2/repository/models/{model_name}/load", "RepositoryModelLoad", _nothing),
    _Route("POST", "v2/repository/models/{model_name}/unload", "RepositoryModelUnload", _nothing),
    *(
        route
        for path in _MODEL
        for route in (
            _Route("GET", path, "ModelMetadata", _document),
            _Route("GET", f"{path}/ready", "ModelReady", partial(_state, "ready")),
            _Route("GET", f"{path}/config", "ModelConfig", lambda answer: _json(as_document(answer)["config"])),
            _Route("GET", f"{path}/stats", "ModelStatistics", _document),
        )
    ),
    *(
        route
        for path, call in _SHARED
        for route in (
            _Route("GET", f"v2/{path}/status", f"{call}Status", _regions),
            _Route("GET", f"v2/{path}/region/{{name}}/status", f"{call}Status", _regions),
            _Route("POST", f"v2/{path}/region/{{name}}/register", f"{call}Register", _nothing),
            _Route("POST", f"v2/{path}/unregister", f"{call}Unregister", _nothing),
            _Route("POST", f"v2/{path}/region/{{name}}/unregister", f"{call}Unregister", _nothing),
        )
    ),
)
_INFER_PATHS: Final = ("v2/models/{model}/infer", "v2/models/{model}/versions/{version}/infer")

_Answering = Callable[[HttpRequest, Mapping[str, str], CallContext, Callable[[HttpAnswer | ProtocolError], None]], None]


class RestService:
    """Answers requests over HTTP.

    Args:
        methods: Methods of gRPC; those of `inference_methods` are called.
        inference: Inference service, which is also used for gRPC.
    """

    def __init__(self, methods: Methods, inference: Inference) -> None:
        # Inference comes first, because paths are tried in order.
        self._paths: dict[tuple[str, ...], dict[str, _Answering]] = {
            tuple(path.split("/")): {"POST": partial(infer, inference)} for path in _INFER_PATHS
        }
        calls = {name: method.call for name, method in methods.items() if isinstance(method, UnaryMethod)}
        for route in _ROUTES:
            answering = partial(_call, calls[f"/{SERVICE}/{route.call}"], route)
            self._paths.setdefault(tuple(route.path.split("/")), {})[route.method] = answering

    def handle(self, request: HttpRequest, context: CallContext, reply: HttpReply) -> None:
        """Answer one request; see `HttpHandler`."""

        def answer(outcome: HttpAnswer | ProtocolError) -> None:
            reply(_refusal(outcome) if isinstance(outcome, ProtocolError) else outcome)

        try:
            self._route(request, context, answer)
        except ProtocolError as error:
            answer(error)
        except Exception as error:  # noqa: BLE001 - a client needs a response to any failure
            answer(internal_error(error, trace_id(context.metadata())))

    def _route(
        self, request: HttpRequest, context: CallContext, answer: Callable[[HttpAnswer | ProtocolError], None]
    ) -> None:
        for pattern, answering in self._paths.items():
            variables = _match(pattern, request.path)
            if variables is None:
                continue
            chosen = answering.get("GET" if request.method == "HEAD" else request.method)
            if chosen is None:
                allowed = ", ".join(answering)
                answer(refusal(405, f"{request.method} is not supported here; use {allowed}", ("allow", allowed)))
            else:
                chosen(request, variables, context, answer)
            return
        answer(refusal(404, f"there is no /{'/'.join(request.path)}; the paths are those of the protocol's version 2"))


def _match(pattern: tuple[str, ...], path: tuple[str, ...]) -> dict[str, str] | None:
    """Return the variables of the path, or None if the path does not match."""
    if len(pattern) != len(path):
        return None
    variables: dict[str, str] = {}
    for wanted, found in zip(pattern, path, strict=True):
        if wanted.startswith("{"):
            variables[wanted.strip("{}")] = found
        elif wanted != found:
            return None
    return variables


def _call(
    call: Call,
    route: _Route,
    request: HttpRequest,
    variables: Mapping[str, str],
    context: CallContext,
    answer: Callable[[HttpAnswer | ProtocolError], None],
) -> None:
    message = _message(getattr(pb, f"{route.call}Request")(), read_document(request.body), variables)
    kind = getattr(pb, f"{route.call}Response")

    def write(outcome: Answer | ProtocolError) -> None:
        answer(route.write(kind.FromString(outcome.body)) if isinstance(outcome, Answer) else outcome)

    call(message.SerializeToString(), context, write)


def _message(message: Message, document: Document, variables: Mapping[str, str]) -> Message:
    handle = document.get("raw_handle")
    if isinstance(handle, dict):  # Triton's form of bytes; the call refuses an invalid handle
        document = {**document, "raw_handle": _base64(handle.get("b64"))}
    try:
        json_format.ParseDict({**document, **variables}, message, ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise invalid(f"the body does not fit the call: {error}") from None
    return message


def _base64(text: object) -> str:
    try:
        return base64.b64encode(base64.b64decode(str(text), validate=True)).decode()
    except (binascii.Error, ValueError):
        raise invalid("'raw_handle' is not valid base64") from None


def admission(tokens: Tokens) -> HttpAdmission:
    """Return a function that admits requests with these tokens. Health and readiness need no token."""

    def admit(path: tuple[str, ...], authorization: str) -> HttpAnswer | str | None:
        if path[:2] == ("v2", "health") or (
            path[:2] == ("v2", "models") and path[-1] == "ready" and len(path) in _READY_LENGTHS
        ):
            return None
        sender = tokens.admit(authorization)
        return _refusal(sender) if isinstance(sender, ProtocolError) else sender

    return admit


def _refusal(error: ProtocolError) -> HttpAnswer:
    if error.reason == "RequestTooLarge":
        return refusal(413, error.message)
    status = _STATUS[error.code]
    headers = {401: _AUTHENTICATE, 429: _RETRY, 503: _RETRY}
    return refusal(status, error.message, *headers.get(status, ()))
