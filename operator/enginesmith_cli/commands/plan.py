"""`enginesmith plan`: what would be built and served where, and why not; it changes nothing."""

import argparse
import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from enginesmith_contract.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from enginesmith_cli.documents import Failures
    from enginesmith_contract.errors import EnginesmithError
    from enginesmith_operator.api.inference_engine import InferenceEngine
    from enginesmith_operator.planning.plan_records import Plan

__all__ = ["add_arguments", "run"]

_EXAMPLES = """examples:
  enginesmith plan engine.yaml
  kubectl get nodes -o yaml > nodes.yaml && enginesmith plan engine.yaml --nodes nodes.yaml

The exit code is 0 where every document has a plan for at least one target, 11 otherwise. A target that is
only built here, for a GPU that is elsewhere, has a plan.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument("file", metavar="FILE", help="documents of kind InferenceEngine; `-` reads standard input")
    parser.add_argument(
        "--nodes",
        type=Path,
        metavar="FILE",
        help="plan for these nodes (kubectl get nodes -o yaml; `-`: standard input) instead of this machine",
    )
    parser.add_argument("--output", "-o", choices=("table", "json", "yaml"), default="table", help="default: table")
    parser.add_argument("--store", metavar="URI", help="engine store whose keys are looked at")
    parser.add_argument("--home", metavar="DIR", help="folder of local mode")


def run(arguments: argparse.Namespace) -> int:
    """Plan every document and print the plans."""
    from enginesmith_cli.documents import Failures
    from enginesmith_operator.api.load import load_documents, read_file

    if arguments.file == "-":
        engines, base = load_documents(sys.stdin.read(), where="standard input"), Path()
    else:
        engines, base = read_file(arguments.file), Path(arguments.file).parent
    failures = Failures(raise_at_once=arguments.debug)
    plans = _plan_all(engines, base, arguments, failures)
    if plans:
        print(_render(plans, arguments.output), end="")
    refused = not all(plan.has_target for plan in plans)
    return failures.exit_code or (ExitCode.PLAN_REFUSED if refused else ExitCode.OK)


def _plan_all(
    engines: "tuple[InferenceEngine, ...]", base: Path, arguments: argparse.Namespace, failures: "Failures"
) -> "tuple[Plan, ...]":
    from enginesmith_cli.documents import name_of
    from enginesmith_cli.home import default_store_uri, state_folder
    from enginesmith_cli.observe import observe_model, observe_nodes, observe_this_machine
    from enginesmith_operator.planning.plan import plan

    store = arguments.store or default_store_uri(state_folder(arguments.home))
    if arguments.nodes:
        observed = observe_nodes(arguments.nodes, store)
    else:
        # As `build` does.
        observed = observe_this_machine(store, build_for_absent_gpus=True)
    now = datetime.now(UTC)
    plans: list[Plan] = []
    with tempfile.TemporaryDirectory() as scratch:
        for engine in engines:
            name = name_of(engine)
            with failures.of(name):
                known = observe_model(observed, engine, base=base, scratch=Path(scratch), warn=_warner(name))
                plans.append(plan(engine, known, now))
    return tuple(plans)


def _warner(name: str) -> "Callable[[EnginesmithError], None]":
    def warn(error: "EnginesmithError") -> None:
        print(f"enginesmith: {name}: {error.sentence()}", file=sys.stderr)

    return warn


def _render(plans: "tuple[Plan, ...]", output: str) -> str:
    from enginesmith_operator.planning.render import render_plan

    if output == "table":
        return "\n".join(render_plan(plan) for plan in plans)
    documents = [json.loads(plan.to_json()) for plan in plans]
    if output == "json":
        return json.dumps(documents[0] if len(documents) == 1 else documents, indent=2, ensure_ascii=False) + "\n"
    import yaml

    return str(yaml.safe_dump_all(documents, sort_keys=True, allow_unicode=True))
