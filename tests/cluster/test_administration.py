"""What an administrator decides for all namespaces: whether they share a store, which plugin libraries are loaded."""

import json
import uuid
from collections.abc import Iterator
from functools import partial

import pytest
from tests.cluster.access import Cluster
from tests.cluster.engines import Document, Tenant, s3_secret
from tests.cluster.installation import installed_operator

from enginesmith_contract.backends import Backend, Toolchain
from enginesmith_contract.build_request import BuildOptions, BuildRequest, PluginLibrary
from enginesmith_contract.keys import engine_key

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended]

NAME = "cls"
CPU = {"name": "cpu", "backend": "onnxruntime"}
ALLOWED, FORBIDDEN = "ab" * 32, "cd" * 32
EVERYWHERE = {"name": "ENGINESMITH_PLUGINS_ALLOWED", "value": "http://"}


@pytest.fixture
def shared_store(cluster: Cluster, images: dict[str, str]) -> Iterator[None]:
    """An operator whose namespaces share one store, which is empty, and which allows one plugin library."""
    bucket = {
        "bucket": "engines",
        "prefix": f"shared/{uuid.uuid4().hex[:10]}",
        "endpoint": cluster.s3["AWS_ENDPOINT_URL"],
        "region": cluster.s3["AWS_REGION"],
        "secretRef": {"name": "s3"},
    }
    store = {"shared": True, "default": {"s3": bucket}}
    # Plugins are looked for in the registry.
    config = {"allowedPlugins": [ALLOWED], "addresses": {"allowed": [f"{cluster.registry.partition(':')[0]}/32"]}}
    with installed_operator(cluster, images, settings={"store": store, "config": config}):
        yield


@pytest.fixture
def neighbour(cluster: Cluster, tenant: Tenant) -> Iterator[Tenant]:
    """Another namespace with an account for the S3 server."""
    other = Tenant(cluster=cluster, namespace=f"{tenant.namespace}-b", model=tenant.model)
    cluster.kubectl("create", "namespace", other.namespace)
    cluster.apply(s3_secret(cluster, other.namespace))
    yield other
    cluster.kubectl("delete", "namespace", other.namespace, "--wait=false")


@pytest.mark.usefixtures("shared_store")
def test_namespaces_share_a_store_and_the_list_of_plugin_libraries_holds_in_both(
    tenant: Tenant, neighbour: Tenant
) -> None:
    tenant.apply(NAME, [CPU])
    tenant.until_ready(NAME)
    neighbour.apply(NAME, [CPU])
    neighbour.until_ready(NAME)
    assert neighbour.target(NAME, "cpu")["serving"] == tenant.target(NAME, "cpu")["serving"]
    assert neighbour.get("enginebuilds")["items"] == []

    (built,) = tenant.get("enginebuilds")["items"]
    for digest, want in ((FORBIDDEN, "PluginNotAllowed"), (ALLOWED, "PluginMissing")):
        by_hand = _with_plugin(built, f"http://{tenant.cluster.registry}/{digest[:4]}.so", digest)
        tenant.cluster.apply(by_hand)
        name = by_hand["metadata"]["name"]
        tenant.until(partial(_has_failed, tenant, name), f"{name} has failed")
        status = tenant.get("enginebuild", name)["status"]
        assert status["failure"]["reason"] == want
        assert digest[:12] in status["failure"]["message"] or want != "PluginNotAllowed"

    plugins = [{"uri": "s3://models/none.so", "sha256": FORBIDDEN}]
    neighbour.apply(NAME, [CPU], build={"plugins": plugins})
    neighbour.until(
        lambda: neighbour.condition(NAME, "UpToDate").get("reason") == "PluginNotAllowed", "the library is refused"
    )
    assert neighbour.condition(NAME, "Ready")["status"] == "True"


def _with_plugin(built: Document, uri: str, digest: str) -> Document:
    """Return an EngineBuild as somebody would write it who wants a library that the InferenceEngine may not have."""
    request = BuildRequest.from_json(json.dumps(built["spec"]["request"]))
    inputs = request.key_inputs.model_copy(
        update={"backend": Backend.TENSORRT, "backend_version": "10.13.3", "provider": None, "plugins": (digest,)}
    )
    plugin = PluginLibrary(uri=uri, sha256=digest)
    asked = request.model_copy(
        update={
            "key_inputs": inputs,
            "engine_key": engine_key(inputs),
            "toolchain": Toolchain(name="trt", backend=Backend.TENSORRT, version="10.13.3", cuda="12.9"),
            "options": BuildOptions(plugins=(plugin,)),
        }
    )
    placement = {**built["spec"]["placement"], "env": [EVERYWHERE]}
    return {
        "apiVersion": built["apiVersion"],
        "kind": built["kind"],
        "metadata": {"name": f"by-hand-{digest[:4]}", "namespace": built["metadata"]["namespace"]},
        "spec": {
            **built["spec"],
            "request": json.loads(asked.to_json()),
            "placement": placement,
            "backoffLimit": 0,
        },
    }


def _has_failed(tenant: Tenant, name: str) -> bool:
    return _phase(tenant, name) == "Failed"


def _phase(tenant: Tenant, name: str) -> str:
    return str((tenant.get("enginebuild", name).get("status") or {}).get("phase", ""))
