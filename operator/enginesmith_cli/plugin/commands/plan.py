"""`kubectl enginesmith plan`: what a file would build and serve in this cluster; it changes nothing."""

import argparse
from typing import Final

__all__ = ["add_arguments", "run"]

_EXAMPLES: Final = """examples:
  kubectl enginesmith plan -f engine.yaml
  helm get values enginesmith -n enginesmith-system -o yaml > values.yaml     # if you may not read the catalog
  kubectl enginesmith plan -f engine.yaml --values values.yaml

It reads nodes, policies, the toolchain catalog and the operator's configuration. The exit code is 0 if every
document has a plan for at least one target and no policy forbids a field, 11 otherwise.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    from enginesmith_cli.options import add_values_option
    from enginesmith_cli.plugin.kubectl import add_connection_options

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "--filename",
        "-f",
        dest="file",
        required=True,
        metavar="FILE",
        help="documents of kind InferenceEngine; `-` reads standard input",
    )
    add_values_option(parser, "the chart's values, with the toolchains of the cluster")
    parser.add_argument("--output", "-o", choices=("table", "json", "yaml"), default="table", help="default: table")
    parser.add_argument("--home", metavar="DIR", help="folder of local mode, for models on this machine")
    add_connection_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Plan every document for the cluster and print the plans."""
    from enginesmith_cli.commands.plan import plan_file
    from enginesmith_cli.plugin.cluster_view import context_namespace, observe_cluster, read_policies
    from enginesmith_cli.plugin.kubectl import Kubectl

    kubectl = Kubectl.from_arguments(arguments)
    arguments.namespace = arguments.namespace or context_namespace(kubectl)
    return plan_file(arguments, read_policies(kubectl), lambda: observe_cluster(kubectl, arguments.values))
