"""Receivers of OTLP: one in this process, and the OpenTelemetry Collector as a process of its own."""

import base64
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import yaml
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from tests.server.waiting import wait_for

__all__ = ["Collector", "Span", "collector_process", "received"]

_ROOT = Path(__file__).resolve().parents[2]
_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Span:
    """One span as it was received."""

    name: str
    trace: str
    id: str
    parent: str
    began: int
    ended: int
    is_error: bool
    attributes: Document
    resource: Document


@dataclass
class Collector:
    """Where spans are sent, and those that came; `file` has a document in each line."""

    endpoint: str
    http_endpoint: str = ""
    file: Path | None = None
    documents: list[Document] = field(default_factory=list)

    def spans(self) -> list[Span]:
        """Return all spans that have come."""
        if self.file is None:
            return [span for document in self.documents for span in _spans(document)]
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return [span for line in lines for span in _spans(json.loads(line))]

    def of_trace(self, trace: str, count: int) -> dict[str, Span]:
        """Wait until a trace has so many spans; return them by name."""
        wait_for(lambda: sum(span.trace == trace for span in self.spans()) >= count)
        return {span.name: span for span in self.spans() if span.trace == trace}


@contextmanager
def received() -> Iterator[Collector]:
    """Receive spans over gRPC in this process."""
    collector = Collector("")

    def export(request: service.ExportTraceServiceRequest, _context: object) -> service.ExportTraceServiceResponse:
        document = MessageToDict(request)
        collector.documents.append(document)
        return service.ExportTraceServiceResponse()

    handler = grpc.unary_unary_rpc_method_handler(
        export, service.ExportTraceServiceRequest.FromString, service.ExportTraceServiceResponse.SerializeToString
    )
    name, _, method = _EXPORT[1:].partition("/")
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {method: handler}),))
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None)


@contextmanager
def collector_process(folder: Path, ports: tuple[int, int], host: str = "127.0.0.1") -> Iterator[Collector]:
    """Have the OpenTelemetry Collector listen on two free ports, for gRPC and for HTTP."""
    file = folder / "spans.json"
    grpc_address, http_address = (f"{host}:{port}" for port in ports)
    protocols = {"grpc": {"endpoint": grpc_address}, "http": {"endpoint": http_address}}
    configuration = {
        "receivers": {"otlp": {"protocols": protocols}},
        "exporters": {"file": {"path": str(file), "flush_interval": "100ms"}},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["file"]}},
        },
    }
    (folder / "collector.yaml").write_text(yaml.safe_dump(configuration))
    program = subprocess.check_output([_ROOT / "hack/tool", "otel-collector"], text=True).strip()
    log = folder / "collector.log"
    with log.open("w") as stderr:
        process = subprocess.Popen([program, f"--config=file:{folder}/collector.yaml"], stderr=stderr)
    try:
        wait_for(lambda: "Everything is ready" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield Collector(f"http://{grpc_address}", f"http://{http_address}", file)
    finally:
        process.terminate()
        process.wait()


def _spans(document: Document) -> Iterator[Span]:
    for one in document.get("resourceSpans", ()):
        resource = _attributes(one.get("resource", {}))
        for scope in one.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                yield Span(
                    name=span["name"],
                    trace=_hex(span["traceId"]),
                    id=_hex(span["spanId"]),
                    parent=_hex(span.get("parentSpanId", "")),
                    began=int(span["startTimeUnixNano"]),
                    ended=int(span["endTimeUnixNano"]),
                    is_error=span.get("status", {}).get("code") in {2, "STATUS_CODE_ERROR"},
                    attributes=_attributes(span),
                    resource=resource,
                )


def _attributes(of: Document) -> Document:
    return {one["key"]: next(iter(one["value"].values())) for one in of.get("attributes", ())}


def _hex(number: str) -> str:
    """Return an id in hexadecimal: OTLP writes it so in JSON, and protobuf as base64."""
    return number if len(number) in {0, 16, 32} else base64.b64decode(number).hex()
