"""`enginesmith up`: every document of a file planned, prepared, built and served on this machine, on one port."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from enginesmith_cli.options import (
    add_home_options,
    add_server_options,
    add_trust_option,
    require_free_address,
    require_usable_access,
)
from enginesmith_cli.verification_lines import alarm_lines

if TYPE_CHECKING:
    from enginesmith_cli.documents import Failures
    from enginesmith_cli.local import BuiltEngine
    from enginesmith_operator.api.inference_engine import InferenceEngine

__all__ = ["add_arguments", "run"]

_EXAMPLES = """examples:
  enginesmith up engine.yaml
  enginesmith up engine.yaml --address 0.0.0.0:8001 --metrics-address none

Each document is served with its first target that this machine can serve, under metadata.name, version "1". If a
document fails, its error is printed, and the others are served.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument("file", metavar="FILE", type=Path, help="documents of kind InferenceEngine")
    add_server_options(parser)
    add_home_options(parser)
    add_trust_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Build what is missing, and become the server; returns only where there is nothing to serve."""
    from enginesmith_cli.documents import Failures
    from enginesmith_operator.api.load import read_file

    engines = read_file(arguments.file)
    require_free_address(arguments)
    require_usable_access(arguments)
    failures = Failures(raise_at_once=arguments.debug)
    built = _build_all(engines, arguments, failures)
    if built:
        _serve(built, arguments)
    return failures.exit_code


def _serve(built: "tuple[BuiltEngine, ...]", arguments: argparse.Namespace) -> NoReturn:
    from enginesmith_cli.server_process import become_server, secrets_note, serve_request

    for one in built:
        print("\n".join(_choice(one)), file=sys.stderr)
    print("\n".join(_client_program(built[0], arguments.address)), file=sys.stderr)
    note = secrets_note([one.document.engine for one in built], arguments)
    if note:
        print(note, file=sys.stderr)
    idle = _idle_gpus(built)
    if idle:
        print(idle, file=sys.stderr)
    become_server(
        serve_request([(one.document.engine, one.target.name, one.manifest.engine_key) for one in built], arguments)
    )


def _build_all(
    engines: "tuple[InferenceEngine, ...]", arguments: argparse.Namespace, failures: "Failures"
) -> "tuple[BuiltEngine, ...]":
    from enginesmith_cli.documents import name_of
    from enginesmith_cli.local import open_machine
    from enginesmith_cli.server_process import largest_message

    built: list[BuiltEngine] = []
    with open_machine(arguments, max_message_bytes=largest_message(engines)) as machine:
        for document in machine.prepare_documents(engines, failures):
            with failures.of(name_of(document.engine)):
                built += machine.build_served(document)
    return tuple(built)


def _choice(built: "BuiltEngine") -> list[str]:
    """Print which target serves the document, and why the other targets do not, one line each."""
    planned, chosen = built.document.plan, built.target.name
    state = "from the store" if built.was_stored else "built"
    toolchain = built.manifest.toolchain
    verification = built.manifest.verification.status.value
    engine = f"{built.manifest.engine_key[:20]} ({toolchain.name} {toolchain.version}, {verification}, {state})"
    lines = [f"{planned.name}: target {chosen} serves engine {engine}"]
    for target in planned.targets:
        if target.name == chosen:
            continue
        why = "; ".join([*(count.sentence() for count in target.refusals), *target.hints])
        lines.append(f"{planned.name}: target {target.name} was not chosen: {why or f'{chosen} comes before it'}")
    unproved = built.manifest.verification.reason
    said = (
        *built.new_warnings,
        *([f"verification: {unproved}"] if unproved else []),
        *alarm_lines(built.manifest.verification),
    )
    return lines + [f"{planned.name}: {warning}" for warning in said]


def _idle_gpus(built: "tuple[BuiltEngine, ...]") -> str:
    from enginesmith_cli.idle_gpus import idle_gpus
    from enginesmith_cli.machine_state import read_machine
    from enginesmith_contract.matrix.load import load_matrix

    return idle_gpus(built, read_machine(load=False), load_matrix())


def _client_program(built: "BuiltEngine", address: str) -> list[str]:
    """Return a program to paste; with port 0 the server names the port when it is Ready."""
    from enginesmith_cli.client_calls import python_call

    host, _, port = address.rpartition(":")
    reachable = f"{'127.0.0.1' if host in {'', '0.0.0.0', '[::]'} else host}:{port if port != '0' else 'PORT'}"  # noqa: S104 - compared
    program = python_call(built.document.plan.name, built.manifest, reachable)
    return ["from Python, after pip install 'tritonclient[grpc]':", *(f"  {line}" for line in program)]
