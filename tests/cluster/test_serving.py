"""InferenceEngines on the real cluster: what is built and scheduled where, and what their clients get."""

from collections.abc import Collection, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.cluster.access import Cluster
from tests.cluster.engines import Document, Tenant
from tests.cluster.inference import TritonAnswer, ask_with_tritonclient, model_answer, service_address

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("operator", "hardware")]

ROOT = Path(__file__).resolve().parents[2]
A100, L4, H100 = "NVIDIA-A100-SXM4-80GB", "NVIDIA-L4", "NVIDIA-H100-80GB-HBM3"
NODES = {A100: "gpu-a100", L4: "gpu-l4"}
PRODUCTS = {"a100": A100, "l4": L4}
GPUS = [{"name": name, "backend": "onnxruntime", "gpu": {"product": product}} for name, product in PRODUCTS.items()]
STANDBY = {"name": "cpu", "backend": "onnxruntime", "standby": True}
IMAGES = np.random.default_rng(7).random((3, 3, 48, 192), np.float32)


def test_each_gpu_product_is_built_for_and_served_on_its_own_node_and_one_that_no_node_has_is_refused(
    tenant: Tenant,
) -> None:
    absent = {"name": "h100", "backend": "onnxruntime", "gpu": {"product": H100}}
    tenant.apply("cls", [*GPUS, absent, STANDBY])
    _until_serving(tenant, "a100", "l4")

    for target, product in PRODUCTS.items():
        (serving,), (building,) = _pods(tenant, target, "server"), _pods(tenant, target, "build")
        for pod in (serving, building):
            assert _required_products(pod["spec"]) == [product]
            assert _gpus(pod) == {"nvidia.com/gpu": "1"}
            assert _scheduler_chose(tenant, pod) == pod["spec"]["nodeName"] == NODES[product]
        told = tenant.target("cls", target)
        assert told["nodes"] == [NODES[product]]
        (build,) = tenant.get("enginebuilds", f"-l=enginesmith.io/target={target}")["items"]
        assert build["status"]["node"] == NODES[product]
        assert build["spec"]["request"]["engineKey"] == told["serving"][0]
    assert len({_key(tenant, target) for target in ("a100", "l4", "cpu")}) == 3

    refused = tenant.target("cls", "h100")
    assert refused["phase"] == "Refused"
    assert refused["message"].startswith("ProductDiffers: 2 nodes (gpu-a100, gpu-l4): ")
    for expected in (f"its GPU is {A100}", f"its GPU is {L4}", H100, "NoGpu: 1 node (cpu)"):
        assert expected in refused["message"]
    planned = tenant.condition("cls", "Planned")
    assert (planned["status"], planned["reason"]) == ("False", "ProductDiffers")
    assert planned["message"].startswith("1 of 4 targets have no plan; h100: ProductDiffers: 2 nodes")
    assert _pods(tenant, "h100", "build") == []

    tenant.until(lambda: tenant.target("cls", "cpu").get("phase") == "Standby", "the standby rests")
    assert _replicas(tenant, "cpu") == 0


def test_clients_are_answered_by_the_target_they_ask_and_by_the_standby_while_no_gpu_is_left(
    cluster: Cluster, tenant: Tenant, ocr_models: Path
) -> None:
    tenant.apply("cls", [*GPUS, STANDBY])
    tenant.until_ready("cls")
    addresses = {name: service_address(tenant, name) for name in ("cls", "cls-a100", "cls-l4")}
    keys = {target: _key(tenant, target) for target in ("a100", "l4", "cpu")}

    # The standby served first. Its pod is a target of the Service until the nodes' proxies have read that it leaves.
    tenant.until(lambda: tenant.target("cls", "cpu").get("phase") == "Standby", "the standby rests")
    _until_answered_by(tenant, ocr_models, addresses["cls"], {keys["a100"], keys["l4"]})
    of_a100, of_l4 = _ask(ocr_models, [addresses["cls-a100"], addresses["cls-l4"]])
    assert (of_a100["enginesmith-target"], of_a100["enginesmith-engine"]) == ("a100", keys["a100"])
    assert (of_l4["enginesmith-target"], of_l4["enginesmith-engine"]) == ("l4", keys["l4"])

    (told,) = ask_with_tritonclient("cls", {"x": IMAGES[:, :, :32]}, [addresses["cls"]])
    assert told.refusal.startswith("StatusCode.INVALID_ARGUMENT: ")
    for expected in ("x", "32", "48", "line-start"):
        assert expected in told.refusal

    for node in NODES.values():
        _offer_gpus(cluster, node, "nvidia.com/gpu=0")
        tenant.until(partial(_has_none, cluster, node), f"{node} has no GPU")
    tenant.kubectl("delete", "pods", "--selector=enginesmith.io/target in (a100, l4)", "--wait=false")
    tenant.until(lambda: tenant.target("cls", "cpu").get("phase") == "Serving", "the standby serves")
    _until_answered_by(tenant, ocr_models, addresses["cls"], {keys["cpu"]})

    for node in NODES.values():
        _offer_gpus(cluster, node)
    _until_serving(tenant, "a100", "l4")
    tenant.until(lambda: tenant.target("cls", "cpu").get("phase") == "Standby", "the standby rests again")
    assert _replicas(tenant, "cpu") == 0
    assert {target: _key(tenant, target) for target in keys} == keys


