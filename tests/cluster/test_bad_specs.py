"""What is wrong with an InferenceEngine and only the cluster can know: said with what to do, and put right by itself.

The operator comes to rest over each of them, and goes on as soon as the fact changes that was wrong.
"""

import uuid
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from tests.cluster.access import Cluster
from tests.cluster.engines import Document, Tenant
from tests.cluster.installation import change_catalog
from tests.cluster.operator_calls import OperatorCalls

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended, pytest.mark.usefixtures("operator")]

NAME = "cls"
CPU = {"name": "cpu", "backend": "onnxruntime"}
ON_THE_CPU_NODE = {"nodeSelector": {"kubernetes.io/hostname": "cpu"}}
MANIFEST_TYPES = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture
def tenant(small_tenant: Tenant) -> Tenant:
    """A namespace for engines of a small model."""
    return small_tenant


@pytest.fixture
def small_model(tenant: Tenant, tmp_path: Path) -> Path:
    """The model's file."""
    assert tenant.model["uri"].endswith("/small.onnx")
    return tmp_path / "small.onnx"


def told(tenant: Tenant, kind: str, reason: str) -> str:
    """Return the message of a condition that is False for this reason, once it is."""

    def found() -> bool:
        condition = tenant.condition(NAME, kind)
        return (condition.get("status"), condition.get("reason")) == ("False", reason)

    tenant.until(found, f"{kind} is False for {reason}")
    return str(tenant.condition(NAME, kind)["message"])


def own_model(tenant: Tenant, file: str = "model.onnx") -> Document:
    """Return a `spec.model` that names a place of the tenant's own, where nothing may be yet."""
    return tenant.model | {"uri": f"s3://models/{tenant.namespace}/{file}"}


