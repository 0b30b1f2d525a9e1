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
    from enginesmith_contract.errors import EnginesmithError
    from enginesmith_operator.api.inference_engine import InferenceEngine
    from enginesmith_operator.planning.plan_records import Plan

__all__ = ["add_arguments", "run"]

_EXAMPLES = """examples:
  enginesmith plan engine.yaml
  kubectl get nodes -o yaml > nodes.yaml && enginesmith plan engine.yaml --nodes nodes.yaml

The exit code is 0 where every document has a plan for at least one target, 11 otherwise.
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
    from enginesmith_operator.api.load import load_documents, read_file  # noqa: PLC0415 - loads pydantic

    if arguments.file == "-":
        engines, base = load_documents(sys.stdin.read(), where="standard input"), Path()
    else:
        engines, base = read_file(arguments.file), Path(arguments.file).parent
    plans = _plan_all(engines, base, arguments)
    print(_render(plans, arguments.output), end="")
    return ExitCode.OK if all(plan.has_target for plan in plans) else ExitCode.PLAN_REFUSED


def _plan_all(engines: "tuple[InferenceEngine, ...]", base: Path, arguments: argparse.Namespace) -> "tuple[Plan, ...]":
    from enginesmith_cli.home import default_store_uri, state_folder  # noqa: PLC0415 - after the document was read
    from enginesmith_cli.observe import observe_model, observe_nodes, observe_this_machine  # noqa: PLC0415 - the same
    from enginesmith_operator.planning.plan import plan  # noqa: PLC0415 - the same

    store = arguments.store or default_store_uri(state_folder(arguments.home))
    observed = observe_nodes(arguments.nodes, store) if arguments.nodes else observe_this_machine(store)
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as scratch:
        return tuple(
            plan(engine, observe_model(observed, engine, base=base, scratch=Path(scratch), warn=_warn), now)
            for engine in engines
        )


def _warn(error: "EnginesmithError") -> None:
    print(f"enginesmith: {error.sentence()}", file=sys.stderr)


def _render(plans: "tuple[Plan, ...]", output: str) -> str:
    from enginesmith_operator.planning.render import render_plan  # noqa: PLC0415 - only where a plan was made

    if output == "table":
        return "\n".join(render_plan(plan) for plan in plans)
    documents = [json.loads(plan.to_json()) for plan in plans]
    if output == "json":
        return json.dumps(documents[0] if len(documents) == 1 else documents, indent=2, ensure_ascii=False) + "\n"
    import yaml  # noqa: PLC0415 - only for this output

    return str(yaml.safe_dump_all(documents, sort_keys=True, allow_unicode=True))
