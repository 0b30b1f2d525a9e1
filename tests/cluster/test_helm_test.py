"""`helm test` with default stores that are no bucket: a claim, and a registry that wants a login."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.access import Cluster
from tests.cluster.engines import Tenant
from tests.cluster.installation import SYSTEM, installed_operator, run_helm
from tests.cluster.test_stores import HOST, have_claim, registry, repository_store
from tests.store.conftest import PASSWORD

__all__ = ["registry"]

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended]


@pytest.fixture(params=["pvc", "oci"])
def store(cluster: Cluster, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The chart's value `store.default`; what it names is in the namespace of the release."""
    if request.param == "pvc":
        have_claim(cluster, SYSTEM, tmp_path / "volume", "ReadWriteMany")
        yield {"pvc": {"claimName": "engines"}}
        cluster.kubectl("-n", SYSTEM, "delete", "persistentvolumeclaim", "engines")
        cluster.kubectl("delete", "persistentvolume", f"engines-{SYSTEM}")
    else:
        tenant = Tenant(cluster=cluster, namespace=SYSTEM, model={})
        yield repository_store(tenant, request.getfixturevalue("registry"), PASSWORD).spec
        cluster.kubectl("-n", SYSTEM, "delete", "secret", "registry")


def test_helm_test_passes_with_each_kind_of_store(
    cluster: Cluster, images: dict[str, str], store: dict[str, Any]
) -> None:
    settings = {"store": {"default": store}, "config": {"addresses": {"allowed": [f"{HOST}/32"]}}}
    with installed_operator(cluster, images, settings=settings):
        done = run_helm(cluster, "test", "enginesmith", "--namespace", SYSTEM, "--timeout", "5m", "--logs")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "answers as it should" in done.stdout
