"""Hardware that will not do, on the real cluster: one legible sentence, nothing restarted, nothing written again."""

import pytest
from tests.cluster.access import Cluster
from tests.cluster.engines import Document, Tenant
from tests.cluster.operator_calls import OperatorCalls

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("operator", "hardware")]

L4 = "NVIDIA-L4"
NODE = "gpu-l4"
SERVING = {"name": "l4", "backend": "onnxruntime", "gpu": {"product": L4}}
RTX = {"name": "rtx", "backend": "tensorrt-rtx", "gpu": {"product": L4}}
OLD_DRIVER = {
    "nvidia.com/cuda.driver-version.full": "470.256.02",
    "nvidia.com/cuda.driver-version.major": "470",
    "nvidia.com/cuda.driver-version.minor": "256",
    "nvidia.com/cuda.driver-version.revision": "02",
    "nvidia.com/cuda.driver.major": "470",
    "nvidia.com/cuda.driver.minor": "256",
    "nvidia.com/cuda.driver.rev": "02",
}


def test_an_engine_whose_gpu_does_not_answer_is_built_and_then_refused_once_in_one_sentence(
    cluster: Cluster, tenant: Tenant
) -> None:
    tenant.apply("cls", [RTX])
    tenant.until(lambda: tenant.target("cls", "rtx").get("phase") == "Failed", "the target fails")

    (build,) = tenant.get("enginebuilds")["items"]
    assert (build["status"]["phase"], build["status"]["node"]) == ("Succeeded", NODE)
    assert build["spec"]["request"]["toolchain"]["backend"] == "tensorrt-rtx"
    assert build["status"]["result"]["sizeBytes"] > 100_000
    assert build["status"]["result"]["verification"] == "notRun"
    told = tenant.target("cls", "rtx")
    assert told["reason"] == "NoGpu"
    assert told["message"].startswith(f"on node {NODE}: ")
    assert "\n" not in told["message"]
    for expected in ("sees no GPU", L4, "libcuda.so.1", "device plugin gives pods the GPU"):
        assert expected in told["message"]
    ready = tenant.condition("cls", "Ready")
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", "NoGpu", f"rtx: {told['message']}")

    tenant.until(lambda: _pods(tenant) == [], "its pods are gone")
    (deployment,) = tenant.get("deployments")["items"]
    assert deployment["spec"]["replicas"] == 0
    OperatorCalls(cluster=cluster, namespace=tenant.namespace).until_quiet(quiet_seconds=12)
    assert _pods(tenant) == []
    (event,) = [one for one in tenant.events() if one["reason"] == "NoGpu"]
    assert event["message"] == f"rtx: {told['message']}"
    assert (event.get("count") or 1) == 1
    assert event.get("series") is None


@pytest.mark.extended
def test_a_driver_that_is_too_old_is_named_beside_the_one_that_is_wanted_and_disturbs_nothing_that_serves(
    cluster: Cluster, tenant: Tenant
) -> None:
    labels = cluster.get("node", NODE)["metadata"]["labels"]
    _label(cluster, OLD_DRIVER)
    tenant.apply("cls", [SERVING, RTX])
    tenant.until(lambda: tenant.target("cls", "l4").get("phase") == "Serving", "the other target serves")
    (server,) = _pods(tenant)

    refused = tenant.target("cls", "rtx")
    assert refused["phase"] == "Refused"
    planned = tenant.condition("cls", "Planned")
    assert (planned["status"], planned["reason"]) == ("False", "DriverFloor")
    for message in (refused["message"], planned["message"]):
        for expected in ("DriverFloor: 1 node (gpu-l4): ", "470.256.02", "580"):
            assert expected in message

    _label(cluster, {name: labels[name] for name in OLD_DRIVER})
    tenant.until(lambda: tenant.condition("cls", "Planned").get("status") == "True", "every target has a plan")
    tenant.until(lambda: tenant.get("jobs", "-l=enginesmith.io/target=rtx")["items"], "the build goes on by itself")

    (serving,) = [pod for pod in _pods(tenant) if pod["metadata"]["labels"]["enginesmith.io/target"] == "l4"]
    assert serving["metadata"]["uid"] == server["metadata"]["uid"]
    assert [one["restartCount"] for one in serving["status"]["containerStatuses"]] == [0]
    assert tenant.target("cls", "l4")["phase"] == "Serving"


def _label(cluster: Cluster, labels: dict[str, str]) -> None:
    cluster.kubectl("label", "node", NODE, "--overwrite", *(f"{name}={value}" for name, value in labels.items()))


def _pods(tenant: Tenant) -> list[Document]:
    return list(tenant.get("pods", "-l=app.kubernetes.io/component=server")["items"])
