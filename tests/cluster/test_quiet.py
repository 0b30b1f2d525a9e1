"""Where everything is in place the operator writes nothing but its Lease, however often it starts or looks again."""

import time
from collections.abc import Callable, Iterable, Iterator

import pytest
from benchmarks.operator_cluster import OPERATOR_USER, AuditTail, Request, replicas, writes_of
from tests.cluster.access import Cluster
from tests.cluster.engines import Document, Tenant
from tests.cluster.installation import SYSTEM, installed_operator

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

_DEPLOYMENT = "deployment/enginesmith-operator"
_PASSES = "enginesmith_reconciles_total"
_LISTINGS = 3
_SETTLE_SECONDS = 5
"""A write that a pass leads to is in the log within this time."""
_TRIES = 5
_QUIET_LOOKS = 25
"""So many times, a fifth of a second apart, nothing was written."""
_TARGETS: list[Document] = [
    {"name": "l4", "backend": "onnxruntime", "gpu": {"product": "NVIDIA-L4"}, "replicas": 2},
    {"name": "h100", "backend": "onnxruntime", "gpu": {"product": "NVIDIA-H100-80GB-HBM3"}},
    {"name": "cpu", "backend": "onnxruntime", "standby": True},
]


@pytest.fixture
def settled(tenant: Tenant) -> Tenant:
    """A namespace in which one target serves, one is refused and one stands by."""
    tenant.apply("quiet", _TARGETS)
    tenant.until(lambda: tenant.target("quiet", "l4").get("phase") == "Serving", "the L4 target serves")
    tenant.until(lambda: tenant.target("quiet", "cpu").get("phase") == "Standby", "the CPU stands by")
    tenant.until(lambda: len(_server_pods(tenant)) == 2, "no server but those two is left")
    _until_nothing_is_written(tenant)
    return tenant


def _until_nothing_is_written(tenant: Tenant) -> None:
    """Wait until the operator has told of all that it has seen: the end of the last pod, for example."""
    audit = AuditTail(tenant.cluster.audit_log, OPERATOR_USER)
    looks: list[bool] = []

    def is_quiet() -> bool:
        looks.append(_writes_here(audit.read(), tenant) == [])
        return len(looks) >= _QUIET_LOOKS and all(looks[-_QUIET_LOOKS:])

    tenant.until(is_quiet, "nothing is written any more")


def _writes_here(requests: Iterable[Request], tenant: Tenant) -> list[Request]:
    """Return the writes to the tenant's namespace: others may be applying engines of their own meanwhile."""
    return [one for one in writes_of(requests) if one.namespace == tenant.namespace]


def _server_pods(tenant: Tenant) -> list[Document]:
    return list(tenant.get("pods", "--selector=app.kubernetes.io/component=server")["items"])


def _passes(cluster: Cluster) -> float:
    """Return how often the leader has looked at an InferenceEngine."""
    samples = replicas(cluster)[0].metrics()
    return sum(value for name, value in samples.items() if name.startswith(_PASSES) and "InferenceEngine" in name)


def _engines(cluster: Cluster) -> int:
    return len(cluster.get("inferenceengines", "--all-namespaces")["items"])


@pytest.mark.usefixtures("sole_operator", "hardware")
def test_a_restart_of_both_replicas_writes_nothing_but_the_lease(cluster: Cluster, settled: Tenant) -> None:
    def restart() -> list[Request]:
        audit = AuditTail(cluster.audit_log, OPERATOR_USER)
        cluster.kubectl("-n", SYSTEM, "rollout", "restart", _DEPLOYMENT)
        cluster.kubectl("-n", SYSTEM, "rollout", "status", _DEPLOYMENT, "--timeout=300s")
        settled.until(lambda: _passes(cluster) >= _engines(cluster), "the new leader has looked at every engine")
        time.sleep(_SETTLE_SECONDS)
        return audit.read()

    requests = _while_nothing_changes(settled, restart)
    assert [one for one in requests if one.resource == "leases" and one.verb == "update"], "the log is not read"
    assert _writes_here(requests, settled) == []
    assert settled.target("quiet", "l4")["phase"] == "Serving"


def _while_nothing_changes(tenant: Tenant, act: Callable[[], list[Request]]) -> list[Request]:
    """Return what was asked meanwhile; again where a server missed a probe, of which the operator has to tell."""
    for _ in range(_TRIES):
        before, requests = _ready_since(tenant), act()
        if _ready_since(tenant) == before:
            break
        _until_nothing_is_written(tenant)
    return requests


def _ready_since(tenant: Tenant) -> dict[str, str]:
    """Return since when each server is ready or not."""
    return {
        pod["metadata"]["uid"]: condition["lastTransitionTime"]
        for pod in _server_pods(tenant)
        for condition in pod["status"]["conditions"]
        if condition["type"] == "Ready"
    }


@pytest.fixture
def often_listing_operator(cluster: Cluster, images: dict[str, str]) -> Iterator[None]:
    """An installed operator that does within seconds what it else does every ten minutes."""
    with installed_operator(cluster, images, settings={"config": {"resync": "2s"}}):
        yield


@pytest.mark.usefixtures("often_listing_operator", "hardware")
def test_listing_everything_again_writes_nothing(cluster: Cluster, settled: Tenant) -> None:
    def list_often() -> list[Request]:
        audit = AuditTail(cluster.audit_log, OPERATOR_USER)
        requests: list[Request] = []

        def has_listed_often() -> bool:
            requests.extend(audit.read())
            lists = [one for one in requests if one.verb == "list" and one.resource == "deployments"]
            # Both replicas list, and one more listing says that the leader has begun what came before it.
            return len(lists) > 2 * _LISTINGS

        settled.until(has_listed_often, "everything was listed again and again")
        enough = _passes(cluster) + _engines(cluster)
        settled.until(lambda: _passes(cluster) >= enough, "everything was looked at again")
        time.sleep(_SETTLE_SECONDS)
        return requests + audit.read()

    assert _writes_here(_while_nothing_changes(settled, list_often), settled) == []
