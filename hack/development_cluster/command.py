"""What `hack/cluster` does with its arguments."""

import argparse
import sys
from collections.abc import Sequence

from development_cluster.control_plane import start_api_server, start_controllers
from development_cluster.errors import ClusterError
from development_cluster.host_network import prepare_host
from development_cluster.layout import Layout, default_folder
from development_cluster.programs import require_packages, require_root

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="hack/cluster")
    parser.add_argument("command")
    parser.parse_args(arguments)
    layout = Layout(default_folder())
    try:
        require_root()
        layout.make()
        require_packages(layout)
        prepare_host(layout)
        start_api_server(layout)
        start_controllers(layout)
    except ClusterError as error:
        print(f"hack/cluster: {error}", file=sys.stderr)
        return 1
    return 0
