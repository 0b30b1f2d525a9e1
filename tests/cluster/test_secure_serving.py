"""TLS and tokens by Secrets: rotated while a client sends, and Secrets that cannot be used while others serve."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.cluster.access import Cluster
from tests.cluster.engines import Tenant
from tests.cluster.inference import service_address
from tests.cluster.prometheus import Prometheus, render_monitoring, running_prometheus
from tests.cluster.traffic import Access, Traffic, steady_traffic
from tests.server.certificates import Authority, Identity

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended, pytest.mark.usefixtures("operator")]

CPU = {"name": "cpu", "backend": "onnxruntime"}
OLD, NEW = Authority.named("old"), Authority.named("new")
READY = "/inference.GRPCInferenceService/ServerReady"
INFER = "/inference.GRPCInferenceService/ModelInfer"
ALERT = "EnginesmithCertificateExpires"
EXPIRES = "enginesmith_tls_certificate_expiration_timestamp_seconds"
DAY = 86400.0


def test_a_rotated_secret_loses_no_request_and_one_that_cannot_be_used_stops_no_server(
    tenant: Tenant, tmp_path: Path
) -> None:
    name = f"cls.{tenant.namespace}.svc"
    _have_secret(tenant, "cls-tls", OLD.issue(name), OLD.pem)
    _have_tokens(tenant, one="token-of-one")
    _apply(tenant, "cls-tls")
    tenant.until_ready("cls")
    address, access = service_address(tenant, "cls"), _access(name, OLD.pem + NEW.pem)
    with steady_traffic(address, "cls", tmp_path / "answers", access=access) as traffic:
        _answer_on(tenant, traffic)
        # The clients' authority stays: the client keeps its certificate.
        _have_secret(tenant, "cls-tls", NEW.issue(name), OLD.pem)
        _let_kubelet_look(tenant)
        only_new = replace(access, ca=NEW.pem.decode())
        tenant.until(lambda: _code(address, only_new) is grpc.StatusCode.OK, "new connections get the new certificate")
        assert _code(address, replace(only_new, name="cls.elsewhere.svc")) is grpc.StatusCode.UNAVAILABLE
        assert _answers(traffic) == {"OK"}

        _apply(tenant, "cls-next")
        _until_reason(tenant, "ContainerCannotStart", 'secret "cls-next" not found; create it')
        _have_secret(tenant, "cls-next", NEW.issue(name, days=(-9, -2)), OLD.pem)
        _until_reason(tenant, "CertificateExpired", "tls.crt: the certificate has expired: it was valid until")
        assert tenant.condition("cls", "Ready")["status"] == "True"
        _answer_on(tenant, traffic)
        _have_secret(tenant, "cls-next", NEW.issue(name), OLD.pem)
        tenant.until_ready("cls")
        tenant.until(lambda: _pods(tenant) == 1, "the old pod has ended")
        _answer_on(tenant, traffic)
    assert _answers(traffic) == {"OK"}


def test_a_certificate_that_expires_is_alerted_and_renewed_and_no_request_is_lost(
    cluster: Cluster, small_tenant: Tenant, tmp_path: Path
) -> None:
    tenant, name, monitoring = small_tenant, f"cls.{small_tenant.namespace}.svc", render_monitoring()
    _have_secret(tenant, "cls-tls", OLD.issue(name, days=(-1, 30)), OLD.pem)
    _have_tokens(tenant, one="token-of-one")
    _apply(tenant, "cls-tls", replicas=2)
    tenant.until_ready("cls")
    address, access = service_address(tenant, "cls"), _access(name, OLD.pem)
    answers = tmp_path / "answers"
    with (
        running_prometheus(cluster, monitoring, tmp_path) as prometheus,
        steady_traffic(address, "cls", answers, ("x", (4, 4)), access=access) as traffic,
    ):
        _answer_on(tenant, traffic)
        short = _renew(tenant, prometheus, name, seconds=90)
        tenant.until(lambda: _fires(prometheus, tenant), "the alert fires")
        assert _series(prometheus, tenant, monitoring.alerts()[ALERT]) == 2
        _renew(tenant, prometheus, name, seconds=30 * DAY)

        def connects_after(moment: float) -> bool:
            assert _code(address, access) is grpc.StatusCode.OK
            return time.time() > moment

        tenant.until(lambda: connects_after(short), "new connections are accepted until the old one has expired")
        tenant.until(lambda: not _fires(prometheus, tenant), "the alert is over")

        _change_tokens(tenant, address, access)
        seen = len(traffic.engines())
        _apply(tenant, "cls-tls", replicas=2, build={"epoch": 1})
        tenant.until(lambda: len(traffic.engines()) > seen, "the client comes to another engine")
        tenant.until_ready("cls")
        tenant.until(lambda: _pods(tenant) == 2, "the old pods have ended")
        _answer_on(tenant, traffic)

        # An expiry that no renewal precedes: connections that are open serve on, and others follow the renewal.
        short = _renew(tenant, prometheus, name, seconds=60)
        tenant.until(lambda: time.time() > short + 1, "the certificate has expired")
        assert _code(address, access) is grpc.StatusCode.UNAVAILABLE
        assert _fires(prometheus, tenant)
        _answer_on(tenant, traffic)
        _renew(tenant, prometheus, name, seconds=30 * DAY)
        assert _code(address, access) is grpc.StatusCode.OK
        _answer_on(tenant, traffic)
    assert _answers(traffic) == {"OK"}


def _access(name: str, ca: bytes) -> Access:
    client = OLD.issue("client")
    certificate, key = client.certificate.decode(), client.key.decode()
    return Access(name=name, ca=ca.decode(), certificate=certificate, key=key, token="token-of-one")  # noqa: S106 - of this test


def _renew(tenant: Tenant, prometheus: Prometheus, name: str, *, seconds: float) -> float:
    """Have all servers use a new certificate of some seconds; return when it expires, in seconds since the epoch."""
    before = _expiries(prometheus, tenant)
    _have_secret(tenant, "cls-tls", OLD.issue(name, days=(-1, seconds / DAY)), OLD.pem)
    _let_kubelet_look(tenant)

    def is_used() -> bool:
        now = _expiries(prometheus, tenant)
        return len(now) == 1 and now != before

    tenant.until(is_used, "all servers use the renewed certificate")
    return max(_expiries(prometheus, tenant))


def _expiries(prometheus: Prometheus, tenant: Tenant) -> set[float]:
    series = prometheus.query(f'{EXPIRES}{{namespace="{tenant.namespace}"}}')
    return {float(one["value"][1]) for one in series}


def _fires(prometheus: Prometheus, tenant: Tenant) -> bool:
    firing = f'ALERTS{{alertname="{ALERT}", alertstate="firing", namespace="{tenant.namespace}"}}'
    return bool(prometheus.query(firing))


def _series(prometheus: Prometheus, tenant: Tenant, expression: str) -> int:
    return sum(one["metric"]["namespace"] == tenant.namespace for one in prometheus.query(expression))


def _change_tokens(tenant: Tenant, address: str, access: Access) -> None:
    """Add a token, and take it away; the one that a client uses stays."""
    other = replace(access, token="token-of-two")  # noqa: S106 - of this test

    def is_known() -> bool:
        return _code(address, other, INFER) is not grpc.StatusCode.UNAUTHENTICATED

    steps: tuple[tuple[dict[str, str], Callable[[], bool]], ...] = (
        ({"one": "token-of-one", "two": other.token}, is_known),
        ({"one": "token-of-one", "two": "token-of-three"}, lambda: not is_known()),
    )
    assert not is_known()
    for tokens, holds in steps:
        _have_tokens(tenant, **tokens)
        _let_kubelet_look(tenant)
        tenant.until(holds, "the tokens are those of the Secret")


def _apply(tenant: Tenant, secret: str, replicas: int = 1, **spec: Any) -> None:
    tls = {"secretName": secret, "clientCASecretName": secret}
    serving = {"tls": tls, "auth": {"tokensSecretName": "cls-tokens"}}
    tenant.apply("cls", [CPU | {"replicas": replicas}], serving=serving, **spec)


def _have_secret(tenant: Tenant, name: str, identity: Identity, client_ca: bytes) -> None:
    files = {"tls.crt": identity.certificate, "tls.key": identity.key, "ca.crt": client_ca}
    _have(tenant, name, {key: content.decode() for key, content in files.items()}, type="kubernetes.io/tls")


def _have_tokens(tenant: Tenant, **tokens: str) -> None:
    _have(tenant, "cls-tokens", tokens)


def _have(tenant: Tenant, name: str, data: Mapping[str, str], **fields: Any) -> None:
    metadata = {"name": name, "namespace": tenant.namespace}
    tenant.cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data, **fields})


def _let_kubelet_look(tenant: Tenant) -> None:
    """Change the pods: kubelet then mounts at once, and not within the minute that it takes otherwise."""
    look = f"test/look={time.monotonic_ns()}"
    tenant.kubectl("annotate", "pods", "--selector=app.kubernetes.io/component=server", look, "--overwrite")


def _code(address: str, access: Access, method: str = READY) -> grpc.StatusCode:
    with access.channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        code: grpc.StatusCode = channel.unary_unary(method).future(b"", timeout=120, metadata=access.metadata).code()
        return code


def _until_reason(tenant: Tenant, reason: str, words: str) -> None:
    def holds() -> bool:
        told = tenant.target("cls", "cpu")
        return told.get("reason") == reason and words in told.get("message", "")

    tenant.until(holds, f"the status says {reason}: {words}")


def _answer_on(tenant: Tenant, traffic: Traffic) -> None:
    seen = len(traffic.answers())
    tenant.until(lambda: len(traffic.answers()) >= seen + 100, "the client is answered")


def _answers(traffic: Traffic) -> set[str]:
    return {one.code for one in traffic.answers()}


def _pods(tenant: Tenant) -> int:
    return len(tenant.get("pods", "--selector=app.kubernetes.io/component=server")["items"])
