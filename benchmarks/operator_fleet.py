"""The first roll-out of a thousand InferenceEngines with three targets each on 200 nodes: how fast, and what bounds it.

Usage: python -m benchmarks.operator_fleet [--engines 1000] [--nodes 200]

The operator is the installed one, the API server, its controllers and the scheduler are real; nodes are objects that
KWOK keeps, and `fake_pods` says what pods would. kube-proxy is paused: it would write the rules of
5,000 Services again at every change. That is a node's work, and here it would take half a processor from the rest. With
everything in place the restart is measured too (`operator_restart`), since making the fleet takes the longest.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from benchmarks.fake_pods import FAKED, forget_fake_pods, have_fake_pods
from benchmarks.measure import write_record
from benchmarks.operator_cluster import (
    OPERATOR_USER,
    AuditTail,
    cpu_seconds,
    machinery,
    replicas,
    spent_since,
    writes_of,
)
from benchmarks.operator_restart import measure_restart
from tests.cluster.access import Cluster
from tests.cluster.engines import LINES, Document, s3_secret
from tests.cluster.installation import ROOT, hardware_to_oneself, installed_operator, load_images, open_cluster

__all__ = ["Fleet", "fleet"]

_NAMESPACES = 10
_PRODUCTS = ("NVIDIA-L4", "NVIDIA-A100-SXM4-80GB", "Tesla-T4", "NVIDIA-H100-80GB-HBM3")
_TARGETS = 3
# More than a machine has: 3,000 servers are to find room on 200 nodes.
_GPUS_PER_NODE = 20
_BATCH = 100
_QUIET_SECONDS = 10.0
_STUCK_SECONDS = 240.0


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Simulated nodes, and namespaces with engines that run on them."""

    cluster: Cluster
    engines: int
    namespaces: tuple[str, ...]

    def apply(self) -> None:
        """Create all engines."""
        documents = iter([self._document(number) for number in range(self.engines)])
        while batch := list(islice(documents, _BATCH)):
            items = {"apiVersion": "v1", "kind": "List", "items": batch}
            self.cluster.kubectl("create", "-f", "-", stdin=json.dumps(items))

    def objects(self) -> dict[str, int]:
        """Return how many objects of each kind there are in its namespaces."""
        kinds = ("enginebuilds", "jobs", "deployments", "services", "pods")
        return {
            kind: sum(
                len(self.cluster.kubectl("-n", namespace, "get", kind, "-o=name").split())
                for namespace in self.namespaces
            )
            for kind in kinds
        }

    def _document(self, number: int) -> Document:
        products = [_PRODUCTS[(number + offset) % len(_PRODUCTS)] for offset in range(_TARGETS)]
        endpoint = self.cluster.s3["AWS_ENDPOINT_URL"]
        model = {
            "uri": "s3://models/ocr/cls.onnx",
            "options": {"endpoint": endpoint, "region": "us-east-1"},
            "secretRef": {"name": "s3"},
        }
        targets = [
            {"name": product.split("-")[1].lower(), "backend": "onnxruntime", "gpu": {"product": product}}
            for product in products
        ]
        template = {
            "nodeSelector": {"enginesmith.io/simulated": "true"},
            "tolerations": [{"key": "enginesmith.io/simulated", "operator": "Exists"}],
        }
        return {
            "apiVersion": "enginesmith.io/v1alpha1",
            "kind": "InferenceEngine",
            "metadata": {"name": f"fleet-{number:04}", "namespace": self.namespaces[number % len(self.namespaces)]},
            "spec": {"model": model, "profiles": LINES, "targets": targets, "podTemplate": template},
        }


@contextmanager
def _kube_proxy_paused() -> Iterator[None]:
    numbers = subprocess.run(["pgrep", "-x", "kube-proxy"], capture_output=True, text=True, check=True).stdout.split()
    for number in numbers:
        os.kill(int(number), signal.SIGSTOP)
    try:
        yield
    finally:
        for number in numbers:
            os.kill(int(number), signal.SIGCONT)


