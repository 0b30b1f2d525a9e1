"""The GPUs of nodes: labels and a device plugin.

Simulated hardware has labels as GPU Feature Discovery writes them, and its own device plugin. Real GPUs
have NVIDIA's programs.
"""

import hashlib
import json
from pathlib import Path
from typing import Final

from development_cluster import daemons
from development_cluster.commands import run
from development_cluster.daemons import Daemon
from development_cluster.errors import ClusterError
from development_cluster.layout import ROOT, Layout
from development_cluster.node_specs import NodeSpec
from development_cluster.programs import kubectl, tools_cache
from development_cluster.real_gpus import plugin_command, replicas, write_labels

__all__ = ["all_gpus", "build_plugin", "label_node", "offer_gpus", "start_gpus", "wait_for_gpus"]

_PLUGIN: Final = ROOT / "tests" / "cluster" / "fake_device_plugin"


def label_node(layout: Layout, node: NodeSpec) -> None:
    """Put the node's labels back to what they are here, whatever a test made of them."""
    labels = write_labels(layout, node) if node.real else node.labels
    if labels.exists():
        manager = ["--server-side", "--force-conflicts", "--field-manager=nfd-master"]
        kubectl(layout, "apply", *manager, "-f", labels)


def start_gpus(layout: Layout, node: NodeSpec) -> bool:
    """Run the device plugin in the node with all that the node has, unless it runs; return whether it was started."""
    if not node.gpus or daemons.running(layout, _name(node)):
        return False
    first = daemons.running(layout, node.name)
    if first is None:
        raise ClusterError(f"node {node.name} does not run")
    if node.real:
        command = plugin_command(layout, node)
    else:
        offer_gpus(layout, node, all_gpus(layout, node))
        command = [build_plugin(), _offer(layout, node)]
    return daemons.start(layout, Daemon(name=_name(node), command=command, node_pid=first.pid))


def all_gpus(layout: Layout, node: NodeSpec) -> dict[str, int]:
    """Return how many devices of each resource the node has when nothing is withdrawn."""
    times = replicas(layout, node) if node.real else 1
    return {resource: times * len(devices) for resource, devices in node.gpus.items()}


def offer_gpus(layout: Layout, node: NodeSpec, counts: dict[str, int]) -> None:
    """Change how many devices of each resource the node has; kubelet gets the change within a second.

    Raises:
        ClusterError: the node has no such resource, or real GPUs.
    """
    if node.real:
        raise ClusterError(
            f"NVIDIA's device plugin offers the GPUs of {node.name}, and always all of them",
            remedy="hack/cluster up --gpu-replicas N hands each of them out N times",
        )
    unknown = sorted(counts.keys() - node.gpus.keys())
    if unknown:
        known = ", ".join(node.gpus) or "none"
        raise ClusterError(f"node {node.name} has no {', '.join(unknown)}", remedy=f"it has: {known}")
    path = _offer(layout, node)
    offered = json.loads(path.read_text()) if path.exists() else {}
    offered.update({resource: list(node.gpus[resource][:count]) for resource, count in counts.items()})
    new = path.with_suffix(".new")
    new.write_text(json.dumps(offered, indent=2))
    new.replace(path)


def wait_for_gpus(layout: Layout, node: NodeSpec) -> None:
    """Wait until the API server shows the node's GPUs as allocatable."""
    if not node.gpus:
        return
    wanted = {resource: str(count) for resource, count in all_gpus(layout, node).items()}

    def shown() -> bool:
        allocatable: dict[str, str] = json.loads(
            kubectl(layout, "get", "node", node.name, "-o=jsonpath={.status.allocatable}")
        )
        return wanted.items() <= allocatable.items()

    daemons.wait_until(layout, _name(node), shown, what="heard by kubelet")


def _name(node: NodeSpec) -> str:
    return f"{node.name}-gpus"


def _offer(layout: Layout, node: NodeSpec) -> Path:
    return layout.nodes / node.name / "gpus.json"


def build_plugin() -> Path:
    """Return the program that offers simulated GPUs; the first call builds it."""
    sources = sorted(path for path in _PLUGIN.iterdir() if path.is_file())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    program = tools_cache() / f"fake_device_plugin-{digest}" / "fake_device_plugin"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        run(
            ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program, "."],
            cwd=_PLUGIN,
            environment={"CGO_ENABLED": "0"},
        )
    return program
