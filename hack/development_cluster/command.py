"""What `hack/cluster` does with its arguments."""

import argparse
import fcntl
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from development_cluster.cluster_network import start_dns, start_service_proxy
from development_cluster.control_plane import start_api_server, start_controllers
from development_cluster.errors import ClusterError
from development_cluster.gpus import label_node, start_gpus, wait_for_gpus
from development_cluster.host_network import prepare_host
from development_cluster.images import push_pause_image
from development_cluster.layout import Layout, default_folder
from development_cluster.local_services import start_registry, start_s3
from development_cluster.node_specs import NODES
from development_cluster.nodes import start_node, wait_for_node
from development_cluster.product_images import load_images
from development_cluster.programs import require_packages, require_root
from development_cluster.teardown import tear_down

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run one command; return the exit code."""
    options = _parser().parse_args(arguments)
    layout = Layout(default_folder())
    try:
        require_root()
        with _alone(layout):
            options.run(layout, options)
    except ClusterError as error:
        print(f"hack/cluster: {error.explain()}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hack/cluster", description="A Kubernetes cluster on this machine.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="start what does not run")
    up.set_defaults(run=_up)
    load = commands.add_parser("load", help="build the product's images and let the nodes pull them")
    load.add_argument("--base", help="an image with Python 3.11 or later to build on; default: Debian's, made here")
    load.set_defaults(run=_load)
    down = commands.add_parser("down", help="end everything and leave nothing but the cache of images and programs")
    down.set_defaults(run=_down)
    return parser


def _up(layout: Layout, _: argparse.Namespace) -> None:
    layout.make()
    with _step("packages"):
        require_packages(layout)
    with _step("network"):
        prepare_host(layout)
    with _step("registry and S3"):
        start_registry(layout)
        push_pause_image(layout)
        start_s3(layout)
    with _step("API server"):
        start_api_server(layout)
    with _step("controllers"):
        start_controllers(layout)
    with _step("nodes"):
        for node in NODES:
            start_node(layout, node)
        for node in NODES:
            wait_for_node(layout, node)
    with _step("services and names"):
        start_service_proxy(layout)
        start_dns(layout)
    with _step("GPUs"):
        for node in NODES:
            label_node(layout, node)
            start_gpus(layout, node)
        for node in NODES:
            wait_for_gpus(layout, node)
    print(f"export KUBECONFIG={layout.kubeconfig} PATH={layout.binaries}:$PATH")


def _load(layout: Layout, options: argparse.Namespace) -> None:
    with _step("images"):
        references = load_images(layout, options.base)
    for name, reference in references.items():
        print(f"{name} {reference}")


def _down(layout: Layout, _: argparse.Namespace) -> None:
    with _step("down"):
        tear_down(layout)


@contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    """Keep two commands from changing one cluster at the same time."""
    layout.folder.parent.mkdir(parents=True, exist_ok=True)
    with layout.folder.with_name(f"{layout.folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _step(name: str) -> Iterator[None]:
    started = time.monotonic()
    print(f"{name} ...", end=" ", flush=True)
    yield
    print(f"{time.monotonic() - started:.1f} s", flush=True)
