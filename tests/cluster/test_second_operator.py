"""A second release that Helm did not see: its operator refuses to work, the first one continues, and is followed."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.cluster.access import Cluster
from tests.cluster.engines import Tenant
from tests.cluster.installation import CHART, SYSTEM, chart_values, run_helm, scale_operator

from enginesmith_operator.kinds import REGISTER

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended, pytest.mark.usefixtures("sole_operator")]

CPU = {"name": "cpu", "backend": "onnxruntime"}
NAME = "enginesmith-operator"
REFUSAL = (
    f"lease kube-system/{REGISTER}: another operator works on the same namespaces: {NAME} in the namespace {SYSTEM} "
    f"(process {NAME}-"
)
# Without what belongs to the cluster and has the first release's name.
KINDS = {"ServiceAccount", "ConfigMap", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Deployment"}


@pytest.fixture
def second(cluster: Cluster, namespace: str) -> Iterator[Tenant]:
    """A release of the first one's name in another namespace, as `helm template | kubectl apply` makes it."""
    rendered = run_helm(
        cluster,
        *("template", "enginesmith", CHART, "--namespace", namespace, "--values", "-"),
        stdin=json.dumps(chart_values(cluster) | {"replicas": 1, "rbac": {"aggregate": False}}),
    )
    assert rendered.returncode == 0, rendered.stderr
    found = [one for one in yaml.safe_load_all(rendered.stdout) if one and one["kind"] in KINDS]
    documents = [one for one in found if "helm.sh/hook" not in one["metadata"].get("annotations", {})]
    cluster.apply(*documents)
    yield Tenant(cluster=cluster, namespace=namespace, model={})
    cluster.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=yaml.safe_dump_all(documents))
    scale_operator(cluster, 2)


def test_an_operator_that_helm_did_not_see_refuses_to_work_until_the_first_has_stopped(
    cluster: Cluster, second: Tenant, small_tenant: Tenant
) -> None:
    first = Tenant(cluster=cluster, namespace=SYSTEM, model={})
    second.until(lambda: REFUSAL in second.kubectl("logs", f"deployment/{NAME}", "--tail=50"), "the log names it")
    cluster.kubectl("-n", SYSTEM, "rollout", "restart", f"deployment/{NAME}")
    cluster.kubectl("-n", SYSTEM, "rollout", "status", f"deployment/{NAME}", "--timeout=300s")
    small_tenant.apply("still", [CPU])
    small_tenant.until_ready("still")
    assert _restarts(first) == [0, 0]

    second.until(lambda: any(REFUSAL in one for one in _endings(second)), "the pod's status names it")
    assert _ready(second) == 0
    assert set(_entries(cluster)) == {f"{SYSTEM}/{NAME}"}

    scale_operator(cluster, 0)
    second.until(lambda: _ready(second) == 1, "the second one works")
    second.until(lambda: set(_entries(cluster)) == {f"{second.namespace}/{NAME}"}, "it has entered itself")


def _pods(tenant: Tenant) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tenant.get("pods", "-l=app.kubernetes.io/component=operator")["items"]
    return [one for one in found if "deletionTimestamp" not in one["metadata"]]


def _containers(tenant: Tenant) -> list[dict[str, Any]]:
    return [each for one in _pods(tenant) for each in one["status"].get("containerStatuses", ())]


def _restarts(tenant: Tenant) -> list[int]:
    return [each["restartCount"] for each in _containers(tenant)]


def _ready(tenant: Tenant) -> int:
    return sum(each["ready"] for each in _containers(tenant))


def _endings(tenant: Tenant) -> list[str]:
    """Return what containers that ended left as their message."""
    states = [each.get(state) or {} for each in _containers(tenant) for state in ("state", "lastState")]
    return [one.get("terminated", {}).get("message", "") for one in states]


def _entries(cluster: Cluster) -> dict[str, Any]:
    lease = cluster.run("kubectl", "-n", "kube-system", "get", "lease", REGISTER, "-o=json")
    found = json.loads(lease.stdout) if lease.returncode == 0 else {"metadata": {}}
    entries: dict[str, Any] = json.loads(found["metadata"].get("annotations", {}).get("enginesmith.io/operators", "{}"))
    return entries
