"""An InferenceEngine deleted while no operator runs leaves the store's objects alone, and a sweep takes those."""

import os
import re
import sys
import time
from pathlib import Path

import pytest
from s3fs import S3FileSystem
from tests.cluster.access import Cluster
from tests.cluster.engines import Tenant
from tests.cluster.installation import ROOT, scale_operator

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("sole_operator")]

_TARGETS = [{"name": "cpu", "backend": "onnxruntime", "replicas": 2}]
_DAY = 24 * 3600.0
# Events outlive what they tell of, by Kubernetes' own design.
_OUTLIVING = {"events", "events.events.k8s.io"}


def _everything(cluster: Cluster, namespace: str) -> set[str]:
    """Return every object of a namespace, of whichever kind the API server knows."""
    kinds = cluster.kubectl("api-resources", "--namespaced", "--verbs=list", "-o=name").split()
    wanted = ",".join(sorted(set(kinds) - _OUTLIVING))
    return set(cluster.kubectl("-n", namespace, "get", wanted, "-o=name", "--ignore-not-found").split())


def _engine_keys(files: S3FileSystem, folder: str) -> set[str]:
    files.invalidate_cache()
    return {Path(name).stem for name in files.ls(f"{folder}/keys")}


def _settle(tenant: Tenant, name: str, **spec: object) -> str:
    """Apply an InferenceEngine and wait until it serves with nothing left over; return its engine's key."""
    tenant.apply(name, _TARGETS, **spec)
    generation = tenant.get("inferenceengine", name)["metadata"]["generation"]

    def serves() -> bool:
        current = tenant.condition(name, "UpToDate")
        return current.get("status") == "True" and current.get("observedGeneration") == generation

    tenant.until(serves, f"{name} serves")
    pods = f"--selector=enginesmith.io/engine={name},app.kubernetes.io/component=server"
    tenant.until(lambda: len(tenant.get("pods", pods)["items"]) == 2, "the old pods are gone")
    (key,) = tenant.target(name, "cpu")["serving"]
    return str(key)


def _sweep(cluster: Cluster, namespace: str) -> str:
    """Run the command of docs/installation.md as it is printed, for this namespace's folder; return what it says."""
    text = (ROOT / "docs/installation.md").read_text(encoding="utf-8")
    block = re.search(r"```\n(kubectl get inferenceengines.*?)```", text, re.DOTALL)
    assert block is not None
    command = block[1].replace("s3://engines/vision", f"s3://engines/{namespace}")
    assert namespace in command
    path = f"{Path(sys.executable).parent}:{cluster.environment['PATH']}:{os.environ['PATH']}"
    done = cluster.run("bash", "-c", f"set -euo pipefail\n{command}", variables={**cluster.s3, "PATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _grow_old(cluster: Cluster, namespace: str) -> None:
    """Let the store's objects be of a time that is long past."""
    folder = Path(cluster.environment["KUBECONFIG"]).parent / "data" / "s3" / "engines" / namespace
    then = time.time() - 99 * _DAY
    for path in [one for one in folder.rglob("*") if one.is_file()]:
        os.utime(path, (then, then))


@pytest.mark.extended
def test_an_engine_deleted_without_an_operator_leaves_its_store_and_a_sweep_keeps_what_others_have(
    cluster: Cluster, tenant: Tenant
) -> None:
    retention = {"keepEngines": 1}
    kept = [_settle(tenant, "kept", retention=retention, build={"epoch": epoch}) for epoch in (1, 2, 3)]
    before = _everything(cluster, tenant.namespace)
    gone = _settle(tenant, "gone", build={"epoch": 4})
    assert len(_everything(cluster, tenant.namespace) - before) > len(_TARGETS)
    scale_operator(cluster, 0)
    try:
        tenant.kubectl("delete", "inferenceengine", "gone")
        tenant.until(lambda: _everything(cluster, tenant.namespace) <= before, "nothing of it is left")
        assert _everything(cluster, tenant.namespace) == before
    finally:
        scale_operator(cluster, 2)

    files = cluster.files()
    folder = f"engines/{tenant.namespace}"
    assert _engine_keys(files, folder) == {*kept, gone}
    _sweep(cluster, tenant.namespace)
    assert _engine_keys(files, folder) == {*kept, gone}, "what is young stays"
    _grow_old(cluster, tenant.namespace)
    _sweep(cluster, tenant.namespace)
    assert _engine_keys(files, folder) == set(kept[1:])

    # What was kept is whole: new pods take it, and nothing is built.
    builds = tenant.get("enginebuilds")["items"]
    tenant.kubectl("delete", "pods", "--selector=enginesmith.io/engine=kept", "--wait")
    tenant.until_ready("kept")
    assert [one["metadata"]["uid"] for one in tenant.get("enginebuilds")["items"]] == [
        one["metadata"]["uid"] for one in builds
    ]
