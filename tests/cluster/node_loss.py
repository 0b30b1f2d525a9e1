"""A node that is lost under a serving pod, and what a client of the Service saw; for the test and the benchmark."""

import time
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.engines import Document, Tenant
from tests.cluster.installation import ROOT
from tests.cluster.traffic import Traffic, steady_traffic

from enginesmith_operator.objects.labels import ENGINE

__all__ = ["ENGINE_NAME", "NodeLoss", "lose_node", "serve_on_two_nodes"]

ENGINE_NAME = "moving"
_PORT = 8001
_STEADY_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class NodeLoss:
    """What came of the loss.

    Attributes:
        lost: name of the node.
        taken: name of the node that serves since.
        moved_seconds: from the loss until a pod on another node was Ready.
        healed_seconds: from the loss until the client's answers were all good again.
        traffic: of one client on one connection, from before the loss.
    """

    lost: str
    taken: str
    moved_seconds: float
    healed_seconds: float
    traffic: Traffic


def serve_on_two_nodes(tenant: Tenant) -> None:
    """Have one replica on a CPU of either GPU node: nothing else that the cluster needs runs there."""
    pods = {
        "nodeSelector": {"nvidia.com/gpu.present": "true"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    }
    tenant.apply(ENGINE_NAME, [{"name": "cpu", "backend": "onnxruntime"}], podTemplate=pods)
    tenant.until_ready(ENGINE_NAME)


def lose_node(tenant: Tenant, how: str, log: Path) -> NodeLoss:
    """Lose the node of the engine's pod while a client asks, wait until another one serves; the node is back then.

    Args:
        tenant: whose engine it is.
        how: `stop` for the kubelet alone, `kill` for all that runs on the node.
        log: of the client's answers.
    """
    (node,) = tenant.until(lambda: _serving_nodes(tenant), "a node serves")
    service = tenant.get("service", ENGINE_NAME)["spec"]["clusterIP"]
    with steady_traffic(f"{service}:{_PORT}", ENGINE_NAME, log) as traffic:
        tenant.until(lambda: _answers_well(traffic), "the engine answers")
        try:
            _node(tenant, node, how)
            # The command may have waited for others that change the cluster.
            lost_at = time.monotonic()
            (taken,) = tenant.until(lambda: _serving_nodes(tenant) - {node}, "another node serves")
            moved_at = time.monotonic()
            tenant.until(lambda: _answers_well(traffic), "the engine answers again")
            healed_at = max((one.answered for one in traffic.errors()), default=lost_at)
        finally:
            _node(tenant, node, "start")
    return NodeLoss(
        lost=node,
        taken=taken,
        moved_seconds=moved_at - lost_at,
        healed_seconds=healed_at - lost_at,
        traffic=traffic,
    )


def _node(tenant: Tenant, name: str, action: str) -> None:
    done = tenant.cluster.run(ROOT / "hack/cluster", "node", name, action)
    assert done.returncode == 0, done.stdout + done.stderr


def _serving_nodes(tenant: Tenant) -> set[str]:
    pods: list[Document] = tenant.get("pods", f"--selector={ENGINE}={ENGINE_NAME}")["items"]
    return {
        pod["spec"]["nodeName"]
        for pod in pods
        for condition in pod["status"].get("conditions", ())
        if (condition["type"], condition["status"]) == ("Ready", "True") and "deletionTimestamp" not in pod["metadata"]
    }


def _answers_well(traffic: Traffic) -> bool:
    """Whether no request of the last seconds was lost, and some were answered."""
    since = time.monotonic() - _STEADY_SECONDS
    good = [one for one in traffic.answers() if one.is_good]
    latest = [one for one in good if one.answered > since]
    return 0 < len(latest) < len(good) and not any(one.answered > since for one in traffic.lost())
