"""ServiceAccounts of the pods: those that the administrator allows, once they are there."""

import json
from collections.abc import Iterator

import pytest
from tests.cluster.access import Cluster
from tests.cluster.engines import Tenant
from tests.cluster.installation import installed_operator

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended, pytest.mark.usefixtures("allowing_operator")]

NAME = "accounts"
CPU = {"name": "cpu", "backend": "onnxruntime"}


@pytest.fixture
def allowing_operator(cluster: Cluster, images: dict[str, str]) -> Iterator[None]:
    """An installation that allows one account besides `default`."""
    settings = {"admission": {"pods": {"serviceAccounts": ["default", "inference"], "images": ["10.243.0.1:*"]}}}
    with installed_operator(cluster, images, settings=settings):
        yield


def told(tenant: Tenant, kind: str) -> str:
    """Return the message of a condition that is False because pods are refused, once it is."""
    tenant.until(lambda: tenant.condition(NAME, kind).get("reason") == "PodsRefused", f"{kind}: PodsRefused")
    return str(tenant.condition(NAME, kind)["message"])


def test_an_account_is_refused_unless_it_is_allowed_and_used_once_it_is_there(
    cluster: Cluster, small_tenant: Tenant
) -> None:
    tenant = small_tenant
    metadata = {"name": "inference", "namespace": tenant.namespace}
    refused = tenant.document(NAME, [CPU], podTemplate={"serviceAccountName": "other"})
    done = cluster.run("kubectl", "create", "-f", "-", stdin=json.dumps(refused))
    assert "spec.podTemplate.serviceAccountName" in done.stderr
    assert "admission.pods.serviceAccounts" in done.stderr
    tenant.apply(NAME, [CPU], podTemplate={"serviceAccountName": "inference"})
    missed = 'serviceaccount "inference" not found; create it'
    tenant.until(lambda: all(missed in told(tenant, kind) for kind in ("Prepared", "Ready")), "the account is missed")
    cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})

    tenant.until_ready(NAME)