def volume(name: str, folder: Path, *, mode: str) -> Document:
    """Return a volume on this machine, which all of its nodes reach, for the claim of the same name."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "storageClassName": name,
            "capacity": {"storage": "1Gi"},
            "accessModes": [mode],
            "hostPath": {"path": str(folder)},
        },
    }


def claim(name: str, tenant: Tenant, storage_class: str, *, mode: str) -> Document:
    """Return a claim."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": tenant.namespace},
        "spec": {
            "storageClassName": storage_class,
            "accessModes": [mode],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


@pytest.fixture
def shared_folder(cluster: Cluster, tenant: Tenant, tmp_path: Path) -> Iterator[Path]:
    """A folder that pods of every node can write, behind a ReadWriteMany volume of the tenant's own class."""
    folder = tmp_path / "volume"
    folder.mkdir()
    for one in (folder, *list(folder.parents)[:3]):
        one.chmod(0o777)
    cluster.apply(volume(tenant.namespace, folder, mode="ReadWriteMany"))
    yield folder
    cluster.kubectl("delete", "persistentvolume", tenant.namespace, "--wait=false")


def test_a_target_that_no_node_has_the_gpu_for_is_refused_with_what_there_is_and_the_others_serve(
    tenant: Tenant, calls: OperatorCalls
) -> None:
    tenant.apply(NAME, [CPU, {"name": "thor", "backend": "onnxruntime", "gpu": {"product": "NVIDIA-Thor"}}])

    message = told(tenant, "Planned", "ProductDiffers")
    tenant.until(lambda: tenant.target(NAME, "cpu").get("phase") == "Serving", "the other target serves")
    calls.until_quiet()

    assert "NVIDIA-Thor" in message
    assert "NVIDIA-L4" in message
    assert tenant.target(NAME, "thor")["phase"] == "Refused"
    assert tenant.condition(NAME, "AllTargets")["status"] == "False"
    assert tenant.condition(NAME, "Ready")["status"] == "True"
    refusals = [one for one in tenant.events() if one["type"] == "Warning"]
    assert [one["message"].startswith("thor: ") for one in refusals] == [True]


def test_a_model_that_is_not_there_is_missed_by_its_uri_and_served_once_it_is(
    cluster: Cluster, tenant: Tenant, calls: OperatorCalls, small_model: Path
) -> None:
    model = own_model(tenant)
    tenant.apply(NAME, [CPU], model=model)

    message = told(tenant, "Prepared", "NotFound")
    assert model["uri"] in message
    assert told(tenant, "Ready", "NotFound") == f"cpu: {message}"
    calls.until_quiet()
    cluster.upload(small_model, model["uri"])

    tenant.until_ready(NAME)


def test_a_model_with_another_digest_is_refused_with_both_and_served_once_the_spec_has_the_right_one(
    cluster: Cluster, tenant: Tenant, calls: OperatorCalls, small_model: Path
) -> None:
    model = own_model(tenant)
    digest = sha256(small_model.read_bytes()).hexdigest()
    cluster.upload(small_model, model["uri"])
    tenant.apply(NAME, [CPU], model=model | {"sha256": "0" * 64})

    message = told(tenant, "Prepared", "DigestMismatch")
    assert digest in message
    assert "0" * 64 in message
    calls.until_quiet()
    tenant.apply(NAME, [CPU], model=model | {"sha256": digest})

    tenant.until_ready(NAME)


def test_a_model_that_cannot_be_used_as_asked_is_refused_in_words_and_served_once_it_can(
    cluster: Cluster, tenant: Tenant, calls: OperatorCalls, tmp_path: Path
) -> None:
    archive = tmp_path / "archive.onnx"
    archive.write_bytes(b"PK\x03\x04 no model")
    no_model = own_model(tenant, archive.name)
    cluster.upload(archive, no_model["uri"])
    wide = [{"name": "wide", "inputs": {"x": {"min": [1, 5], "opt": [1, 5], "max": [1, 5]}}}]

    tenant.apply(NAME, [CPU], model=no_model)
    assert "ONNX" in told(tenant, "Prepared", "NotOnnx")
    calls.until_quiet()
    tenant.apply(NAME, [CPU], profiles=wide)
    assert "fixes it at 4" in told(tenant, "Prepared", "FixedDimension")
    calls.until_quiet()
    tenant.apply(NAME, [CPU], profiles=[])
    assert "add below spec" in told(tenant, "Prepared", "ProfileMissing").lower()
    calls.until_quiet()
    tenant.apply(NAME, [CPU])

    tenant.until_ready(NAME)


def test_a_secret_that_is_not_there_is_asked_for_by_name_and_taken_once_it_is(
    cluster: Cluster, tenant: Tenant, calls: OperatorCalls
) -> None:
    account = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "reader", "namespace": tenant.namespace}}
    tenant.apply(NAME, [CPU], model=tenant.model | {"secretRef": {"name": "reader"}})

    message = told(tenant, "Prepared", "ContainerCannotStart")
    assert 'secret "reader" not found' in message
    assert "create it" in message
    calls.until_quiet()
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    cluster.apply(account | {"stringData": {key: cluster.s3[key] for key in keys}})

    tenant.until_ready(NAME)


def test_a_store_s_claim_must_be_there_and_shared_where_pods_may_go_to_several_nodes(
    cluster: Cluster, tenant: Tenant, calls: OperatorCalls, shared_folder: Path
) -> None:
    tenant.apply(NAME, [CPU], store={"pvc": {"claimName": "engines"}})

    message = told(tenant, "Prepared", "StoreMissing")
    assert "PersistentVolumeClaim engines" in message
    assert "create it" in message
    calls.until_quiet()
    cluster.apply(claim("engines", tenant, "none", mode="ReadWriteOnce"))
    message = told(tenant, "Prepared", "StoreNotShared")
    assert "ReadWriteOnce" in message
    assert "ReadWriteMany" in message
    assert tenant.get("jobs")["items"] == []
    calls.until_quiet()
    tenant.kubectl("delete", "persistentvolumeclaim", "engines")
    cluster.apply(claim("engines", tenant, tenant.namespace, mode="ReadWriteMany"))

    tenant.until_ready(NAME)
    assert (shared_folder / "keys").is_dir()


def test_a_claim_for_one_node_will_do_for_pods_that_stay_on_it(cluster: Cluster, tenant: Tenant) -> None:
    cluster.apply(claim("engines", tenant, "none", mode="ReadWriteOnce"))
    tenant.apply(NAME, [CPU], store={"pvc": {"claimName": "engines"}}, podTemplate=ON_THE_CPU_NODE)

    tenant.until(lambda: tenant.get("jobs")["items"], "the preparation begins")


