"""Ends the cluster: processes, then cgroups, network, folders."""

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Final

from development_cluster import daemons
from development_cluster.cgroups import delete_cgroups, has_cgroup, processes_in
from development_cluster.cluster_network import CLUSTER_NETWORK
from development_cluster.control_plane import CONTROL_PLANE
from development_cluster.host_network import delete_bridge, our_rules, owner, restore_host
from development_cluster.layout import Layout
from development_cluster.local_services import LOCAL_SERVICES
from development_cluster.node_specs import NODES, NodeSpec
from development_cluster.nodes import delete_mount_points, kill_node
from development_cluster.simulated_nodes import SIMULATOR

__all__ = ["leftovers", "tear_down"]

_GRACE_SECONDS: Final = 20


def tear_down(layout: Layout) -> None:
    """End everything, whatever of it runs, and delete all but the cache."""
    for node in NODES:
        kill_node(layout, node)
    for name in (SIMULATOR, *CLUSTER_NETWORK, *CONTROL_PLANE, *LOCAL_SERVICES):
        # What a grace period would save is deleted below.
        daemons.stop(layout, name, crash=True)
    for node in NODES:
        _end_processes(layout, node)
        delete_cgroups(layout.cgroup(node.name))
    if owner(layout) == str(layout.folder):
        for node in NODES:
            delete_bridge(node.bridge)
        restore_host(layout)
    delete_mount_points(layout)
    shutil.rmtree(layout.folder, ignore_errors=True)


def leftovers(layout: Layout) -> list[str]:
    """Return what a cluster leaves on a machine that it should not, one clause each; empty after `tear_down`."""
    folder = str(layout.folder)
    found = [f"process {pid}" for pid in _processes_of(folder)]
    found += [
        f"mount {line.split()[4]}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if folder in line
    ]
    found += [f"cgroup {layout.cgroup(node.name)}" for node in NODES if has_cgroup(layout.cgroup(node.name))]
    if owner(layout) == str(layout.folder):
        found += [f"bridge {path.name}" for path in Path("/sys/class/net").iterdir() if path.name.startswith("es-")]
        found += [f"rule {rule}" for rule in our_rules()]
    if layout.folder.exists():
        found.append(folder)
    return found


def _processes_of(folder: str) -> list[int]:
    """Return the processes whose command line names the cluster's folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if any(f"{folder}/" in word for word in words):
            found.append(int(path.parent.name))
    return found


def _end_processes(layout: Layout, node: NodeSpec) -> None:
    """End the remaining processes in the node's cgroup; if the node was complete, the kernel has already ended them."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while (pids := processes_in(layout.cgroup(node.name))) and time.monotonic() < deadline:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
