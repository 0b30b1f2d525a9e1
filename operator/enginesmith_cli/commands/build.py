"""`enginesmith build`: prepare models and build their engines into the store; nothing is served."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from enginesmith_cli.options import add_home_options, add_trust_option
from enginesmith_cli.verification_lines import alarm_lines, summarize_verification
from enginesmith_contract.errors import SpecError

if TYPE_CHECKING:
    from enginesmith_cli.documents import Failures
    from enginesmith_cli.local import BuiltEngine, LocalMachine, PreparedDocument
    from enginesmith_operator.planning.plan_records import Plan, TargetPlan

__all__ = ["add_arguments", "run"]

_OF_THE_MODEL = frozenset({"MissingValues", "UnsupportedOperators"})
"""Rules by which the model, and not this machine, refuses a target."""

_EXAMPLES = """examples:
  enginesmith build engine.yaml
  enginesmith build engine.yaml --target rtx --output json

Builds every target that this machine can build for; TensorRT for RTX also builds for a GPU that this machine does not
have. If a target fails, the others are still built; the exit code is that of the first failure.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument("file", metavar="FILE", type=Path, help="documents of kind InferenceEngine")
    parser.add_argument("--target", metavar="NAME", help="build this target only")
    parser.add_argument("--output", "-o", choices=("text", "json"), default="text", help="default: text")
    add_home_options(parser)
    add_trust_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Build every engine, print what is in the store then."""
    from enginesmith_cli.documents import Failures
    from enginesmith_cli.local import open_machine
    from enginesmith_operator.api.load import read_file

    engines = read_file(arguments.file)
    failures = Failures(raise_at_once=arguments.debug)
    built: list[BuiltEngine] = []
    with open_machine(arguments, build_for_absent_gpus=True) as machine:
        for document in machine.prepare_documents(engines, failures):
            built += _build(machine, document, arguments.target, failures)
    if arguments.output == "json":
        print(json.dumps([_facts(one) for one in built], indent=2, ensure_ascii=False))
    elif built:
        print("\n".join(_line(one) for one in built))
    for name, warning in dict.fromkeys(
        (one.document.plan.name, warning) for one in built for warning in (*one.new_warnings, *_alarms(one))
    ):
        print(f"{name}: {warning}", file=sys.stderr)
    return failures.exit_code


def _build(
    machine: "LocalMachine", document: "PreparedDocument", only: str | None, failures: "Failures"
) -> "list[BuiltEngine]":
    """Build the targets, all in the first precision whose engines pass."""
    from enginesmith_cli.documents import name_of
    from enginesmith_cli.local import PreparedDocument
    from enginesmith_operator.planning.refusal_error import refusal_error

    name = name_of(document.engine)
    targets: list[TargetPlan] = []
    with failures.of(name):
        targets += _wanted(document, only)
    built: list[BuiltEngine] = []
    for target in targets:
        with failures.of(f"{name}/{target.name}"):
            found = machine.build_or_fall_back(document, target)
            if isinstance(found, PreparedDocument):
                return _build(machine, found, only, failures)
            built += found
    with failures.of(name):
        incomplete = _incomplete(document.plan)
        if incomplete is not None:
            raise refusal_error(incomplete)
    return built


def _incomplete(plan: "Plan") -> "Plan | None":
    """Return the plan with only those targets that are refused for what the model is; None: there are none."""
    lacking = tuple(target for target in plan.targets if any(one.rule in _OF_THE_MODEL for one in target.refusals))
    return plan.model_copy(update={"targets": lacking}) if lacking else None


def _wanted(document: "PreparedDocument", name: str | None) -> "tuple[TargetPlan, ...]":
    from enginesmith_operator.planning.plan_records import TargetState
    from enginesmith_operator.planning.refusal_error import refusal_error

    targets = document.plan.targets
    if name is None:
        return tuple(target for target in targets if target.state is not TargetState.REFUSED)
    found = next((target for target in targets if target.name == name), None)
    if found is None:
        raise SpecError(
            "no such target",
            where=f"{document.plan.name}: --target {name}",
            why=f"it has {', '.join(target.name for target in targets)}",
            remedy="name one of them",
            reason="NoSuchTarget",
        )
    if found.state is TargetState.REFUSED:
        raise refusal_error(document.plan.model_copy(update={"targets": (found,)}))
    return (found,)


def _facts(built: "BuiltEngine") -> dict[str, object]:
    manifest = built.manifest
    return {
        "name": built.document.plan.name,
        "target": built.target.name,
        "engineKey": manifest.engine_key,
        "engineDigest": manifest.engine_digest,
        "toolchain": f"{manifest.toolchain.name} {manifest.toolchain.version}",
        "precision": manifest.precision.default.value,
        "sizeBytes": sum(file.size_bytes for file in manifest.files),
        "verification": json.loads(manifest.verification.to_json()),
        "buildSeconds": manifest.timings.build_seconds,
        "wasStored": built.was_stored,
        "warnings": [*built.warnings, *_alarms(built)],
    }


def _alarms(built: "BuiltEngine") -> list[str]:
    return [f"target {built.target.name}: {line}" for line in alarm_lines(built.manifest.verification)]


def _line(built: "BuiltEngine") -> str:
    manifest, verification = built.manifest, built.manifest.verification
    detail = summarize_verification(verification)
    return (
        f"{built.document.plan.name}/{built.target.name}  {manifest.engine_key[:20]}  "
        f"{manifest.toolchain.name} {manifest.toolchain.version}  "
        f"{'from the store' if built.was_stored else f'built in {manifest.timings.build_seconds:.1f} s'}  "
        f"{verification.status.value}{f' ({detail})' if detail else ''}"
    )
