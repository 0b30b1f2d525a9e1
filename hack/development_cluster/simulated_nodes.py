"""Nodes by the hundred that are objects only: KWOK keeps them Ready and finishes their pods."""

import json
from pathlib import Path
from typing import Final, TypedDict

from development_cluster import daemons
from development_cluster.certificates import client_kubeconfig
from development_cluster.daemons import URGENT, Daemon
from development_cluster.layout import Layout
from development_cluster.programs import kubectl, tool

__all__ = ["SIMULATOR", "set_simulated_nodes"]

SIMULATOR: Final = "kwok"

_DATA: Final = Path(__file__).parent / "data"
_SELECTOR: Final = "enginesmith.io/simulated=true"
# What is real must not be sent here by accident: a test's pods tolerate it by name.
_TAINT: Final = {"key": "enginesmith.io/simulated", "value": "true", "effect": "NoSchedule"}


class Kind(TypedDict):
    """One model of machine in data/simulated-nodes.json."""

    labels: dict[str, str]
    resources: dict[str, str]


def set_simulated_nodes(layout: Layout, count: int, *, tainted: bool) -> None:
    """Make or delete Node objects until there are `count` of them."""
    kinds: list[Kind] = json.loads((_DATA / "simulated-nodes.json").read_text())
    wanted = {name: _node(name, kinds[index % len(kinds)], tainted=tainted) for index, name in _names(count)}
    found = kubectl(layout, "get", "nodes", f"--selector={_SELECTOR}", "-o=name").split()
    if surplus := [name for name in found if name.removeprefix("node/") not in wanted]:
        kubectl(layout, "delete", "--wait=false", *surplus)
    if count == 0:
        daemons.stop(layout, SIMULATOR)
        return
    _start_simulator(layout)
    document = {"apiVersion": "v1", "kind": "List", "items": list(wanted.values())}
    kubectl(layout, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(document))
    kubectl(layout, "wait", "nodes", f"--selector={_SELECTOR}", "--for=condition=Ready", "--timeout=300s")


def _start_simulator(layout: Layout) -> None:
    kubeconfig = client_kubeconfig(layout, SIMULATOR, user=SIMULATOR, group="system:masters")
    daemons.start(
        layout,
        Daemon(
            name=SIMULATOR,
            # It speaks for every node: late, and all of them are NotReady.
            priority=URGENT,
            command=[
                tool("kwok"),
                f"--kubeconfig={kubeconfig}",
                f"--config={_DATA / 'kwok-stages.yaml'}",
                f"--manage-nodes-with-label-selector={_SELECTOR}",
                "--node-lease-duration-seconds=40",
                "--cidr=10.245.0.0/16",
            ],
        ),
    )


def _names(count: int) -> list[tuple[int, str]]:
    return [(index, f"simulated-{index:04}") for index in range(count)]


def _node(name: str, kind: Kind, *, tainted: bool) -> dict[str, object]:
    common = {
        "enginesmith.io/simulated": "true",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "kubernetes.io/hostname": name,
    }
    resources = {"cpu": "64", "memory": "512Gi", "ephemeral-storage": "1Ti", "pods": "250", **kind["resources"]}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {**common, **kind["labels"]}},
        "spec": {"taints": [_TAINT] if tainted else []},
        "status": {"capacity": resources, "allocatable": resources},
    }
