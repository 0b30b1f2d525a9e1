"""`kubectl drain` of the only node of a product ends, and objects that lost their owner are taken over."""

import pytest
from tests.cluster.access import Cluster
from tests.cluster.engines import Tenant

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended, pytest.mark.usefixtures("operator")]

NAME = "drained"
CPU = {"name": "cpu", "backend": "onnxruntime", "replicas": 2}
L4 = {"name": "l4", "backend": "onnxruntime", "gpu": {"product": "NVIDIA-L4"}, "replicas": 2}
STANDBY = {"name": "spare", "backend": "onnxruntime", "standby": True}


@pytest.fixture
def tenant(small_tenant: Tenant) -> Tenant:
    """A namespace for engines of a small model."""
    return small_tenant


def test_a_drain_of_the_only_node_ends_after_a_standby_has_taken_over(
    cluster: Cluster, tenant: Tenant, hardware: None
) -> None:
    assert hardware is None
    tenant.apply(NAME, [L4, STANDBY])
    tenant.until_ready(NAME)

    try:
        cluster.kubectl("drain", "gpu-l4", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s")
        assert tenant.target(NAME, "spare")["readyReplicas"] == 1
        assert tenant.condition(NAME, "Serving")["status"] == "True"
        tenant.until(lambda: "cordoned" in tenant.target(NAME, "l4")["message"], "the node is said to be cordoned")
    finally:
        cluster.kubectl("uncordon", "gpu-l4")

    tenant.until_ready(NAME)
    budget = tenant.get("poddisruptionbudgets")["items"]
    assert [one["spec"]["maxUnavailable"] for one in budget] == [1]


def test_a_drain_that_nothing_can_take_over_ends_too(cluster: Cluster, tenant: Tenant, hardware: None) -> None:
    assert hardware is None
    tenant.apply(NAME, [L4])
    tenant.until_ready(NAME)

    try:
        cluster.kubectl("drain", "gpu-l4", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s")
        tenant.until(lambda: "cordoned" in tenant.condition(NAME, "Ready")["message"], "cordoned is said")
    finally:
        cluster.kubectl("uncordon", "gpu-l4")

    tenant.until_ready(NAME)


def test_objects_without_an_owner_are_adopted_where_they_are_what_would_be_made(tenant: Tenant) -> None:
    tenant.apply(NAME, [CPU])
    tenant.until_ready(NAME)
    kinds = ("deployments", "services", "poddisruptionbudgets")
    before = {kind: [one["metadata"]["uid"] for one in tenant.get(kind)["items"]] for kind in kinds}
    pods = {one["metadata"]["uid"] for one in tenant.get("pods", "--selector=enginesmith.io/target")["items"]}
    tenant.kubectl("delete", "inferenceengine", NAME, "--cascade=orphan")
    tenant.apply(NAME, [CPU])
    uid = tenant.get("inferenceengine", NAME)["metadata"]["uid"]

    tenant.until_ready(NAME)

    for kind in kinds:
        found = tenant.get(kind)["items"]
        assert [one["metadata"]["uid"] for one in found] == before[kind]
        assert {owner["uid"] for one in found for owner in one["metadata"]["ownerReferences"]} == {uid}
    assert pods <= {one["metadata"]["uid"] for one in tenant.get("pods")["items"]}


def test_orphans_that_are_not_what_would_be_made_are_all_named(tenant: Tenant) -> None:
    tenant.apply(NAME, [CPU])
    tenant.until_ready(NAME)
    tenant.kubectl("delete", "inferenceengine", NAME, "--cascade=orphan")
    for kind in ("service", "deployment"):
        tenant.kubectl("label", kind, "--all", "app.kubernetes.io/component=mine", "--overwrite")
    tenant.apply(NAME, [CPU])

    tenant.until(lambda: tenant.condition(NAME, "Conflict").get("message"), "there is a conflict")
    message = tenant.condition(NAME, "Conflict")["message"]

    names = [one["metadata"]["name"] for kind in ("services", "deployments") for one in tenant.get(kind)["items"]]
    assert [name for name in names if name not in message] == []
