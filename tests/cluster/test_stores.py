"""Engines in stores of every kind: the whole way through each, in a namespace that admits restricted pods alone.

Pods know a store by what the spec names and what Secrets say; a person looks into the same store by its address.
"""

import base64
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tests.cluster.access import Cluster
from tests.cluster.engines import Document, Tenant
from tests.cluster.inference import ask_with_tritonclient, model_answer, service_address
from tests.cluster.installation import installed_operator
from tests.ports import free_port
from tests.real_servers import program, running
from tests.store.conftest import HTPASSWD, PASSWORD

from enginesmith_cli.store_claims import claims_of, read_objects
from enginesmith_runtime.store.open import open_store
from enginesmith_runtime.store.settings import StoreSettings
from enginesmith_runtime.store.sweep import Retention, Verdict, sweep

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended, pytest.mark.usefixtures("reaching_operator")]

NAME = "cls"
CPU = {"name": "cpu", "backend": "onnxruntime"}
IMAGE_OF_A_LINE = {"x": np.random.default_rng(7).random((2, 3, 48, 192), dtype=np.float32)}
_YEAR_SECONDS = 366 * 24 * 3600.0
# Where pods and this machine meet.
HOST = "10.243.0.1"
REGISTRY_USER = HTPASSWD.partition(":")[0]
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "careless"}}


@dataclass(frozen=True, kw_only=True)
class KnownStore:
    """A store, as an InferenceEngine names it, and as a person does.

    Attributes:
        spec: `spec.store`.
        uri: of the folder that the namespace has in it.
        variables: with which that is reached.
    """

    spec: Document
    uri: str
    variables: Mapping[str, str]

    def ask(self, tenant: Tenant, *words: str, stdin: str | None = None) -> Document:
        """Return what `enginesmith store` says about it."""
        command = (sys.executable, "-m", "enginesmith_cli.main", "store", *words, "--store", self.uri, "-o", "json")
        done = tenant.cluster.run(*command, stdin=stdin, variables=self.variables)
        assert done.returncode == 0, done.stderr
        found: Document = json.loads(done.stdout)
        return found

    def swept_next_year(self, tenant: Tenant) -> dict[str, Verdict]:
        """Delete what the namespace does not need, as if a year had gone by; return what was said of each pointer."""
        text = tenant.kubectl("get", "inferenceengines,enginebuilds", "-o=json")
        claims = claims_of(read_objects(text, "kubectl"))
        opened = open_store(self.uri, StoreSettings(variables=self.variables))
        report = sweep(opened, claims, Retention(), delete=True, now=time.time() + _YEAR_SECONDS)
        return {one.entry.name: one.verdict for one in report.judgements}


MakeStore = Callable[[str], KnownStore]


@pytest.fixture
def reaching_operator(cluster: Cluster, images: dict[str, str]) -> Iterator[None]:
    """An operator whose pods may reach the services of this machine."""
    settings = {"config": {"addresses": {"allowed": [f"{HOST}/32"]}}}
    with installed_operator(cluster, images, settings=settings):
        yield


@pytest.fixture
def restricted(tenant: Tenant) -> Tenant:
    """The tenant in a namespace that admits restricted pods alone."""
    label = "pod-security.kubernetes.io/enforce=restricted"
    tenant.cluster.kubectl("label", "namespace", tenant.namespace, label)
    return tenant


