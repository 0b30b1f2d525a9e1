"""What changes around an engine that serves: news are built in the background, and nothing restarts for nothing."""

import json
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import onnx
import pytest
from tests.cluster.access import Cluster
from tests.cluster.engines import Document, Tenant
from tests.cluster.inference import service_address
from tests.cluster.installation import ROOT, SYSTEM
from tests.cluster.traffic import steady_traffic

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended]

NAME = "cls"
CPU = {"name": "cpu", "backend": "onnxruntime"}
L4 = {"name": "l4", "backend": "onnxruntime", "gpu": {"product": "NVIDIA-L4"}}
SLICE = {
    "name": "slice",
    "backend": "onnxruntime",
    "gpu": {"product": "NVIDIA-A100-SXM4-80GB", "migProfile": "1g.10gb"},
}
CATALOG = ("-n", SYSTEM, "patch", "configmap", "enginesmith-toolchains", "--type=merge", "-p")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def at_rest(tenant: Tenant) -> Document:
    """Return what must stay as it is where nothing restarts: pods, templates, conditions with their times."""
    pods = tenant.get("pods", "--selector=app.kubernetes.io/component=server")["items"]
    deployments = tenant.get("deployments")["items"]
    return {
        "pods": {
            one["metadata"]["uid"]: [each["restartCount"] for each in one["status"]["containerStatuses"]]
            for one in pods
        },
        "deployments": {one["metadata"]["name"]: one["metadata"]["generation"] for one in deployments},
        "conditions": tenant.get("inferenceengine", NAME)["status"]["conditions"],
    }


def see_a_pass(tenant: Tenant, target: str) -> None:
    """Have the operator repair a Service: whatever it heard of before has been acted on by then."""
    service = f"{NAME}-{target}"
    old = tenant.get("service", service)["metadata"]["uid"]
    tenant.kubectl("delete", "service", service)

    def uids() -> list[str]:
        services = tenant.get("services")["items"]
        return [one["metadata"]["uid"] for one in services if one["metadata"]["name"] == service]

    tenant.until(lambda: uids() not in ([], [old]), "a pass repairs what somebody deleted")


@pytest.mark.usefixtures("operator")
def test_a_model_that_changed_at_its_uri_is_built_in_the_background_and_takes_over(
    tenant: Tenant, cluster: Cluster, ocr_models: Path, tmp_path: Path
) -> None:
    uri = f"s3://models/{tenant.namespace}/cls.onnx"
    cluster.upload(ocr_models / "cls.onnx", uri)
    tenant.apply(NAME, [CPU], model=tenant.model | {"uri": uri, "refresh": "1m"})
    tenant.until_ready(NAME)
    before = tenant.get("inferenceengine", NAME)
    changed = onnx.load(ocr_models / "cls.onnx")
    changed.producer_name = "another exporter"
    onnx.save(changed, tmp_path / "changed.onnx")
    with steady_traffic(service_address(tenant, NAME), NAME, tmp_path / "answers") as load:
        tenant.until(load.engines, "the client is answered")
        cluster.upload(tmp_path / "changed.onnx", uri)
        tenant.until(lambda: len(load.engines()) > 1, "the client comes to the engine of the changed model")
        tenant.until_ready(NAME)
    after = tenant.get("inferenceengine", NAME)
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert after["status"]["model"]["digest"] != before["status"]["model"]["digest"]
    assert load.engines() == [one["status"]["targets"][0]["serving"][0] for one in (before, after)]
    assert load.lost() == []


@pytest.mark.usefixtures("operator", "hardware")
def test_a_driver_that_still_passes_and_hardware_that_is_gone_for_a_moment_restart_nothing(
    tenant: Tenant, cluster: Cluster
) -> None:
    tenant.apply(NAME, [L4, SLICE])
    tenant.until_ready(NAME)
    before = at_rest(tenant)
    for change in (_newer_driver, _one_slice_fewer, _no_product_label, _its_labels_are_back):
        change(cluster)
        see_a_pass(tenant, "l4")
        assert at_rest(tenant) == before, change.__name__
    assert len(before["pods"]) == 2


def _newer_driver(cluster: Cluster) -> None:
    labels = {"full": "610.43.02", "major": "610", "minor": "43", "revision": "02"}
    told = [f"nvidia.com/cuda.driver-version.{name}={value}" for name, value in labels.items()]
    cluster.kubectl("label", "node", "gpu-l4", "--overwrite", *told)


def _one_slice_fewer(cluster: Cluster) -> None:
    changed = cluster.run(ROOT / "hack/cluster", "gpus", "gpu-a100", "nvidia.com/mig-1g.10gb=1")
    assert changed.returncode == 0, changed.stderr
    cluster.kubectl("wait", "node/gpu-a100", r"--for=jsonpath={.status.allocatable.nvidia\.com/mig-1g\.10gb}=1")


def _no_product_label(cluster: Cluster) -> None:
    cluster.kubectl("label", "node", "gpu-l4", "nvidia.com/gpu.product-", "nvidia.com/cuda.driver-version.full-")


def _its_labels_are_back(cluster: Cluster) -> None:
    told = ("nvidia.com/gpu.product=NVIDIA-L4", "nvidia.com/cuda.driver-version.full=610.43.02")
    cluster.kubectl("label", "node", "gpu-l4", "--overwrite", *told)


