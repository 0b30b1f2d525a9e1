"""`enginesmith plan`: what would be built and served where, and the reasons if nothing would; it changes nothing."""

import argparse
import json
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from enginesmith_cli.options import add_trust_option, add_values_option, read_trusted_keys
from enginesmith_contract.errors import SpecError
from enginesmith_contract.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from enginesmith_cli.documents import Failures
    from enginesmith_cli.fallback import GateMemo
    from enginesmith_cli.policy_file import PolicyFile
    from enginesmith_contract.errors import EnginesmithError
    from enginesmith_operator.api.inference_engine import InferenceEngine
    from enginesmith_operator.planning.plan_records import Plan
    from enginesmith_operator.planning.snapshot import Observed, RefusedPrecision

__all__ = ["add_arguments", "plan_file", "run"]

_EXAMPLES = """examples:
  enginesmith plan engine.yaml
  kubectl get nodes -o yaml > nodes.yaml && enginesmith plan engine.yaml --nodes nodes.yaml
  helm get values enginesmith -n enginesmith-system > values.yaml
  enginesmith plan engine.yaml --nodes nodes.yaml --values values.yaml
  kubectl get enginepolicies,namespaces -o yaml > policies.yaml && enginesmith plan engine.yaml --policies policies.yaml

The exit code is 0 if every document has a plan for at least one target and no policy forbids a field, otherwise 11.
A target that is built here for a GPU that this machine does not have also has a plan.
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
    add_values_option(
        parser,
        "with --nodes: the chart's values, with the toolchains, labels and pools of the cluster "
        "(default: the toolchains installed here)",
    )
    parser.add_argument(
        "--policies",
        type=Path,
        metavar="FILE",
        help="EnginePolicies and Namespaces of the cluster (kubectl get enginepolicies,namespaces -o yaml)",
    )
    parser.add_argument(
        "--namespace",
        "-n",
        default="default",
        metavar="NAME",
        help="namespace of documents that name none (default: default)",
    )
    add_trust_option(parser)
    parser.add_argument("--output", "-o", choices=("table", "json", "yaml"), default="table", help="default: table")
    parser.add_argument("--store", metavar="URI", help="engine store in which keys are looked up")
    parser.add_argument("--home", metavar="DIR", help="folder of local mode")


def run(arguments: argparse.Namespace) -> int:
    """Plan every document and print the plans."""
    from enginesmith_cli.policy_file import no_policies, read_policy_file

    if arguments.values and not arguments.nodes:
        raise SpecError(
            "--values needs --nodes",
            why="without --nodes, the plan is for this machine and its toolchains",
            remedy="add --nodes nodes.yaml (kubectl get nodes -o yaml)",
            reason="Usage",
        )
    policies = read_policy_file(arguments.policies) if arguments.policies else no_policies()
    return plan_file(arguments, policies, lambda: _observe(arguments))


def plan_file(arguments: argparse.Namespace, policies: "PolicyFile", observe: "Callable[[], Observed]") -> int:
    """Plan every document of a file and print the plans; return the exit code.

    Args:
        arguments: file, namespace, home, output and debug of the command line.
        policies: that hold.
        observe: gives what is known of the nodes and toolchains; called once the file is read.
    """
    from enginesmith_cli.documents import Failures
    from enginesmith_operator.api.load import load_documents, read_file

    if arguments.file == "-":
        engines, base = load_documents(sys.stdin.read(), where="standard input"), Path()
    else:
        engines, base = read_file(arguments.file), Path(arguments.file).parent
    failures = Failures(raise_at_once=arguments.debug)
    plans = _plan_all(engines, base, arguments, policies, observe(), failures)
    if plans:
        print(_render(plans, arguments.output), end="")
    refused = not all(plan.has_target for plan in plans)
    return failures.exit_code or (ExitCode.PLAN_REFUSED if refused else ExitCode.OK)


def _plan_all(
    engines: "tuple[InferenceEngine, ...]",
    base: Path,
    arguments: argparse.Namespace,
    policies: "PolicyFile",
    observed: "Observed",
    failures: "Failures",
) -> "tuple[Plan, ...]":
    from enginesmith_cli.documents import name_of
    from enginesmith_cli.fallback import GateMemo
    from enginesmith_cli.home import state_folder
    from enginesmith_cli.observe import observe_model
    from enginesmith_cli.policy_file import refuse_forbidden, warn_of_gpus
    from enginesmith_operator.planning.policies import asked_gpus
    from enginesmith_operator.planning.policy_defaults import with_defaults

    gates = GateMemo(state_folder(arguments.home) / "gates")
    plans: list[Plan] = []
    asked: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        for engine in engines:
            name = name_of(engine)
            held = policies.of_namespace(engine.metadata.namespace or arguments.namespace)
            effective, inherited = with_defaults(engine, held)
            seen = observed.model_copy(update={"policies": held, "inherited": inherited})
            look = partial(observe_model, seen, base=base, scratch=Path(scratch), warn=_warner(name))
            with failures.of(name):
                plans.append(_plan_in_turn(effective, look, gates))
                refuse_forbidden(engine, held)
                asked[engine.metadata.namespace or arguments.namespace] += asked_gpus(engine.spec)
    for sentence in warn_of_gpus(asked, policies):
        print(f"enginesmith: {sentence}", file=sys.stderr)
    return tuple(plans)


def _plan_in_turn(
    engine: "InferenceEngine", look: "Callable[[InferenceEngine], Observed]", gates: "GateMemo"
) -> "Plan":
    """Plan the first precision of a document that is not known to be refused."""
    from enginesmith_operator.planning.fallback import following, refused_by_plan
    from enginesmith_operator.planning.plan import plan

    refused: tuple[RefusedPrecision, ...] = ()
    while True:
        known = look(engine).model_copy(update={"refused_precisions": refused})
        planned, after = plan(engine, known, datetime.now(UTC)), following(engine)
        found = None if after is None else refused_by_plan(planned) or gates.recall(planned)
        if after is None or found is None:
            return planned
        engine, refused = after, (*refused, found)


def _observe(arguments: argparse.Namespace) -> "Observed":
    from enginesmith_cli.catalog_file import ChartValues, fleet_settings, with_catalog
    from enginesmith_cli.home import default_store_uri, state_folder
    from enginesmith_cli.observe import observe_nodes, observe_this_machine

    store = arguments.store or default_store_uri(state_folder(arguments.home))
    values = ChartValues.read(arguments.values)
    if arguments.nodes:
        observed = observe_nodes(arguments.nodes, store, fleet_settings(values))
    else:
        # As `build` does.
        observed = observe_this_machine(store, build_for_absent_gpus=True)
    if values.files:
        observed = with_catalog(observed, values)
    keys = read_trusted_keys(arguments.trusted_keys)
    return observed.model_copy(update={"model_keys": keys, "signature_required": True}) if keys else observed


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
