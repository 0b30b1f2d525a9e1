"""`enginesmith serve`: serve engines that the store has; nothing is built."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from enginesmith_cli.options import add_home_options, add_server_options, metrics_address, require_free_address
from enginesmith_contract.errors import PlanRefusedError

if TYPE_CHECKING:
    from enginesmith_contract.serve_request import ServeRequest

__all__ = ["add_arguments", "run"]

_EXAMPLES = """examples:
  enginesmith serve engine.yaml
  enginesmith serve cls=4f1c0de29ab37c5b2f10

A file's engines must have been built (`enginesmith build`). A key may be cut short where it is still unique.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument("what", nargs="+", metavar="FILE|NAME=KEY", help="a file of documents, or engines by key")
    add_server_options(parser)
    add_home_options(parser)


def run(arguments: argparse.Namespace) -> NoReturn:
    """Find the engines and become the server."""
    from enginesmith_cli.server_process import become_server  # noqa: PLC0415 - kept out of `--help`

    require_free_address(arguments)
    by_key = all("=" in word for word in arguments.what)
    become_server(_request_of_keys(arguments) if by_key else _request_of_file(arguments))


def _request_of_keys(arguments: argparse.Namespace) -> "ServeRequest":
    from enginesmith_cli.home import default_store_uri, state_folder  # noqa: PLC0415 - kept out of `--help`
    from enginesmith_cli.stored_engines import find_engine  # noqa: PLC0415 - the same
    from enginesmith_contract.serve_request import ServedModel, ServeRequest  # noqa: PLC0415 - the same

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
        max_streams=arguments.max_streams,
        shared_memory=arguments.shared_memory,
        front_ends=arguments.front_ends,
    )


def _request_of_file(arguments: argparse.Namespace) -> "ServeRequest":
    from enginesmith_cli.local import open_machine, servable_target  # noqa: PLC0415 - kept out of `--help`
    from enginesmith_cli.server_process import serve_request  # noqa: PLC0415 - the same
    from enginesmith_operator.api.load import read_file  # noqa: PLC0415 - the same

    chosen = []
    for word in arguments.what:
        arguments.file = Path(word)
        engines = read_file(arguments.file)
        with open_machine(arguments) as machine:
            for document in machine.prepare_documents(engines):
                target = servable_target(document.plan)
                for one in target.engines:
                    if not one.stored or one.engine_key is None:
                        raise PlanRefusedError(
                            "the store has no engine for it",
                            where=f"{document.plan.name}/{target.name}",
                            why=f"no engine with key {(one.engine_key or 'pending')[:20]} is in {machine.store}",
                            remedy=f"build it: enginesmith build {word}",
                            reason="EngineMissing",
                        )
                    chosen.append((document.engine, target.name, one.engine_key))
    return serve_request(chosen, arguments)