@pytest.mark.usefixtures("sole_operator")
def test_an_operator_that_is_replaced_restarts_no_server_and_writes_nothing(tenant: Tenant, cluster: Cluster) -> None:
    tenant.apply(NAME, [CPU])
    tenant.until_ready(NAME)
    before, versions = at_rest(tenant), _versions(tenant)
    for action in (("restart",), ("status", "--timeout=300s")):
        cluster.kubectl("-n", SYSTEM, "rollout", *action, "deployment/enginesmith-operator")
    see_a_pass(tenant, "cpu")
    assert at_rest(tenant) == before
    assert _versions(tenant) == versions


def _versions(tenant: Tenant) -> dict[str, str]:
    kinds = "inferenceengines,enginebuilds,deployments"
    return {one["metadata"]["uid"]: one["metadata"]["resourceVersion"] for one in tenant.get(kinds)["items"]}


@pytest.fixture
def rebuilt(cluster: Cluster, images: dict[str, str]) -> Iterator[Callable[[], str]]:
    """Adds the runtime's image under another digest to the catalog, and returns that image."""
    name = "a-rebuilt-onnxruntime"
    repository, _, digest = images["enginesmith/runtime"].partition("@")
    manifests = f"/v2/{repository.partition('/')[2]}/manifests"

    def add() -> str:
        registry = HTTPConnection(cluster.registry)
        registry.request("GET", f"{manifests}/{digest}", headers={"Accept": MANIFEST})
        manifest = json.load(registry.getresponse()) | {"annotations": {"rebuilt": "true"}}
        registry.request("PUT", f"{manifests}/rebuilt", json.dumps(manifest), {"Content-Type": MANIFEST})
        answer = registry.getresponse()
        assert answer.status == 201, answer.read()
        image = f"{repository}@{answer.headers['Docker-Content-Digest']}"
        catalog = cluster.get("-n", SYSTEM, "configmap", "enginesmith-toolchains")["data"]
        entry = catalog["onnxruntime-cpu"].replace(images["enginesmith/runtime"], image)
        assert image in entry
        cluster.kubectl(*CATALOG, json.dumps({"data": {name: entry}}))
        return image

    yield add
    cluster.kubectl(*CATALOG, json.dumps({"data": {name: None}}))


@pytest.mark.usefixtures("sole_operator")
def test_a_newer_toolchain_shows_and_moves_nothing_until_the_spec_wants_it(
    tenant: Tenant, rebuilt: Callable[[], str], tmp_path: Path
) -> None:
    tenant.apply(NAME, [CPU])
    tenant.until_ready(NAME)
    before, key = at_rest(tenant), tenant.target(NAME, "cpu")["serving"]
    image = rebuilt()
    tenant.until(lambda: tenant.condition(NAME, "UpdateAvailable").get("status") == "True", "it shows")
    see_a_pass(tenant, "cpu")
    shown = at_rest(tenant)
    with steady_traffic(service_address(tenant, NAME), NAME, tmp_path / "answers") as load:
        tenant.until(load.engines, "the client is answered")
        tenant.apply(NAME, [CPU], toolchain={"update": "auto"})
        tenant.until(lambda: _serving_images(tenant) == {image}, "pods have the other image")
        tenant.until_ready(NAME)
    assert shown["pods"] == before["pods"]
    assert shown["deployments"] == before["deployments"]
    assert "onnxruntime" in next(one["message"] for one in shown["conditions"] if one["type"] == "UpdateAvailable")
    assert tenant.condition(NAME, "UpdateAvailable") == {}
    # ONNX Runtime is the same version, so that its engine serves on in the other image.
    assert tenant.target(NAME, "cpu")["serving"] == key == load.engines()
    assert load.lost() == []


def _serving_images(tenant: Tenant) -> set[str]:
    pods = tenant.get("pods", "--selector=app.kubernetes.io/component=server")["items"]
    return {each["image"] for one in pods for each in one["spec"]["containers"]}


@pytest.mark.usefixtures("operator")
def test_an_autoscaler_owns_the_replicas_and_two_of_them_have_a_disruption_budget(tenant: Tenant) -> None:
    scaled = CPU | {"autoscaling": {"minReplicas": 1, "maxReplicas": 3, "cpuUtilization": 80}}
    pair = {"name": "pair", "backend": "onnxruntime", "replicas": 2}
    tenant.apply(NAME, [scaled, pair])
    tenant.until_ready(NAME)
    deployments = {
        one["metadata"]["labels"]["enginesmith.io/target"]: one["metadata"]["name"]
        for one in tenant.get("deployments")["items"]
    }
    tenant.kubectl("scale", f"deployment/{deployments['cpu']}", "--replicas=2")
    tenant.until(lambda: tenant.target(NAME, "cpu")["readyReplicas"] == 2, "it serves with two replicas")
    see_a_pass(tenant, "cpu")
    tenant.until(lambda: _autoscaler(tenant)["status"].get("currentReplicas") == 2, "the autoscaler has found it")
    assert _autoscaler(tenant)["spec"]["scaleTargetRef"]["name"] == deployments["cpu"]
    assert tenant.get("deployment", deployments["cpu"])["spec"]["replicas"] == 2
    (budget,) = tenant.get("poddisruptionbudgets")["items"]
    assert budget["metadata"]["name"] == deployments["pair"]
    assert (budget["status"]["expectedPods"], budget["status"]["disruptionsAllowed"]) == (2, 1)


def _autoscaler(tenant: Tenant) -> Document:
    (found,) = tenant.get("horizontalpodautoscalers")["items"]
    return dict(found)
