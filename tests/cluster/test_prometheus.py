"""Prometheus and the OpenTelemetry Collector, run for real: dashboards, alerts and traces of engines under load."""

import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from development_cluster.layout import CONTROL
from tests.cluster.access import Cluster
from tests.cluster.engines import Tenant
from tests.cluster.inference import service_address
from tests.cluster.installation import SYSTEM, installed_operator, scale_operator
from tests.cluster.prometheus import Monitoring, Prometheus, render_monitoring, running_prometheus, tool
from tests.cluster.traffic import Access, steady_traffic
from tests.ports import free_port
from tests.server.certificates import Authority
from tests.server.otlp import collector_process

from enginesmith_contract.protos import inference_pb2 as pb

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended]

CPU = {"name": "cpu", "backend": "onnxruntime"}
INPUT = ("x", (4, 4))
INFER = "/inference.GRPCInferenceService/ModelInfer"
AUTHORITY = Authority.named("clients")
REQUESTS = 1500
JOBS = {"enginesmith-operator": 2, "enginesmith-servers": 2}


@pytest.fixture(scope="module")
def monitoring() -> Monitoring:
    return render_monitoring()


def test_promtool_accepts_the_rules(monitoring: Monitoring, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": monitoring.groups}))
    checked = subprocess.run(
        [tool("promtool"), "check", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(monitoring.alerts())} rules found" in checked.stdout


@pytest.mark.usefixtures("sole_operator")
def test_dashboards_and_alerts_show_what_clients_see(
    cluster: Cluster, small_tenant: Tenant, monitoring: Monitoring, tmp_path: Path
) -> None:
    tenant = small_tenant
    access = _have_engines(tenant)
    with running_prometheus(cluster, monitoring, tmp_path) as prometheus:
        tenant.until(lambda: prometheus.healthy_targets(SYSTEM, tenant.namespace) == JOBS, "all targets are scraped")
        plain, safe = service_address(tenant, "plain"), service_address(tenant, "safe")
        before = _served(prometheus, tenant)
        with (
            steady_traffic(plain, "plain", tmp_path / "plain", INPUT) as traffic,
            steady_traffic(safe, "safe", tmp_path / "safe", INPUT, access=access),
        ):
            _send_wrong_requests(plain)
            _send_without_token(safe, access)
            empty: list[str] = []
            tenant.until(lambda: not _empty(prometheus, monitoring, tenant, empty), "each query has series")
            _assert_alerts_can_fire(prometheus, monitoring)
            _assert_fires(tenant, prometheus, "EnginesmithCertificateExpires", tenant.namespace)
            _assert_fires(tenant, prometheus, "EnginesmithCallsUnauthenticated", tenant.namespace)
            tenant.until(lambda: len(traffic.answers()) >= REQUESTS, "the client has sent enough")
        sent = sum(one.is_good for one in traffic.answers())
        assert not traffic.lost()
        # The last ones are seen when they are scraped.
        tenant.until(lambda: _served(prometheus, tenant) - before >= sent, "all requests are counted")
        assert abs(_served(prometheus, tenant) - before - sent) <= 0.02 * sent

        scale_operator(cluster, 0)
        try:
            _assert_fires(tenant, prometheus, "EnginesmithOperatorDown")
        finally:
            scale_operator(cluster, 2)
        tenant.until(lambda: "EnginesmithOperatorDown" not in prometheus.firing(), "the alert is over")


def _have_engines(tenant: Tenant) -> Access:
    """Have an engine, and one with tokens and a certificate that expires soon; return how a client gets in."""
    name = f"safe.{tenant.namespace}.svc"
    server, client = AUTHORITY.issue(name, days=(-1, 3)), AUTHORITY.issue("client")
    files = {"tls.crt": server.certificate.decode(), "tls.key": server.key.decode(), "ca.crt": AUTHORITY.pem.decode()}
    for secret, kind, data in (
        ("safe-tls", "kubernetes.io/tls", files),
        ("safe-tokens", "Opaque", {"one": "token-of-one"}),
    ):
        metadata = {"name": secret, "namespace": tenant.namespace}
        tenant.cluster.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "stringData": data}
        )
    tls = {"secretName": "safe-tls", "clientCASecretName": "safe-tls"}
    tenant.apply("plain", [CPU])
    tenant.apply("safe", [CPU], serving={"tls": tls, "auth": {"tokensSecretName": "safe-tokens"}})
    tenant.until_ready("plain")
    tenant.until_ready("safe")
    return Access(
        name=name,
        ca=AUTHORITY.pem.decode(),
        certificate=client.certificate.decode(),
        key=client.key.decode(),
        token="token-of-one",  # noqa: S106 - of this test
    )


