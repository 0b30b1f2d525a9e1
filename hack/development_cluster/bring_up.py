"""Brings the cluster up, part by part, and says how long each took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from development_cluster.cluster_network import start_dns, start_service_proxy
from development_cluster.control_plane import start_api_server, start_controllers
from development_cluster.gpus import all_gpus, label_node, offer_gpus, start_gpus, wait_for_gpus
from development_cluster.host_network import prepare_host
from development_cluster.images import push_pause_image
from development_cluster.layout import Layout
from development_cluster.local_services import start_registry, start_s3
from development_cluster.node_specs import NODES, NodeSpec
from development_cluster.nodes import is_away, start_node, wait_for_node
from development_cluster.programs import build_tools, link_program, require_packages
from development_cluster.real_gpus import require_cdi, set_replicas
from development_cluster.simulated_nodes import set_simulated_nodes

__all__ = ["bring_back", "bring_up", "restore", "step"]


def bring_up(layout: Layout, gpu_replicas: int | None = None) -> None:
    """Start what does not run, in the order in which one part needs another.

    Args:
        layout: of the cluster.
        gpu_replicas: how many times each real GPU is handed out; None: as often as before.
    """
    layout.make()
    with step("packages"):
        require_packages(layout)
        if any(node.real for node in NODES):
            require_cdi()
    with step("programs"):
        build_tools(real_gpus=any(node.real for node in NODES))
        link_program(layout, "helm")
    with step("network"):
        prepare_host(layout)
    with step("registry and S3"):
        start_registry(layout)
        push_pause_image(layout)
        start_s3(layout)
    with step("API server"):
        start_api_server(layout)
    with step("controllers"):
        start_controllers(layout)
    # A test that took a node away must not get it back from another program that wants the cluster.
    present = [node for node in NODES if not is_away(layout, node)]
    with step("nodes"):
        started = [node for node in present if start_node(layout, node)]
        for node in present:
            wait_for_node(layout, node)
    with step("services and names"):
        start_service_proxy(layout)
        start_dns(layout)
    with step("GPUs"):
        # What runs may be under test: its labels and devices are put back by `restore` alone.
        shared = [node for node in present if node.real and gpu_replicas and set_replicas(layout, node, gpu_replicas)]
        for node in present:
            if node in started or node in shared:
                label_node(layout, node)
        offering = [node for node in present if start_gpus(layout, node)]
        for node in present:
            if node in started or node in offering:
                wait_for_gpus(layout, node)
    for node in NODES:
        if node not in present:
            print(f"{node.name} stays stopped; bring it back: hack/cluster node {node.name} start")


def bring_back(layout: Layout, node: NodeSpec) -> None:
    """Start a node that was stopped or ended, with its labels and GPUs."""
    start_node(layout, node)
    wait_for_node(layout, node)
    label_node(layout, node)
    _offer_all(layout, node)
    wait_for_gpus(layout, node)


def restore(layout: Layout) -> None:
    """Put nodes, labels and devices back to what they are here, whatever a test made of them."""
    set_simulated_nodes(layout, 0, tainted=True)
    for node in NODES:
        if is_away(layout, node):
            bring_back(layout, node)
    for node in NODES:
        if node.real:
            set_replicas(layout, node, 1)
        label_node(layout, node)
        _offer_all(layout, node)
    for node in NODES:
        wait_for_gpus(layout, node)


def _offer_all(layout: Layout, node: NodeSpec) -> None:
    start_gpus(layout, node)
    if not node.real:
        offer_gpus(layout, node, all_gpus(layout, node))


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print the step's name, and its seconds when it is done."""
    started = time.monotonic()
    print(f"{name:<20}", end="", flush=True)
    try:
        yield
    except BaseException:
        print(flush=True)
        raise
    print(f"{time.monotonic() - started:6.1f} s", flush=True)
