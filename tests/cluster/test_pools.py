"""Pools that have no node now: a build waits for one in words and in a way that an autoscaler understands."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.access import Cluster
from tests.cluster.engines import Document, Tenant
from tests.cluster.installation import installed_operator

from enginesmith_contract.termination import BuildOutcome, TerminationMessage

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.extended]

ROOT = Path(__file__).resolve().parents[2]
NAME = "cls"
POOL = {"pool.example/gpu": "t4"}
# Nodes without a kubelet carry it, so that nothing gets there by accident.
SIMULATED = {"key": "enginesmith.io/simulated", "value": "true", "effect": "NoSchedule"}
CLASS = {
    "name": "t4",
    "selector": POOL,
    "product": "Tesla-T4",
    "memoryMib": 15360,
    "driver": "570.172.08",
    "gpus": 4,
    "taints": [SIMULATED],
}
T4 = {"name": "t4", "backend": "onnxruntime", "gpu": {"product": "Tesla-T4"}}
LAST_WORD = "enginesmith.io/simulated-termination-message"


@pytest.fixture
def pool(cluster: Cluster, images: dict[str, str]) -> Iterator[None]:
    """An operator that is told of a pool of T4, of which no node is there."""
    with installed_operator(cluster, images, settings={"config": {"nodeClasses": [CLASS]}}):
        yield


@pytest.mark.usefixtures("pool", "hardware")
def test_a_build_waits_for_a_node_of_its_pool_and_goes_on_when_one_joins(tenant: Tenant) -> None:
    tolerated = [{**SIMULATED, "operator": "Equal"}]
    tenant.apply(NAME, [T4], podTemplate={"tolerations": tolerated})
    tenant.until(lambda: tenant.condition(NAME, "NodesMissing"), "nodes are missing")
    tenant.until(lambda: _build(tenant).get("status", {}).get("phase") == "Pending", "the build waits")
    build = _build(tenant)
    tenant.until(lambda: "WaitingForGPU" in json.dumps(tenant.target(NAME, "t4")), "it waits for a GPU")
    missing = tenant.condition(NAME, "NodesMissing")
    assert missing["status"] == "True"
    assert "t4" in missing["message"]

    # What an autoscaler looks at: a pod that fits no node, and says which one it would fit.
    (pod,) = _pods_of(tenant, build["metadata"]["name"])
    assert pod["status"]["phase"] == "Pending"
    assert "nodeName" not in pod["spec"]
    affinity = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    ((wanted, _),) = [one["matchExpressions"] for one in affinity["nodeSelectorTerms"]]
    assert wanted == {"key": "pool.example/gpu", "operator": "In", "values": ["t4"]}
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"

    # Nothing runs on a simulated node, so that the builder's word is put into its mouth.
    word = TerminationMessage(outcome=BuildOutcome.SUCCEEDED, exit_code=0, engine_digest="ab" * 32)
    tenant.kubectl("annotate", "pod", pod["metadata"]["name"], f"{LAST_WORD}={word.to_json().decode()}")
    joined = _join(tenant.cluster)
    tenant.until(lambda: _build(tenant)["status"].get("phase") == "Succeeded", "the build goes on")
    assert _build(tenant)["status"]["node"] == joined
    tenant.until_ready(NAME)
    assert tenant.target(NAME, "t4")["nodes"] == [joined]
    assert tenant.condition(NAME, "NodesMissing") == {}


def _join(cluster: Cluster) -> str:
    """Let machines of several kinds join, and the one with T4 be of the pool; return its name."""
    added = cluster.run(ROOT / "hack/cluster", "nodes", "3")
    assert added.returncode == 0, added.stderr
    (name,) = cluster.kubectl(
        *("get", "nodes", "--selector=enginesmith.io/simulated=true,nvidia.com/gpu.product=Tesla-T4"),
        "-o=jsonpath={.items[*].metadata.name}",
    ).split()
    cluster.kubectl("label", "node", name, *(f"{label}={value}" for label, value in POOL.items()))
    return name


def _build(tenant: Tenant) -> Document:
    found = tenant.get("enginebuilds")["items"]
    return dict(found[0]) if found else {}


def _pods_of(tenant: Tenant, job: str) -> list[Document]:
    return list(tenant.get("pods", f"--selector=batch.kubernetes.io/job-name={job}")["items"])