def _served(prometheus: Prometheus, tenant: Tenant) -> float:
    return prometheus.value(
        f'sum(enginesmith_requests_total{{namespace="{tenant.namespace}", model="plain", code="OK"}})'
    )


def _send_wrong_requests(address: str) -> None:
    request = pb.ModelInferRequest(model_name="plain").SerializeToString()
    with grpc.insecure_channel(address) as channel:
        for _ in range(5):
            assert channel.unary_unary(INFER).future(request, timeout=120).code() is grpc.StatusCode.INVALID_ARGUMENT


def _send_without_token(address: str, access: Access) -> None:
    """Send as many calls as are more than one a second over the alert's five minutes."""
    with access.channel(address, []) as channel:
        for _ in range(600):
            assert channel.unary_unary(INFER).future(b"", timeout=120).code() is grpc.StatusCode.UNAUTHENTICATED


def _empty(prometheus: Prometheus, monitoring: Monitoring, tenant: Tenant, empty: list[str]) -> list[str]:
    """Return the queries that have no series yet; the first time all of them, then those that had none."""
    queries = monitoring.queries(tenant.namespace)
    empty[:] = [where for where in (empty or queries) if not prometheus.query(queries[where])]
    return empty


def _assert_alerts_can_fire(prometheus: Prometheus, monitoring: Monitoring) -> None:
    """Assert that Prometheus takes each expression, and that the metrics that it looks at have series."""
    for alert, expression in monitoring.alerts().items():
        prometheus.query(expression)
        for metric in re.findall(r"enginesmith_\w+|\bup\b", expression):
            assert prometheus.query(f"count({metric})"), (alert, metric)


def _assert_fires(tenant: Tenant, prometheus: Prometheus, alert: str, namespace: str = "") -> None:
    tenant.until(lambda: alert in prometheus.firing(), f"{alert} fires")
    found = prometheus.firing()[alert]
    assert found["annotations"]["runbook_url"].endswith(f"#{alert.lower()}")
    if namespace:
        assert found["labels"]["namespace"] == namespace
        assert namespace in found["annotations"]["summary"]


@contextmanager
def _traced_operator(cluster: Cluster, images: dict[str, str], endpoint: str) -> Iterator[None]:
    variables = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
    tracing: dict[str, Any] = {"endpoint": endpoint, "variables": variables}
    with installed_operator(cluster, images, settings={"config": {"tracing": tracing}}):
        yield


def test_the_collector_receives_the_spans_of_an_engine_with_its_name(
    cluster: Cluster, images: dict[str, str], small_tenant: Tenant, tmp_path: Path
) -> None:
    tenant, trace, span = small_tenant, secrets.token_hex(16), secrets.token_hex(8)
    with (
        collector_process(tmp_path, (free_port(CONTROL.host), free_port(CONTROL.host)), CONTROL.host) as collector,
        _traced_operator(cluster, images, collector.endpoint),
    ):
        tenant.apply("traced", [CPU])
        tenant.until_ready("traced")
        name, shape = INPUT
        tensor = pb.ModelInferRequest.InferInputTensor(name=name, datatype="FP32", shape=shape)
        request = pb.ModelInferRequest(model_name="traced", inputs=[tensor], raw_input_contents=[bytes(64)])
        with grpc.insecure_channel(service_address(tenant, "traced")) as channel:
            channel.unary_unary(INFER)(
                request.SerializeToString(),
                timeout=60,
                wait_for_ready=True,
                metadata=(("traceparent", f"00-{trace}-{span}-01"),),
            )
        spans = collector.of_trace(trace, 3)
        (pod,) = tenant.get("pods", "--selector=app.kubernetes.io/component=server")["items"]

    assert set(spans) == {"accept", "queue", "compute"}
    for one in spans.values():
        assert one.parent == span
        assert one.resource["service.name"] == "traced"
        assert one.resource["service.namespace"] == tenant.namespace
        assert one.resource["service.instance.id"] == pod["metadata"]["name"]
        assert one.attributes["enginesmith.target"] == "cpu"
