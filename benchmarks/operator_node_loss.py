"""What a client sees when the node of the only serving pod is lost, and how soon another node serves.

Usage: python -m benchmarks.operator_node_loss

`stop`: the node's kubelet stops and its pods continue to run; `kill`: the whole node ends at once. The client asks 60
times a second over one connection, without retries, with a deadline of 20 s for each request. A lost node is noticed
after 16 to 24 s on the development cluster, and its pods are given up 30 s later.
"""

import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.measure import write_record
from tests.cluster.engines import new_namespace, new_tenant
from tests.cluster.installation import hardware_to_oneself, installed_operator, load_images, open_cluster
from tests.cluster.node_loss import NodeLoss, lose_node, serve_on_two_nodes


def _figures(loss: NodeLoss) -> dict[str, object]:
    answers, errors = loss.traffic.answers(), loss.traffic.errors()
    return {
        "seconds until a pod on another node was ready": round(loss.moved_seconds, 1),
        "seconds until the client had its last error": round(loss.healed_seconds, 1) if errors else None,
        "longest time without an answer, seconds": round(loss.traffic.gap_seconds(), 1),
        "requests": len(answers),
        "errors": dict(Counter(one.code for one in errors)),
    }


def main() -> None:
    """Measure, print, keep the record."""
    cluster = open_cluster()
    figures: dict[str, object] = {}
    with (
        installed_operator(cluster, load_images(cluster), alone=True),
        hardware_to_oneself(cluster),
        tempfile.TemporaryDirectory() as folder,
    ):
        for how in ("stop", "kill"):
            with new_namespace(cluster) as namespace, new_tenant(cluster, namespace) as tenant:
                serve_on_two_nodes(tenant)
                figures[how] = _figures(lose_node(tenant, how, Path(folder) / how))
    write_record("operator_node_loss", figures)


if __name__ == "__main__":
    main()
