"""`enginesmith serve`: serve engines that the store has; nothing is built."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from enginesmith_cli.options import (
    add_home_options,
    add_server_options,
    add_trust_option,
    http_address,
    metrics_address,
    require_free_address,
    require_usable_access,
    tls_files,
    tokens_folder,
)
from enginesmith_contract.errors import PlanRefusedError

if TYPE_CHECKING:
    from enginesmith_cli.documents import Failures
    from enginesmith_cli.local import PreparedDocument
    from enginesmith_contract.serve_request import ServeRequest
    from enginesmith_operator.api.inference_engine import InferenceEngine

__all__ = ["add_arguments", "run"]

_EXAMPLES = """examples:
  enginesmith serve engine.yaml
  enginesmith serve cls=4f1c0de29ab37c5b2f10

The engines of a file must have been built (`enginesmith build`). A key may be shortened if it is still unique.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument("what", nargs="+", metavar="FILE|NAME=KEY", help="a file of documents, or engines by key")
    add_server_options(parser)
    add_home_options(parser)
    add_trust_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Find the engines and become the server; returns only where there is nothing to serve."""
    from enginesmith_cli.documents import Failures
    from enginesmith_cli.server_process import become_server, serve_request

    require_free_address(arguments)
    require_usable_access(arguments)
    if all("=" in word for word in arguments.what):
        become_server(_request_of_keys(arguments))
    failures = Failures(raise_at_once=arguments.debug)
    chosen = _choose(arguments, failures)
    if chosen:
        become_server(serve_request(chosen, arguments))
    return failures.exit_code


def _request_of_keys(arguments: argparse.Namespace) -> "ServeRequest":
    from enginesmith_cli.home import default_store_uri, state_folder
    from enginesmith_cli.stored_engines import find_engine
    from enginesmith_contract.serve_request import ServedModel, ServeRequest

    store = arguments.store or default_store_uri(state_folder(arguments.home))
    models = []
    for word in arguments.what:
        name, _, prefix = word.partition("=")
        manifest = find_engine(store, prefix)
        models.append(
            ServedModel(
                name=name,
                target=manifest.toolchain.name,
                engine_key=manifest.engine_key,
                store=store,
                instances=arguments.instances or 1,
                max_queued=arguments.max_queued,
            )
        )
    return ServeRequest(
        models=tuple(models),
        address=arguments.address,
        metrics_address=metrics_address(arguments),
        http_address=http_address(arguments),
        max_streams=arguments.max_streams,
        shared_memory=arguments.shared_memory,
        front_ends=arguments.front_ends,
        transport=arguments.transport,
        tls=tls_files(arguments),
        tokens=tokens_folder(arguments),
    )


def _choose(arguments: argparse.Namespace, failures: "Failures") -> "list[tuple[InferenceEngine, str, str]]":
    """Return each document with its target and the key of its engine."""
    from enginesmith_cli.documents import name_of
    from enginesmith_cli.local import open_machine
    from enginesmith_cli.server_process import largest_message
    from enginesmith_operator.api.load import read_file

    chosen: list[tuple[InferenceEngine, str, str]] = []
    files = [(word, read_file(Path(word))) for word in arguments.what]
    largest = largest_message(engine for _, engines in files for engine in engines)
    for word, engines in files:
        arguments.file = Path(word)
        with open_machine(arguments, max_message_bytes=largest) as machine:
            for document in machine.prepare_documents(engines, failures):
                with failures.of(name_of(document.engine)):
                    chosen += _stored_engines(document, machine.store, word)
    return chosen


def _stored_engines(document: "PreparedDocument", store: str, word: str) -> "list[tuple[InferenceEngine, str, str]]":
    from enginesmith_cli.local import servable_target

    target = servable_target(document.plan)
    found = []
    for one in target.engines:
        if not one.stored or one.engine_key is None:
            raise PlanRefusedError(
                "the store has no engine for it",
                where=f"{document.plan.name}/{target.name}",
                why=f"no engine with key {(one.engine_key or 'pending')[:20]} is in {store}",
                remedy=f"build it: enginesmith build {word}",
                reason="EngineMissing",
            )
        found.append((document.engine, target.name, one.engine_key))
    return found
