"""An upgrade from the operator of an older commit, built from that commit, while clients send.

It needs the repository's history: a shallow clone does not have the commit.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.cluster.access import Cluster
from tests.cluster.engines import Tenant
from tests.cluster.inference import service_address
from tests.cluster.installation import CHART, ROOT, SYSTEM, chart_values, load_images, run_helm, upgrade_to
from tests.cluster.traffic import Traffic, steady_traffic

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended, pytest.mark.usefixtures("sole_operator")]

COMMIT = "a0aee2b"
"""Of 2026-11-30, before operators entered their namespaces; its servers answer, unlike those of the commits before."""
CPU = {"name": "cpu", "backend": "onnxruntime"}
SERVERS = "--selector=app.kubernetes.io/component=server,enginesmith.io/engine=steady"


@dataclass(frozen=True, kw_only=True)
class Older:
    """A checkout of the older commit, and the values for its chart with images that were built from it."""

    root: Path
    values: Mapping[str, object]


@pytest.fixture
def older(cluster: Cluster, tmp_path: Path) -> Iterator[Older]:
    """The older operator, newly installed; afterwards images and kinds are those of this checkout."""
    root = tmp_path / "older"
    root.mkdir()
    with subprocess.Popen(["git", "archive", COMMIT], cwd=ROOT, stdout=subprocess.PIPE) as archive:
        subprocess.run(["tar", "-x", "-C", root], stdin=archive.stdout, check=True)
    assert archive.returncode == 0, f"this clone of the repository does not have the commit {COMMIT}"
    try:
        loaded = cluster.run(root / "hack/cluster", "load")
        assert loaded.returncode == 0, loaded.stdout + loaded.stderr
        printed = cluster.run(sys.executable, root / "examples/cluster/values.py")
        assert printed.returncode == 0, printed.stderr
        gone = run_helm(cluster, "uninstall", "enginesmith", "--namespace", SYSTEM, "--wait")
        assert gone.returncode == 0, gone.stderr
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(root / "charts/enginesmith/crds"))
        yield Older(root=root, values=json.loads(printed.stdout))
    finally:
        load_images(cluster)
        upgrade_to(cluster, CHART, chart_values(cluster))


def test_an_upgrade_from_an_older_operator_restarts_no_server_and_reads_what_it_wrote(
    cluster: Cluster, small_tenant: Tenant, older: Older, tmp_path: Path
) -> None:
    tenant = small_tenant
    upgrade_to(cluster, older.root / "charts/enginesmith", older.values, crds=False)
    tenant.apply("steady", [CPU | {"replicas": 2}])
    tenant.until_ready("steady")
    before, builds = _servers(tenant), _builds(tenant)
    assert len(builds) == 1
    with steady_traffic(service_address(tenant, "steady"), "steady", tmp_path / "answers", ("x", (4, 4))) as traffic:
        _until_answered(tenant, traffic, 60)
        load_images(cluster)
        upgrade_to(cluster, CHART, chart_values(cluster))
        tenant.kubectl("annotate", "inferenceengine", "steady", "enginesmith.io/retry=after-upgrade")
        tenant.apply("next", [CPU])
        tenant.until_ready("next")
        _until_answered(tenant, traffic, len(traffic.answers()) + 60)
        assert _servers(tenant) == before
        (key,) = traffic.engines()
        # The store's engine and its records are the older version's: the new operator finds them and builds nothing.
        assert tenant.target("next", "cpu")["serving"] == [key]
        assert _builds(tenant) == builds

        tenant.apply("steady", [CPU | {"replicas": 2}], build={"epoch": 1})
        tenant.until(lambda: len(traffic.engines()) > 1, "the client comes to the engine of the new operator")
        tenant.until_ready("steady")
        _until_answered(tenant, traffic, len(traffic.answers()) + 60)
    assert traffic.errors() == []
    assert len(traffic.engines()) == 2


def _builds(tenant: Tenant) -> set[str]:
    return {one["metadata"]["uid"] for one in tenant.get("enginebuilds")["items"]}


def _servers(tenant: Tenant) -> dict[str, list[int]]:
    """Return the uids of the pods that serve `steady`, with the restarts of their containers."""
    pods = tenant.get("pods", SERVERS)["items"]
    return {
        one["metadata"]["uid"]: [each["restartCount"] for each in one["status"]["containerStatuses"]] for one in pods
    }


def _until_answered(tenant: Tenant, traffic: Traffic, number: int) -> None:
    tenant.until(lambda: len(traffic.answers()) >= number, f"{number} requests are answered")
