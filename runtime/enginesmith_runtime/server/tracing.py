"""Sends spans of requests over OTLP if the environment names a collector (`OTEL_EXPORTER_OTLP_ENDPOINT`).

OpenTelemetry is imported only then.
"""

import os
import re
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from enginesmith_contract.errors import ServeError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

__all__ = ["Metadata", "Moments", "Spans", "context_fields", "is_wanted", "trace_id"]

Metadata = tuple[tuple[str, str], ...]

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_FIELDS: Final = frozenset({"traceparent", "tracestate"})
_TRACEPARENT: Final = re.compile("[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_FLUSH_MS: Final = 2000


class Moments(NamedTuple):
    """End times of the parts of a request on the clock of `time.perf_counter_ns()`; 0 if a part did not run."""

    began: int
    queued: int = 0
    started: int = 0
    inferred: int = 0


def is_wanted() -> bool:
    """Whether the environment enables tracing."""
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    return not off and any(os.environ.get(name) for name in _ENDPOINTS)


def context_fields(metadata: Metadata) -> dict[str, str]:
    """Return the trace fields in the metadata of a client."""
    return {name: value for name, value in metadata if name in _FIELDS}


def trace_id(metadata: Metadata) -> str:
    """Return the id of the trace of a request, or "" if it has none."""
    found = _TRACEPARENT.fullmatch(context_fields(metadata).get("traceparent", ""))
    return found[1] if found else ""


class Spans:
    """Sends the spans of requests. Safe from any thread.

    Raises:
        ServeError: The libraries are missing, or the environment names an unsupported protocol.
    """

    def __init__(self) -> None:
        try:
            self._provider = _open_provider()
        except ImportError as error:
            raise ServeError(
                "tracing is enabled, but OpenTelemetry is not installed",
                where=next(name for name in _ENDPOINTS if os.environ.get(name)),
                why=str(error),
                remedy="pip install 'enginesmith[tracing]', or unset the variable",
                reason="TracingUnusable",
            ) from error
        self._tracer = self._provider.get_tracer("enginesmith")

    def record(
        self, metadata: Metadata, attributes: Mapping[str, str | int], moments: Moments, error: str = ""
    ) -> None:
        """Send the spans of a request that ends now. `error` is the reason of a failure."""
        from opentelemetry import trace
        from opentelemetry.context import Context

        ended = time.perf_counter_ns()
        parent = _client_context(metadata)
        is_root = parent == Context()
        clock = time.time_ns() - ended
        ends = (moments.queued or ended, moments.started or ended, ended)
        begins = (moments.began, moments.queued, moments.started)
        parts = [part for part in zip(("accept", "queue", "compute"), begins, ends, strict=True) if part[1]]
        for name, begin, end in parts:
            kind = trace.SpanKind.SERVER if name == "accept" else trace.SpanKind.INTERNAL
            span = self._tracer.start_span(name, parent, kind, attributes, start_time=clock + begin)
            if not span.is_recording():
                return
            if name == "accept" and is_root:
                parent = trace.set_span_in_context(span, parent)
            if name == "compute" and moments.inferred:
                span.add_event("inferred", timestamp=clock + moments.inferred)
            if error and name == parts[-1][0]:
                span.set_attribute("error.type", error)
                span.set_status(trace.StatusCode.ERROR)
            span.end(clock + end)

    def close(self) -> None:
        """Send the remaining spans. An unreachable collector delays the shutdown only shortly."""
        self._provider.force_flush(_FLUSH_MS)


def _client_context(metadata: Metadata) -> "Context":
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract(context_fields(metadata), Context())


def _open_provider() -> "TracerProvider":
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    known = {"service.instance.id": socket.gethostname()}
    if "OTEL_SERVICE_NAME" not in os.environ:
        known["service.name"] = "enginesmith"
    provider = TracerProvider(resource=Resource.create(known), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_open_exporter()))
    return provider


def _open_exporter() -> "SpanExporter":
    protocol = next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), "grpc")
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter()
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        return HttpExporter()
    raise ServeError(
        "the trace protocol is not supported",
        where=next(name for name in _PROTOCOLS if os.environ.get(name)),
        why=f"found {protocol!r}",
        remedy="use grpc or http/protobuf",
        reason="TracingUnusable",
    )
