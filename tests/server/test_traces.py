"""Traces from a client's call to the engine, received over OTLP; and nothing of it where no traces are wanted."""

import http.client
import json
import logging
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.ports import free_port
from tests.server.otlp import Collector, Span, collector_process, received
from typing_extensions import override

from enginesmith_contract.log_lines import JsonFormatter
from enginesmith_contract.protos import inference_pb2 as pb
from enginesmith_runtime.server.transport.interface import CallContext
from enginesmith_runtime.server.transport.pending import begin

pytestmark = pytest.mark.slow

Client = Any  # the fixtures' own types; a test module imports no other
StartServer = Callable[..., Any]
MakeRequest = Callable[..., pb.ModelInferRequest]
WAYS = pytest.mark.parametrize("way", ["http2", "front-ends", "grpcio"], indirect=True)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A receiver that the servers of the test send to."""
    with received() as made:
        _send_to(monkeypatch, made.endpoint)
        yield made


def _send_to(monkeypatch: pytest.MonkeyPatch, endpoint: str, protocol: str = "grpc") -> None:
    variables = {
        "ENDPOINT": endpoint,
        "PROTOCOL": protocol,
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "adder")


def _context(sampled: str = "01") -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """A client's trace, its span, and what it sends of them."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, (("traceparent", f"00-{trace}-{span}-{sampled}"),)


def _assert_spans(spans: dict[str, Span], parent: str, rows: int = 2) -> None:
    assert set(spans) == {"accept", "queue", "compute"}
    assert {span.parent for span in spans.values()} == {parent}
    accept, queue, compute = (spans[name] for name in ("accept", "queue", "compute"))
    assert accept.began <= accept.ended == queue.began <= queue.ended == compute.began < compute.ended
    for span in spans.values():
        assert not span.is_error
        assert span.attributes["enginesmith.model"] == "adder"
        assert span.attributes["enginesmith.batch_size"] == str(rows)
        assert span.resource["service.name"] == "adder"


@WAYS
def test_a_request_is_three_spans_of_its_clients_trace(
    start_server: StartServer,
    connect: Callable[[str], Client],
    adder_key: str,
    adder_request: MakeRequest,
    collector: Collector,
) -> None:
    server = start_server({"adder": adder_key})
    client = connect(server.address)
    trace, span, metadata = _context()

    client.infer(adder_request(), metadata=metadata)

    _assert_spans(collector.of_trace(trace, 3), span)
    setting = client.call("TraceSetting", pb.TraceSettingRequest()).settings["trace_level"]
    assert setting.value == ["TIMESTAMPS"]
    server.stop()


def test_requests_over_http_in_streams_and_of_clients_that_sample_not(
    start_server: StartServer,
    connect: Callable[[str], Client],
    adder_key: str,
    adder_request: MakeRequest,
    collector: Collector,
) -> None:
    server = start_server({"adder": adder_key}, http_address="127.0.0.1:0")
    client = connect(server.address)
    unsampled, _, metadata = _context("00")
    client.infer(adder_request(), metadata=metadata)

    trace, span, metadata = _context()
    assert _post(server.http, dict(metadata)) == 200
    _assert_spans(collector.of_trace(trace, 3), span)

    trace, span, metadata = _context()
    stream = client.channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelStreamInferResponse.FromString,
    )
    assert [answer.error_message for answer in stream(iter([adder_request()]), metadata=metadata)] == [""]
    _assert_spans(collector.of_trace(trace, 3), span)

    assert not [span for span in collector.spans() if span.trace == unsampled]
    client.infer(adder_request())
    server.stop()  # which sends what is left
    own = [one for one in collector.spans() if one.trace != trace and one.name == "accept" and not one.parent]
    assert len(own) == 1
    assert {one.parent for one in collector.spans() if one.trace == own[0].trace} == {"", own[0].id}


def _post(address: str, headers: dict[str, str]) -> int:
    inputs = [{"name": name, "datatype": "FP32", "shape": [2, 4], "data": [1.0] * 8} for name in ("a", "b")]
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("POST", "/v2/models/adder/infer", json.dumps({"inputs": inputs}), headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_request_that_is_refused_has_an_error_in_its_last_span(
    start_server: StartServer,
    connect: Callable[[str], Client],
    adder_key: str,
    adder_request: MakeRequest,
    collector: Collector,
) -> None:
    client = connect(start_server({"adder": adder_key}).address)
    trace, span, metadata = _context()
    request = adder_request()
    request.raw_input_contents[0] = b"no tensor"

    with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
        client.infer(request, metadata=metadata)

    accept = collector.of_trace(trace, 1)["accept"]
    assert accept.is_error
    assert accept.parent == span
    assert accept.attributes["error.type"] == "InvalidArgument"


@pytest.mark.parametrize("variables", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1", "OTEL_SDK_DISABLED": "true"}])
def test_nothing_of_opentelemetry_is_loaded_where_no_traces_are_wanted(
    start_server: StartServer,
    connect: Callable[[str], Client],
    adder_key: str,
    adder_request: MakeRequest,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    server = start_server({"adder": adder_key})
    _, _, metadata = _context()

    connect(server.address).infer(adder_request(), metadata=metadata)

    loaded = server.log.read_text()
    assert "enginesmith_runtime.server.tracing" in loaded
    assert "opentelemetry" not in loaded


def test_another_protocol_is_refused(
    start_server: StartServer, adder_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _send_to(monkeypatch, "http://127.0.0.1:1", "http/json")
    with pytest.raises(AssertionError, match="Use grpc or http/protobuf"):
        start_server({"adder": adder_key})


def test_a_request_that_is_logged_is_logged_with_its_trace(caplog: pytest.LogCaptureFixture) -> None:
    trace, _, metadata = _context()

    class Context(CallContext):
        @override
        def metadata(self) -> tuple[tuple[str, str], ...]:
            return metadata

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    begin(fail, b"", Context(), lambda _: None)

    (record,) = caplog.records
    line = json.loads(JsonFormatter(lambda: {"object": "vision/adder"}).format(record))
    assert (line["trace_id"], line["object"], line["level"]) == (trace, "vision/adder", "error")
    assert "ZeroDivisionError" in line["traceback"]
    other = logging.LogRecord("a", logging.INFO, "", 0, "no request", None, None)
    assert "trace_id" not in json.loads(JsonFormatter().format(other))


@pytest.mark.extended
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_opentelemetry_collector_receives_the_spans(
    start_server: StartServer,
    connect: Callable[[str], Client],
    adder_key: str,
    adder_request: MakeRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    protocol: str,
) -> None:
    with collector_process(tmp_path, (free_port(), free_port())) as collector:
        _send_to(monkeypatch, collector.endpoint if protocol == "grpc" else collector.http_endpoint, protocol)
        server = start_server({"adder": adder_key}, http_address="127.0.0.1:0")
        traces = {}
        for _ in range(20):
            trace, span, metadata = _context()
            connect(server.address).infer(adder_request(), metadata=metadata)
            traces[trace] = span
        trace, span, metadata = _context()
        assert _post(server.http, dict(metadata)) == 200
        traces[trace] = span
        for trace, span in traces.items():
            _assert_spans(collector.of_trace(trace, 3), span)
        server.stop()
