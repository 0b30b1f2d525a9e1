"""Entry point: picks the command and turns every failure into a sentence and an exit code.

Start-up time is a feature, so this module imports nothing but the standard library; a command's module is imported
when its name is on the command line. A command module has `add_arguments(parser)` and `run(arguments) -> int`.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NamedTuple

__all__ = ["main"]


class _Command(NamedTuple):
    name: str
    summary: str


# In the order that a newcomer needs them.
_COMMANDS: Final = (
    _Command("up", "plan, prepare, build and serve every document of a file on this machine"),
    _Command("plan", "show what would be built and served where, and why not"),
    _Command("build", "prepare a model and build its engine into the store"),
    _Command("serve", "serve engines of the store over gRPC"),
    _Command("infer", "send a file or random data to a server and print the outputs"),
    _Command("inspect", "show what is in an engine and where it will run"),
    _Command("matrix", "answer what fits a TensorRT version, a driver or a GPU"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (see `enginesmith_contract.exit_codes`)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(words)
    parsed = parser.parse_args(words)
    if parsed.command is None:
        parser.print_help()
        return 2
    module = import_module(f"enginesmith_cli.commands.{parsed.command}")
    from enginesmith_contract.errors import EnginesmithError  # noqa: PLC0415 - kept out of `--help`

    try:
        return int(module.run(parsed))
    except EnginesmithError as error:
        print(f"enginesmith: {error}", file=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="enginesmith",
        description="ONNX in, the right TensorRT engine on every GPU, verified and served.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for command in _COMMANDS:
        subparser = subparsers.add_parser(command.name, help=command.summary, description=command.summary)
        if command.name in words[:1]:
            import_module(f"enginesmith_cli.commands.{command.name}").add_arguments(subparser)
    return parser
