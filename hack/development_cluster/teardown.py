"""Ends the cluster: processes, then cgroups, network, folders."""

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Final

from development_cluster import daemons
from development_cluster.cgroups import delete_cgroups, processes_in
from development_cluster.cluster_network import CLUSTER_NETWORK
from development_cluster.control_plane import CONTROL_PLANE
from development_cluster.host_network import delete_bridge, restore_host
from development_cluster.layout import Layout
from development_cluster.local_services import LOCAL_SERVICES
from development_cluster.node_specs import NODES, NodeSpec
from development_cluster.nodes import BINDS, kill_node

__all__ = ["leftovers", "tear_down"]

_GRACE_SECONDS: Final = 20


def tear_down(layout: Layout) -> None:
    """End everything, whatever of it runs, and delete all but the cache."""
    for node in NODES:
        kill_node(layout, node)
    for name in (*CLUSTER_NETWORK, *CONTROL_PLANE, *LOCAL_SERVICES):
        daemons.stop(layout, name)
    for node in NODES:
        _end_processes(node)
        delete_cgroups(node.cgroup)
        delete_bridge(node.bridge)
    restore_host(layout)
    _delete_mount_points()
    shutil.rmtree(layout.folder, ignore_errors=True)


def leftovers(layout: Layout) -> list[str]:
    """Return what a cluster leaves on a machine: one clause each; empty after `tear_down`."""
    return []


def _end_processes(node: NodeSpec) -> None:
    """End what is left in the node's cgroup; the kernel has ended it already where the node was whole."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while (pids := processes_in(node.cgroup)) and time.monotonic() < deadline:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _delete_mount_points() -> None:
    """Delete the folders that were made for a node to mount over, where nobody else uses them."""
    for path in map(Path, BINDS.values()):
        if path.is_dir() and not path.is_mount() and not any(path.iterdir()):
            path.rmdir()