def test_a_model_s_claim_that_is_not_there_is_named_and_used_once_it_is(
    cluster: Cluster, tenant: Tenant, calls: OperatorCalls, shared_folder: Path, small_model: Path
) -> None:
    (shared_folder / "small.onnx").write_bytes(small_model.read_bytes())
    tenant.apply(NAME, [CPU], model={"uri": "pvc://models/small.onnx"})

    message = told(tenant, "Prepared", "ClaimMissing")
    assert "PersistentVolumeClaim models" in message
    assert "create it" in message
    calls.until_quiet()
    cluster.apply(claim("models", tenant, tenant.namespace, mode="ReadWriteMany"))

    tenant.until_ready(NAME)


@pytest.fixture
def catalog_key(cluster: Cluster) -> Iterator[str]:
    """A key of the test's own in the operator's catalog; it is gone afterwards."""
    key = f"test-{uuid.uuid4().hex[:8]}"
    yield key
    change_catalog(cluster, key, None)


def copy_image(cluster: Cluster, image: str, repository: str) -> None:
    """Copy an image within the cluster's registry to another repository, under the same digest."""
    source, _, digest = image.removeprefix(f"{cluster.registry}/").partition("@")
    base = f"http://{cluster.registry}/v2"
    answer = httpx.get(f"{base}/{source}/manifests/{digest}", headers={"Accept": MANIFEST_TYPES}, timeout=60)
    answer.raise_for_status()
    manifest = answer.json()
    for blob in (manifest["config"], *manifest["layers"]):
        mounted = {"mount": blob["digest"], "from": source}
        httpx.post(f"{base}/{repository}/blobs/uploads/", params=mounted, timeout=60).raise_for_status()
    headers = {"Content-Type": answer.headers["Content-Type"]}
    put = httpx.put(f"{base}/{repository}/manifests/{digest}", content=answer.content, headers=headers, timeout=60)
    put.raise_for_status()


def test_a_toolchain_that_is_not_in_the_catalog_and_an_image_that_is_not_in_the_registry_are_waited_for(
    cluster: Cluster, tenant: Tenant, calls: OperatorCalls, images: dict[str, str], catalog_key: str
) -> None:
    image = images["enginesmith/runtime"]
    repository = f"{tenant.namespace}/runtime"
    moved = f"{cluster.registry}/{repository}@{image.partition('@')[2]}"
    entry = {"backend": "onnxruntime", "provider": "openvino", "version": "1.0", "image": moved}
    tenant.apply(NAME, [CPU | {"provider": "openvino"}])

    message = told(tenant, "Planned", "NoToolchain")
    assert "no toolchain for onnxruntime with provider openvino is in the toolchain catalog" in message
    assert "add one" in message
    assert tenant.get("jobs")["items"] == []
    calls.until_quiet()
    change_catalog(cluster, catalog_key, entry | {"preparationImage": image})
    message = told(tenant, "Built", "ImageCannotBePulled")
    assert moved in message
    assert "push it" in message
    assert tenant.condition(NAME, "Ready")["reason"] == "ImageCannotBePulled"
    calls.until_quiet()
    copy_image(cluster, image, repository)

    # That image has no OpenVINO, which is the next thing to be told.
    told(tenant, "Built", "ToolchainDiffers")


@pytest.mark.parametrize("resource", ["count/jobs.batch", "count/deployments.apps"])
def test_an_object_that_the_server_refuses_is_told_in_its_words_and_made_once_it_is_let_in(
    cluster: Cluster, tenant: Tenant, calls: OperatorCalls, resource: str
) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": tenant.namespace}}
    cluster.apply(quota | {"spec": {"hard": {resource: "0"}}})
    tenant.until(lambda: tenant.get("resourcequota", "none")["status"].get("hard"), "the quota holds")
    tenant.apply(NAME, [CPU])

    message = told(tenant, "Ready", "Refused")
    assert "exceeded quota: none" in message
    assert "ServiceAccount" not in message
    calls.until_quiet()
    tenant.kubectl("delete", "resourcequota", "none")

    tenant.until_ready(NAME)
