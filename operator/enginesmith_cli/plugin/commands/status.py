"""`kubectl enginesmith status`: engines as trees, from the engine down to the pods that build and serve it."""

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Final

from enginesmith_contract.exit_codes import ExitCode

if TYPE_CHECKING:
    from enginesmith_cli.plugin.kubectl import Found
    from enginesmith_cli.plugin.tree import Branch

__all__ = ["add_arguments", "run"]

_EXAMPLES: Final = """examples:
  kubectl enginesmith status                    every engine of the context's namespace
  kubectl enginesmith status resnet50 -n vision --watch
  kubectl enginesmith status -A -o json

✓ means healthy, … waiting or in progress, ✗ failed. The exit code is 0 in every state of the engines.
"""
_PAUSE_SECONDS: Final = 2.0
_CLEAR: Final = "\x1b[H\x1b[2J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    from enginesmith_cli.plugin.kubectl import add_connection_options

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="InferenceEngine; omitted: all")
    parser.add_argument("--output", "-o", choices=("tree", "json"), default="tree", help="default: tree")
    parser.add_argument("--watch", "-w", action="store_true", help="redraw on every change, until Ctrl-C")
    add_connection_options(parser, everywhere=True)


def run(arguments: argparse.Namespace) -> int:
    """Print the trees once, or whenever they change."""
    from enginesmith_cli.plugin.kubectl import Kubectl
    from enginesmith_cli.plugin.reading import engine_name, read_family, say_refused

    name = engine_name(arguments.name) if arguments.name else ""
    kubectl, last = Kubectl.from_arguments(arguments), None
    while True:
        found = read_family(kubectl)
        text = _text(_trees(found, name), arguments.output, is_everywhere=arguments.all_namespaces)
        if text != last:
            print((_CLEAR if arguments.watch and sys.stdout.isatty() else "") + text, flush=True)
            say_refused(found)
        last = text
        if not arguments.watch:
            return ExitCode.OK
        time.sleep(_PAUSE_SECONDS)


def _trees(found: "Found", name: str) -> "tuple[Branch, ...]":
    from datetime import UTC, datetime

    from enginesmith_cli.plugin.objects import Objects
    from enginesmith_cli.plugin.tree import grow_trees

    return grow_trees(Objects(found.items), datetime.now(UTC), name)


def _text(trees: "tuple[Branch, ...]", output: str, *, is_everywhere: bool) -> str:
    from enginesmith_cli.plugin.draw import draw_trees, terminal_columns, wants_colour

    if output == "json":
        return json.dumps([tree.model_dump(mode="json", by_alias=True) for tree in trees], indent=2, ensure_ascii=False)
    if not trees:
        return "no InferenceEngine" + ("" if is_everywhere else " here; use -A for all namespaces")
    return "\n".join(draw_trees(trees, colour=wants_colour(), columns=terminal_columns()))