@contextmanager
def fleet(cluster: Cluster, *, engines: int, nodes: int) -> Iterator[Fleet]:
    """Have nodes and namespaces for a fleet; all of it is gone afterwards."""
    namespaces = tuple(f"fleet-{number}" for number in range(_NAMESPACES))
    with hardware_to_oneself(cluster):
        made = cluster.run(ROOT / "hack/cluster", "nodes", str(nodes))
        assert made.returncode == 0, made.stdout + made.stderr
        _give_gpus(cluster)
        have_fake_pods(cluster)
        for name in namespaces:
            cluster.apply(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": FAKED}},
                s3_secret(cluster, name),
            )
        try:
            yield Fleet(cluster=cluster, engines=engines, namespaces=namespaces)
        finally:
            cluster.kubectl("delete", "namespaces", *namespaces, "--timeout=1200s")
            forget_fake_pods(cluster)


def _give_gpus(cluster: Cluster) -> None:
    selector = "--selector=enginesmith.io/simulated=true"
    cluster.kubectl("label", "nodes", selector, f"nvidia.com/gpu.count={_GPUS_PER_NODE}", "--overwrite")
    nodes = cluster.get("nodes", selector)["items"]
    count = {"nvidia.com/gpu": str(_GPUS_PER_NODE)}
    items = [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": node["metadata"]["name"]},
            "status": {"capacity": count, "allocatable": count},
        }
        for node in nodes
    ]
    options = ("--server-side", "--force-conflicts", "--subresource=status", "--field-manager=fleet")
    document = {"apiVersion": "v1", "kind": "List", "items": items}
    cluster.kubectl("apply", *options, "-f", "-", stdin=json.dumps(document))


def roll_out(made: Fleet) -> dict[str, object]:
    """Create all engines, wait until all are Ready and writes have stopped; return the figures."""
    leader, *followers = replicas(made.cluster)
    ready_before = _ready(leader.metrics())
    audit = AuditTail(made.cluster.audit_log, OPERATOR_USER)
    spent, own = machinery(), cpu_seconds(leader.pid)
    begin = time.time()
    made.apply()
    created = time.time() - begin
    counted: Counter[str] = Counter()
    last, all_ready = begin, 0.0
    while not all_ready or time.time() - last < _QUIET_SECONDS:
        for one in writes_of(audit.read()):
            counted[one.text] += 1
            last = one.answered_at
        if not all_ready and _ready(leader.metrics()) - ready_before >= made.engines:
            all_ready = time.time() - begin
        assert time.time() - last < _STUCK_SECONDS, f"not all engines are Ready: {leader.metrics()}"
        time.sleep(1)
    took = last - begin
    # Until now, quiet seconds included: their share of the figures is small.
    used = spent_since(spent)
    used["operator"] = cpu_seconds(leader.pid) - own
    return {
        "engines": made.engines,
        "targets of each": _TARGETS,
        "nodes": len(made.cluster.get("nodes", "--selector=enginesmith.io/simulated=true")["items"]),
        "objects": made.objects(),
        "seconds to create the engines": round(created, 1),
        "seconds until all are Ready": round(all_ready, 1),
        "seconds until the last write": round(took, 1),
        "writes": counted.total(),
        "writes per second": round(counted.total() / took, 1),
        "writes by kind": dict(counted.most_common()),
        "processor seconds": {name: round(seconds, 1) for name, seconds in sorted(used.items(), key=lambda x: -x[1])},
        "processors in use": round(sum(used.values()) / took, 2),
        "peak memory in MB": {
            "leader": round(leader.peak_bytes / 1e6),
            "followers": [round(one.peak_bytes / 1e6) for one in followers],
        },
    }


def _ready(metrics: dict[str, float]) -> int:
    return int(metrics['enginesmith_engines{ready="True"}'])


def main() -> None:
    """Measure, print, keep the records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=200)
    options = parser.parse_args()
    cluster = open_cluster()
    images = load_images(cluster)
    with (
        installed_operator(cluster, images, alone=True),
        _kube_proxy_paused(),
        fleet(cluster, engines=options.engines, nodes=options.nodes) as made,
    ):
        write_record("operator_fleet", roll_out(made))
        command = f"python -m benchmarks.operator_fleet {' '.join(sys.argv[1:])}".strip()
        fleet_now = {"command": command, "engines": made.engines, "objects": made.objects()}
        write_record("operator_restart", fleet_now | measure_restart(cluster))


if __name__ == "__main__":
    main()