@pytest.mark.extended
def test_a_target_of_several_products_has_an_engine_for_each_and_a_slice_is_a_product_of_its_own(
    tenant: Tenant,
) -> None:
    several = {"name": "any", "backend": "onnxruntime", "gpu": {"minMemory": "20Gi"}, "replicas": 0}
    whole = {"name": "ampere", "backend": "onnxruntime", "gpu": {"computeCapability": "8.0"}}
    part = {"name": "part", "backend": "onnxruntime", "gpu": {"product": A100, "migProfile": "1g.10gb"}}
    tenant.apply("cls", [several, whole, part])
    _until_serving(tenant, "ampere", "part")
    tenant.until(lambda: tenant.condition("cls", "Built").get("status") == "True", "every engine is stored")

    engines = tenant.target("cls", "any")["engines"]
    assert {one["product"]: one["stored"] for one in engines} == {A100: True, L4: True}
    keys = {one["key"] for one in engines}
    assert len(keys) == 2
    assert _key(tenant, "ampere") in keys
    assert _key(tenant, "part") not in keys
    tenant.until(lambda: tenant.target("cls", "any").get("phase") == "Idle", "0 replicas are asked for")
    (deployment,) = tenant.get("deployments", "-l=enginesmith.io/target=any")["items"]
    assert _required_products(deployment["spec"]["template"]["spec"]) == [A100, L4]

    (serving,), (building,) = _pods(tenant, "part", "server"), _pods(tenant, "part", "build")
    for pod in (serving, building):
        assert _gpus(pod) == {"nvidia.com/mig-1g.10gb": "1"}
        assert pod["spec"]["nodeName"] == NODES[A100]
    (answer,) = ask_with_tritonclient("cls", {"x": IMAGES}, [service_address(tenant, "cls-part")])
    assert answer.headers["enginesmith-engine"] == _key(tenant, "part")


def _ask(models: Path, addresses: Iterable[str]) -> list[dict[str, str]]:
    """Have tritonclient infer at each address; return the answers' headers, once the answers are the model's own."""
    return [_checked(models, answer) for answer in ask_with_tritonclient("cls", {"x": IMAGES}, addresses)]


def _checked(models: Path, answer: TritonAnswer) -> dict[str, str]:
    """Return an answer's headers; it must be the model's own."""
    wanted = model_answer(models / "cls.onnx", {"x": IMAGES})
    assert answer.refusal == ""
    assert answer.outputs.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(answer.outputs[name], values, rtol=1e-4, atol=1e-6)
    return dict(answer.headers)


def _until_answered_by(tenant: Tenant, models: Path, address: str, engines: Collection[str]) -> None:
    """Wait until one of the engines answers at the address; each answer until then is the model's own as well.

    A request may meet a pod that ends, as long as the node's proxy has not heard of it.
    """

    def is_answered() -> bool:
        (answer,) = ask_with_tritonclient("cls", {"x": IMAGES}, [address])
        if answer.refusal.startswith("StatusCode.UNAVAILABLE"):
            return False
        return _checked(models, answer)["enginesmith-engine"] in engines

    tenant.until(is_answered, f"{address} is answered by {engines}")


def _until_serving(tenant: Tenant, *targets: str) -> None:
    def serve() -> bool:
        return all(tenant.target("cls", target).get("phase") == "Serving" for target in targets)

    tenant.until(serve, f"{' and '.join(targets)} serve")


def _key(tenant: Tenant, target: str) -> str:
    """Return the key of the one engine that a target wants."""
    (key,) = tenant.target("cls", target)["desired"]
    return str(key)


def _pods(tenant: Tenant, target: str, component: str) -> list[Document]:
    labels = f"enginesmith.io/target={target},app.kubernetes.io/component={component}"
    return list(tenant.get("pods", f"-l={labels}")["items"])


def _required_products(pod: Document) -> list[str]:
    """Return the GPU products that a pod's node must have one of."""
    required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"]
    (values,) = [one["values"] for one in term["matchExpressions"] if one["key"] == "nvidia.com/gpu.product"]
    return list(values)


def _gpus(pod: Document) -> dict[str, str]:
    (container,) = pod["spec"]["containers"]
    limits = container["resources"]["limits"]
    return {name: count for name, count in limits.items() if name.startswith("nvidia.com/")}


def _scheduler_chose(tenant: Tenant, pod: Document) -> str:
    """Return the node that the scheduler says it chose."""
    about = f"involvedObject.uid={pod['metadata']['uid']},reason=Scheduled"
    (event,) = tenant.get("events", f"--field-selector={about}")["items"]
    assert event.get("reportingComponent") == "default-scheduler"
    return str(event["message"].rpartition(" ")[2])


def _replicas(tenant: Tenant, target: str) -> int:
    (deployment,) = tenant.get("deployments", f"-l=enginesmith.io/target={target}")["items"]
    return int(deployment["spec"]["replicas"])


def _offer_gpus(cluster: Cluster, node: str, *counts: str) -> None:
    """Change how many GPUs a node's device plugin offers; without counts all are back."""
    done = cluster.run(ROOT / "hack/cluster", "gpus", node, *counts)
    assert done.returncode == 0, done.stdout + done.stderr


def _has_none(cluster: Cluster, node: str) -> bool:
    return _allocatable(cluster, node) == "0"


def _allocatable(cluster: Cluster, node: str) -> str:
    return str(cluster.get("node", node)["status"]["allocatable"]["nvidia.com/gpu"])