@pytest.fixture
def claim(tenant: Tenant, tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes the claim `engines` with an access mode; returns the folder, which all nodes of this machine see."""
    folder = tmp_path / "volume"

    def make(mode: str) -> Path:
        have_claim(tenant.cluster, tenant.namespace, folder, mode)
        return folder

    yield make
    volume = f"engines-{tenant.namespace}"
    tenant.cluster.kubectl("delete", "persistentvolume", volume, "--ignore-not-found", "--wait=false")


def have_claim(cluster: Cluster, namespace: str, folder: Path, mode: str) -> None:
    """Make the claim `engines` of the volume `engines-NAMESPACE`, a folder that all nodes of this machine see."""
    folder.mkdir()
    # A folder of the host has no group of the pod's, as a shared volume would.
    folder.chmod(0o777)
    name = f"engines-{namespace}"
    common = {"accessModes": [mode], "storageClassName": ""}
    capacity = {"storage": "1Gi"}
    volume = {
        **common,
        "capacity": capacity,
        "hostPath": {"path": str(folder), "type": "Directory"},
        "claimRef": {"namespace": namespace, "name": "engines"},
    }
    claimed = {**common, "volumeName": name, "resources": {"requests": capacity}}
    where = {"name": "engines", "namespace": namespace}
    cluster.apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": volume},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": where, "spec": claimed},
    )


@pytest.fixture
def registry(tmp_path: Path, cluster: Cluster) -> Iterator[str]:
    """Host and port of a registry that pods reach and that wants a login."""
    assert cluster.registry.startswith(HOST)
    port = free_port("0.0.0.0")  # noqa: S104 - pods reach it
    (tmp_path / "htpasswd").write_text(HTPASSWD, encoding="ascii")
    configuration = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}, "delete": {"enabled": True}},
        "http": {"addr": f"0.0.0.0:{port}"},
        "auth": {"htpasswd": {"realm": "engines", "path": str(tmp_path / "htpasswd")}},
    }
    (tmp_path / "registry.json").write_text(json.dumps(configuration), encoding="utf-8")
    with running([program("registry"), "serve", tmp_path / "registry.json"], port):
        yield f"{HOST}:{port}"


@pytest.fixture
def make_store(request: pytest.FixtureRequest, tenant: Tenant) -> MakeStore:
    """Makes the store of a kind ("pvc", "s3", "oci") with the Secret that it needs."""

    def make(kind: str) -> KnownStore:
        match kind:
            case "pvc":
                folder = request.getfixturevalue("claim")("ReadWriteMany")
                spec = {"claimName": "engines", "subPath": "of/vision"}
                return KnownStore(spec={"pvc": spec}, uri=str(folder / "of/vision"), variables={})
            case "s3":
                return _bucket(tenant)
            case _:
                return repository_store(tenant, request.getfixturevalue("registry"), PASSWORD)

    return make


def _bucket(tenant: Tenant) -> KnownStore:
    s3 = tenant.cluster.s3
    # Another folder of the operator's own bucket would be refused.
    tenant.cluster.files().makedirs("teams", exist_ok=True)
    spec = {
        "bucket": "teams",
        "prefix": "team/",
        "endpoint": s3["AWS_ENDPOINT_URL"],
        "region": s3["AWS_REGION"],
        "secretRef": {"name": "s3"},
    }
    return KnownStore(spec={"s3": spec}, uri=f"s3://teams/team/{tenant.namespace}", variables=s3)


def repository_store(tenant: Tenant, registry: str, password: str) -> KnownStore:
    login = base64.b64encode(f"{REGISTRY_USER}:{password}".encode()).decode()
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "registry", "namespace": tenant.namespace},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": json.dumps({"auths": {registry: {"auth": login}}})},
    }
    tenant.cluster.apply(secret)
    spec = {"repository": f"{registry}/team", "plainHttp": True, "secretRef": {"name": "registry"}}
    account = {"REGISTRY_USERNAME": REGISTRY_USER, "REGISTRY_PASSWORD": PASSWORD}
    return KnownStore(
        spec={"oci": spec},
        uri=f"oci://{registry}/team/{tenant.namespace}",
        variables={**account, "ENGINESMITH_STORE_PLAIN_HTTP": "true"},
    )


@pytest.mark.parametrize("kind", ["pvc", "s3", "oci"])
def test_an_engine_goes_all_the_way_through_a_store_and_is_not_built_again(
    restricted: Tenant, make_store: MakeStore, ocr_models: Path, kind: str
) -> None:
    tenant, store = restricted, make_store(kind)
    tenant.apply(NAME, [CPU], store=store.spec)
    tenant.until_ready(NAME)
    (answer,) = ask_with_tritonclient(NAME, IMAGE_OF_A_LINE, [service_address(tenant, NAME)])
    for name, want in model_answer(ocr_models / "cls.onnx", IMAGE_OF_A_LINE).items():
        np.testing.assert_allclose(answer.outputs[name], want, rtol=1e-3, atol=1e-5)
    (key,) = tenant.target(NAME, "cpu")["serving"]

    (first,) = store.ask(tenant, "list")["engines"]
    assert first["engineKey"] == key
    # A Secret is named, and nobody copies it.
    everything = json.dumps(tenant.get("inferenceengines,enginebuilds,jobs,deployments,pods,events"))
    assert [word for word in (PASSWORD, tenant.cluster.s3["AWS_SECRET_ACCESS_KEY"]) if word in everything] == []
    assert store.swept_next_year(tenant)[f"keys/{key}.json"] is Verdict.CLAIMED

    tenant.kubectl("delete", "inferenceengine", NAME, "--cascade=foreground", "--timeout=300s")
    assert tenant.get("enginebuilds,jobs,deployments,services")["items"] == []
    tenant.apply(NAME, [CPU], store=store.spec)
    tenant.until_ready(NAME)
    target = tenant.target(NAME, "cpu")
    assert target["serving"] == [key]
    assert [(one["stored"], one.get("build")) for one in target["engines"]] == [(True, None)]
    assert tenant.get("enginebuilds")["items"] == []
    assert tenant.condition(NAME, "Built")["message"] == "1 engine is stored"
    assert store.ask(tenant, "list")["engines"] == [first]

    tenant.kubectl("delete", "inferenceengine", NAME, "--cascade=foreground", "--timeout=300s")
    young = store.ask(tenant, "gc", "--no-objects", "--delete")
    assert set(young["pointers"].values()) == {"young"}
    assert set(store.swept_next_year(tenant).values()) == {Verdict.DELETE}
    emptied = store.ask(tenant, "list")
    assert (emptied["engines"], emptied["blobs"]["count"]) == ([], 0)


def test_the_namespace_of_these_tests_admits_no_careless_pod(restricted: Tenant, images: dict[str, str]) -> None:
    spec = {"containers": [{"name": "main", "image": images["enginesmith/runtime"]}]}
    refused = restricted.cluster.run(
        *("kubectl", "-n", restricted.namespace, "create", "-f", "-"), stdin=json.dumps({**POD, "spec": spec})
    )
    assert refused.returncode == 1
    assert "violates PodSecurity" in refused.stderr


def test_a_volume_for_one_node_is_refused_in_words_until_the_pods_keep_to_one(
    restricted: Tenant, claim: Callable[[str], Path]
) -> None:
    claim("ReadWriteOnce")
    store = {"pvc": {"claimName": "engines"}}
    restricted.apply(NAME, [CPU], store=store)
    restricted.until(
        lambda: restricted.condition(NAME, "Prepared").get("reason") == "StoreNotShared", "the claim is refused"
    )
    for kind in ("Prepared", "Ready"):
        message = restricted.condition(NAME, kind)["message"]
        assert "ReadWriteOnce" in message
        assert "ReadWriteMany" in message
        assert "cpu, gpu-a100, gpu-l4" in message
    assert restricted.get("jobs,enginebuilds,deployments")["items"] == []

    restricted.apply(NAME, [CPU], store=store, podTemplate={"nodeSelector": {"kubernetes.io/hostname": "cpu"}})
    restricted.until_ready(NAME)
    assert restricted.target(NAME, "cpu")["nodes"] == ["cpu"]


def test_a_store_that_does_not_know_the_account_is_said_so_and_asked_again(restricted: Tenant, registry: str) -> None:
    store = repository_store(restricted, registry, "another password")
    restricted.apply(NAME, [CPU], store=store.spec)

    def prepared() -> str:
        return str(restricted.condition(NAME, "Prepared").get("message", ""))

    restricted.until(lambda: registry in prepared() and "401" in prepared(), "the registry's refusal is told")
    assert "somebody" not in json.dumps(restricted.get("inferenceengine,jobs,pods"))
    repository_store(restricted, registry, PASSWORD)
    restricted.until_ready(NAME)
