"""What a person reads of an engine, and that what the API server spells otherwise leaves the operator at rest."""

import pytest
from tests.cluster.engines import Document, Tenant
from tests.cluster.operator_calls import OperatorCalls

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended, pytest.mark.usefixtures("operator")]

NAME = "cls"
CPU = {"name": "cpu", "backend": "onnxruntime"}
THOR = {"name": "thor", "backend": "onnxruntime", "gpu": {"product": "NVIDIA-Thor"}}
SPELLED: Document = {
    "podTemplate": {
        "resources": {"requests": {"cpu": "0.1", "memory": "0.25Gi"}, "limits": {"memory": "1024Mi", "cpu": 2}},
        "tolerations": [
            {"key": "a", "value": ""},
            {"key": "", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0},
        ],
        "env": [
            {"name": "EMPTY", "value": ""},
            {"name": "NUMBER", "value": "0.1"},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "nodeSelector": {"kubernetes.io/os": "linux"},
    },
    "build": {"resources": {"requests": {"cpu": "0.05", "memory": "0.5Gi"}, "limits": {"memory": "2048Mi"}}},
}
RESPELLED = {"requests": {"cpu": "100m", "memory": "262144Ki"}, "limits": {"memory": "1Gi", "cpu": "2000m"}}


@pytest.fixture
def tenant(small_tenant: Tenant) -> Tenant:
    """A namespace for engines of a small model."""
    return small_tenant


def _columns(tenant: Tenant) -> list[str]:
    """Return the words of the engine's line in `kubectl get`."""
    return tenant.kubectl("get", "ie", NAME, "--no-headers").split()


def test_quantities_and_empty_values_that_the_server_spells_otherwise_are_written_once(
    tenant: Tenant, calls: OperatorCalls
) -> None:
    targets: list[Document] = [
        CPU | {"autoscaling": {"maxReplicas": 2, "podMetric": {"name": "queue", "averageValue": "1500m"}}},
        CPU | {"name": "plain"},
    ]
    tenant.apply(NAME, targets, **SPELLED)
    tenant.until_ready(NAME)
    calls.until_quiet()
    before = {one["metadata"]["name"]: one["metadata"]["generation"] for one in tenant.get("deployments")["items"]}

    calls.seen.clear()
    tenant.kubectl("annotate", "ie", NAME, "example.com/look=again")
    calls.until_quiet()
    assert calls.seen == []

    tenant.apply(NAME, targets, **SPELLED | {"podTemplate": SPELLED["podTemplate"] | {"resources": RESPELLED}})
    calls.until_quiet()
    after = {one["metadata"]["name"]: one["metadata"]["generation"] for one in tenant.get("deployments")["items"]}
    assert after == before


def test_an_engine_with_a_target_that_is_impossible_reads_as_one_that_serves(
    tenant: Tenant, calls: OperatorCalls
) -> None:
    tenant.apply(NAME, [CPU, THOR])
    assert tenant.kubectl("get", "ie", NAME).split()[:5] == ["NAME", "READY", "UP-TO-DATE", "SERVING", "ON"]
    tenant.until(lambda: _columns(tenant)[1:5] == ["True", "False", "1/2", "CPU"], "one of two targets serves")
    calls.until_quiet()

    assert tenant.condition(NAME, "AllTargets")["status"] == "False"
    message = tenant.condition(NAME, "Ready")["message"]
    assert message.startswith("on cpu; without thor: ProductDiffers: ")
    assert "install the NVIDIA device plugin" not in message
    assert "<nil>" not in tenant.kubectl("describe", "ie", NAME)

    tenant.kubectl("delete", "ie", NAME, "--cascade=foreground")
    tenant.apply(NAME, [CPU])
    tenant.until(lambda: _columns(tenant)[1:5] == ["True", "True", "1/1", "CPU"], "the only target serves")
    assert tenant.condition(NAME, "AllTargets")["status"] == "True"
    assert "found in the store, so nothing was built" in tenant.condition(NAME, "Built")["message"]
