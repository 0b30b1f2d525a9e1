"""What `hack/cluster` does with its arguments."""

import argparse
import fcntl
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from development_cluster.bring_up import bring_back, bring_up, restore, step
from development_cluster.errors import ClusterError
from development_cluster.gpus import all_gpus, offer_gpus
from development_cluster.layout import Layout, default_folder
from development_cluster.node_specs import NODES, NodeSpec
from development_cluster.nodes import kill_node, send_away, stop_kubelet
from development_cluster.packing import pack
from development_cluster.product_images import load_images, load_made_images
from development_cluster.programs import require_root
from development_cluster.report import shell_variables, status
from development_cluster.simulated_nodes import set_simulated_nodes
from development_cluster.teardown import leftovers, tear_down

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run one command; return the exit code."""
    options = _parser().parse_args(arguments)
    layout = Layout(default_folder())
    try:
        if not options.changes:
            options.run(layout, options)
            return 0
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
    up.add_argument("--nodes", type=int, metavar="N", help="have N simulated nodes in addition to the real ones")
    up.add_argument(
        "--gpu-replicas", type=_count, metavar="N", help="hand each real GPU of this machine out N times (time slicing)"
    )
    up.set_defaults(run=_up, changes=True)

    down = commands.add_parser("down", help="end everything; only the cache of programs and images stays")
    down.set_defaults(run=_down, changes=True)

    state = commands.add_parser("status", help="show what runs")
    state.set_defaults(run=_status, changes=False)

    env = commands.add_parser("env", help='print what a shell needs: eval "$(hack/cluster env)"')
    env.set_defaults(run=_env, changes=False)

    load = commands.add_parser("load", help="build the product's images and let the nodes pull them")
    load.add_argument("--base", help="an image with Python 3.11 or later to build on; default: Debian's, made here")
    load.add_argument(
        "--toolchain", action="append", default=[], metavar="NAME", help="of runtime/toolchain/toolchains.toml, too"
    )
    load.add_argument(
        "--images", type=Path, metavar="FILE", help="build nothing: let the nodes pull these images, by name in JSON"
    )
    load.set_defaults(run=_load, changes=True)

    packed = commands.add_parser(
        "pack", help="pack the cluster in pieces, to be started on a machine without a network"
    )
    packed.add_argument("folder", type=Path, help="gets one folder for each piece, and `start` with the scripts")
    packed.add_argument(
        "--piece-mib", type=_count, default=48, metavar="N", help="size of a piece (default %(default)s)"
    )
    packed.add_argument(
        "--images",
        type=Path,
        metavar="FILE",
        help="images to take along, by name in JSON; default: those of the last load",
    )
    packed.add_argument("--leave-out", nargs="*", default=(), metavar="IMAGE", help="images that are not needed there")
    # It takes minutes and changes nothing of the cluster.
    packed.set_defaults(run=_pack, changes=False)

    again = commands.add_parser("restore", help="put nodes, their labels and GPUs back, and delete simulated nodes")
    again.set_defaults(run=_restore, changes=True)

    nodes = commands.add_parser("nodes", help="have N simulated nodes: objects without a kubelet")
    nodes.add_argument("count", type=int)
    nodes.add_argument("--untainted", action="store_true", help="let any pod be sent there")
    nodes.set_defaults(run=_nodes, changes=True)

    node = commands.add_parser(
        "node", help="stop or start one node's kubelet, or end the whole node as a power cut would"
    )
    node.add_argument("node", type=_node)
    node.add_argument("action", choices=["stop", "start", "kill"])
    node.set_defaults(run=_one_node, changes=True)

    gpus = commands.add_parser("gpus", help="change what a node's device plugin offers: gpus gpu-l4 nvidia.com/gpu=1")
    gpus.add_argument("node", type=_node)
    gpus.add_argument("counts", nargs="*", metavar="RESOURCE=COUNT", help="none: all that the node has")
    gpus.set_defaults(run=_gpus, changes=True)
    return parser


def _node(name: str) -> NodeSpec:
    for node in NODES:
        if node.name == name:
            return node
    raise argparse.ArgumentTypeError(f"nodes are {', '.join(node.name for node in NODES)}")


def _count(text: str) -> int:
    if text.isdigit() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text} is no count of at least 1")


def _up(layout: Layout, options: argparse.Namespace) -> None:
    if options.gpu_replicas and not any(node.real for node in NODES):
        raise ClusterError("--gpu-replicas: this machine has no NVIDIA GPU with a driver")
    bring_up(layout, options.gpu_replicas)
    if options.nodes is not None:
        with step("simulated nodes"):
            set_simulated_nodes(layout, options.nodes, tainted=True)
    print('eval "$(hack/cluster env)" for kubectl and helm; hack/cluster load for the product\'s images')


def _down(layout: Layout, _: argparse.Namespace) -> None:
    with step("down"):
        tear_down(layout)
    if left := leftovers(layout):
        raise ClusterError("left on this machine: " + "; ".join(left))


def _status(layout: Layout, _: argparse.Namespace) -> None:
    print(status(layout))


def _env(layout: Layout, _: argparse.Namespace) -> None:
    for name, value in shell_variables(layout).items():
        quoted = shlex.quote(str(value))
        print(f"export {name}={quoted}" + (":$PATH" if name == "PATH" else ""))


def _load(layout: Layout, options: argparse.Namespace) -> None:
    with step("images"):
        if options.images:
            references = load_made_images(layout, options.images)
        else:
            references = load_images(layout, options.base, options.toolchain)
    for name, reference in references.items():
        print(f"{name} {reference}")


def _pack(layout: Layout, options: argparse.Namespace) -> None:
    require_root()
    with step("pieces"):
        folders = pack(
            layout,
            options.folder,
            piece_mib=options.piece_mib,
            images=options.images,
            left_out=options.leave_out,
        )
    print("\n".join(folders))


def _restore(layout: Layout, _: argparse.Namespace) -> None:
    with step("labels and GPUs"):
        restore(layout)


def _nodes(layout: Layout, options: argparse.Namespace) -> None:
    with step("simulated nodes"):
        set_simulated_nodes(layout, options.count, tainted=not options.untainted)


def _one_node(layout: Layout, options: argparse.Namespace) -> None:
    node: NodeSpec = options.node
    match options.action:
        case "stop":
            send_away(layout, node)
            stop_kubelet(layout, node)
        case "kill":
            send_away(layout, node)
            kill_node(layout, node)
        case _:
            bring_back(layout, node)


def _gpus(layout: Layout, options: argparse.Namespace) -> None:
    node: NodeSpec = options.node
    counts = all_gpus(layout, node)
    for word in options.counts:
        resource, _, count = word.partition("=")
        if not count.isdigit():
            raise ClusterError(f"{word} is not RESOURCE=COUNT")
        counts[resource] = int(count)
    offer_gpus(layout, node, counts)


@contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    """Keep two commands from changing one cluster at the same time."""
    layout.folder.parent.mkdir(parents=True, exist_ok=True)
    with layout.folder.with_name(f"{layout.folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
