"""Signed models and engines on a cluster: what a policy and a store that require signatures refuse and take."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.access import Cluster
from tests.cluster.engines import Document, Tenant
from tests.cluster.installation import installed_operator
from tests.cluster.test_engine_policies import policy, refusal, until_refused
from tests.signing_keys import Key, make_key, sign_files

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended]

NAME = "signed"
CPU = {"name": "cpu", "backend": "onnxruntime"}
SECRET = "enginesmith-signing"  # noqa: S105 - the name of a Secret


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Key]:
    return {name: make_key(tmp_path / f"{name}.pem") for name in ("vision", "builders")}


@pytest.fixture
def prefix(cluster: Cluster, images: dict[str, str], keys: dict[str, Key]) -> Iterator[str]:
    """The folder in the bucket of an operator whose store takes signed engines only."""
    prefix = f"signed/{uuid.uuid4().hex[:10]}"
    bucket = {
        "bucket": "engines",
        "prefix": prefix,
        "endpoint": cluster.s3["AWS_ENDPOINT_URL"],
        "region": cluster.s3["AWS_REGION"],
        "secretRef": {"name": "s3"},
    }
    signatures = {
        "modelKeys": {"vision": keys["vision"].public},
        "engineKeys": {"builders": keys["builders"].public},
        "engineSecret": SECRET,
    }
    settings = {"store": {"default": {"s3": bucket}}, "config": {"signatures": signatures, "clusterName": "test"}}
    with installed_operator(cluster, images, settings=settings):
        yield prefix


@pytest.fixture
def tenant(cluster: Cluster, small_tenant: Tenant, keys: dict[str, Key], prefix: str) -> Iterator[Tenant]:
    """A namespace with the builders' key, whose models have to be signed."""
    assert prefix
    metadata = {"name": SECRET, "namespace": small_tenant.namespace}
    data = {"key.pem": keys["builders"].path.read_text()}
    cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data})
    cluster.apply(policy(small_tenant.namespace, small_tenant.namespace, modelSigners=["vision"]))
    yield small_tenant
    cluster.kubectl("delete", "enginepolicy", small_tenant.namespace)


def pull_failure(tenant: Tenant) -> dict[str, Any]:
    """Return why an init step of a serving pod ended, once one has."""
    for pod in tenant.get("pods", "-l=app.kubernetes.io/component=server")["items"]:
        for step in pod["status"].get("initContainerStatuses", ()):
            for state in (step.get("state") or {}, step.get("lastState") or {}):
                message = (state.get("terminated") or {}).get("message")
                if message and "failure" in message:
                    return dict(json.loads(message)["failure"])
    return {}


def test_only_signed_models_and_engines_are_served(
    cluster: Cluster, tenant: Tenant, keys: dict[str, Key], prefix: str, tmp_path: Path
) -> None:
    unsigned: Document = tenant.document(NAME, [CPU])
    said = until_refused(cluster, tenant.namespace, document=unsigned)
    assert "spec.model.signature: a signature is required (of one of the keys: vision)" in said

    model = tenant.model | {"signature": "model.sig"}
    stolen = tenant.document(NAME, [CPU], model=model | {"secretRef": {"name": SECRET}})
    assert "spec.model.secretRef.name: enginesmith-signing has the key that builders sign" in refusal(cluster, stolen)

    tenant.apply(NAME, [CPU], model=model)
    tenant.until(lambda: tenant.condition(NAME, "Prepared").get("reason") == "SignatureMissing", "it is not signed")
    assert (
        "the model is not signed: a signature of one of the keys vision is required"
        in (tenant.condition(NAME, "Prepared")["message"])
    )
    signature = tmp_path / "model.sig"
    signature.write_bytes(sign_files(keys["vision"], {"small.onnx": (tmp_path / "small.onnx").read_bytes()}))
    cluster.upload(signature, tenant.model["uri"].replace("small.onnx", "model.sig"))
    tenant.until_ready(NAME)

    store = cluster.files()
    (path,) = store.glob(f"engines/{prefix}/{tenant.namespace}/keys/*.json")
    manifest = json.loads(store.cat_file(path))
    provenance = manifest["provenance"]
    assert provenance["buildDefinition"]["internalParameters"]["cluster"] == "test"
    assert provenance["buildDefinition"]["internalParameters"]["namespace"] == tenant.namespace
    assert "@sha256:" in provenance["runDetails"]["builder"]["id"]
    assert manifest["signature"]

    store.pipe_file(path, json.dumps(manifest | {"notes": ["changed in the store"]}).encode())
    tenant.kubectl("delete", "pod", "--wait=false", "-l=app.kubernetes.io/component=server")
    tenant.until(lambda: pull_failure(tenant).get("reason") == "EngineUntrusted", "a pod refuses the engine")
    assert "none of the keys builders signed its manifest as it is" in pull_failure(tenant)["why"]


METRIC = """
import json, numpy as np
from pathlib import Path
data = Path("/metric/data")
samples = json.loads((data / "index.json").read_text())["samples"]
far = max(float(abs(a[name] - b[name]).max()) for one in samples for a, b in [[np.load(data / one[kind]) for kind in
          ("reference", "engine")]] for name in a)
keys = [str(path) for root in ("/etc", "/var/run") for path in Path(root).rglob("key.pem")]
assert not keys, keys
Path("/metric/result/result.json").write_text(json.dumps({"value": far, "message": "the farthest value"}))
"""


def test_an_engine_that_a_metric_has_judged_is_signed_and_one_that_it_refuses_is_not_stored(
    cluster: Cluster, tenant: Tenant, images: dict[str, str], keys: dict[str, Key], prefix: str, tmp_path: Path
) -> None:
    signature = tmp_path / "model.sig"
    signature.write_bytes(sign_files(keys["vision"], {"small.onnx": (tmp_path / "small.onnx").read_bytes()}))
    cluster.upload(signature, tenant.model["uri"].replace("small.onnx", "model.sig"))
    model = tenant.model | {"signature": "model.sig"}
    command = ["/opt/enginesmith/bin/python", "-c", METRIC]
    container: Document = {"image": images["enginesmith/runtime"], "command": command}

    def apply(epoch: int, **limits: float) -> None:
        verification = {"metricContainer": container | limits}
        tenant.apply(NAME, [CPU], model=model, build={"epoch": epoch}, verification=verification)

    # A signature is of an engine that may be served: what the metric refuses gets none.
    apply(1, atLeast=5)
    tenant.until(lambda: "the farthest value" in tenant.condition(NAME, "Built").get("message", ""), "it is refused")
    assert cluster.files().glob(f"engines/{prefix}/{tenant.namespace}/keys/*.json") == []

    apply(2, atMost=5)
    tenant.until_ready(NAME)
    (path,) = cluster.files().glob(f"engines/{prefix}/{tenant.namespace}/keys/*.json")
    manifest = json.loads(cluster.files().cat_file(path))
    assert manifest["signature"]
    (value,) = {
        one["status"]["result"]["metric"]
        for one in tenant.get("enginebuilds")["items"]
        if one["status"]["phase"] == "Succeeded"
    }
    assert 0 <= value <= 5
