"""Entry point: picks the command and turns every failure into a sentence and an exit code.

Start-up time is a feature, so this module imports nothing but the standard library; a command's module is imported
when its name is on the command line. A command module has `add_arguments(parser)` and `run(arguments) -> int`.

    EnginesmithError    `enginesmith: <where>: <what>: <why>. <Remedy>.` on stderr, the error's own exit code
    Ctrl-C, SIGTERM     130, 143; what was half done is removed on the way out
    anything else       one line that says where the traceback lies, exit code 1
"""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NamedTuple

from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.text import one_line

__all__ = ["kubectl_plugin", "main"]

_DEBUG_VARIABLE: Final = "ENGINESMITH_DEBUG"
_OWN_OPTIONS: Final = ("--debug", "--version", "--help", "-h")
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class _Command(NamedTuple):
    name: str
    summary: str
    package: str = "enginesmith_cli.commands"

    @property
    def module(self) -> str:
        return f"{self.package}.{self.name}"


class _Program(NamedTuple):
    """One console script.

    Attributes:
        name: as a person types it.
        description: one sentence.
        commands: in the order that a newcomer needs them.
    """

    name: str
    description: str
    commands: tuple[_Command, ...]


_COMMANDS: Final = (
    _Command("up", "plan, prepare, build and serve every document of a file on this machine"),
    _Command("plan", "show what would be built and served where, and the reasons if nothing would"),
    _Command("build", "prepare a model and build its engine into the store"),
    _Command("serve", "serve engines of the store over gRPC"),
    _Command("infer", "send a file or random data to a server and print the outputs"),
    _Command("bench", "measure serving settings of a model on this machine, and recommend the best"),
    _Command("accuracy", "compare the precisions of a model: answers, size and latency on this machine"),
    _Command("inspect", "show the content of an engine and the hardware that it runs on"),
    _Command("store", "list an engine store, or delete unused engines"),
    _Command(
        "doctor",
        "check GPU, driver and toolchains of this machine, and print the command that installs what is missing",
    ),
    _Command("cache", "list, copy or fill the timing caches that shorten builds"),
    _Command("matrix", "show what fits a TensorRT version, a driver or a GPU"),
)
_CLUSTER: Final = "enginesmith_cli.plugin.commands"
_ENGINESMITH: Final = _Program(
    "enginesmith", "ONNX in, the right TensorRT engine on every GPU, verified and served.", _COMMANDS
)
_PLUGIN: Final = _Program(
    "kubectl enginesmith",
    "Shows the state of the engines in a cluster, the reasons, and what to do.",
    (
        _Command("status", "draw engines with their targets, builds, Jobs and pods", _CLUSTER),
        _Command("explain", "say why something is not Ready, what the reason means and what to do", _CLUSTER),
        _Command("plan", "show what a file would build and serve in this cluster, before it is applied", _CLUSTER),
        _Command("logs", "print the log of the pods that prepare, build or serve an engine", _CLUSTER),
        _Command("inspect", "show the builds of an engine and how they were verified", _CLUSTER),
        _Command("matrix", "show what fits a TensorRT version, a driver or a GPU"),
        _Command("gc", "list objects that are no longer needed, and delete them with --yes", _CLUSTER),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (see `enginesmith_contract.exit_codes`)."""
    return _main(_ENGINESMITH, arguments)


def kubectl_plugin(arguments: Sequence[str] | None = None) -> int:
    """Run the command line of `kubectl enginesmith`; returns the exit code."""
    return _main(_PLUGIN, _command_first(list(sys.argv[1:] if arguments is None else arguments)))


def _command_first(words: list[str]) -> list[str]:
    """Return the words with the connection's options behind the command: kubectl takes them on both sides."""
    names = {one.name for one in _PLUGIN.commands}
    place = next((number for number, word in enumerate(words) if word in names), 0)
    before = words[:place]
    own = [word for word in before if word in _OWN_OPTIONS]
    return [*own, *words[place : place + 1], *(word for word in before if word not in own), *words[place + 1 :]]


def _main(program: _Program, arguments: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(program, words)
    parsed = parser.parse_args(words)
    if parsed.version:
        print(f"enginesmith {_version()}")
        return ExitCode.OK
    if parsed.command is None:
        parser.print_help()
        return ExitCode.USAGE
    command = next(one for one in program.commands if one.name == parsed.command)
    return _run(command, parsed)


def _run(command: _Command, parsed: argparse.Namespace) -> int:
    from enginesmith_cli.signals import stop_signals_raise
    from enginesmith_contract.errors import EnginesmithError

    parsed.debug = _wants_traceback(parsed)
    with stop_signals_raise() as stop:
        try:
            code = int(import_module(command.module).run(parsed))
            # Flush here, where a closed reader is expected, and not when the interpreter exits.
            sys.stdout.flush()
        except EnginesmithError as error:
            if parsed.debug:
                raise
            print(f"enginesmith: {error}", file=sys.stderr)
            return int(error.exit_code)
        except KeyboardInterrupt:
            print("\nenginesmith: stopped", file=sys.stderr)
            return stop.exit_code
        except BrokenPipeError:
            # The reader (`| head`) is done; closing stdout here prevents an error message from Python at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return ExitCode.OK
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _FULL and not parsed.debug:
                return _report_full_disk(error)
            if parsed.debug:
                raise
            return _report_fault(error)
        else:
            return code


def _report_full_disk(error: OSError) -> int:
    place = error.filename or "the disk of the local folder or of the output"
    remedy = "Free space there, or choose another folder with --home."
    print(f"enginesmith: {place}: nothing more can be written: {error.strerror}. {remedy}", file=sys.stderr)
    return ExitCode.STORE_FAILED


def _report_fault(error: Exception) -> int:
    from enginesmith_cli.fault_log import write_fault_log

    path = write_fault_log(error)
    summary = one_line(f"{type(error).__name__}: {error}")
    print(f"enginesmith: internal error: {summary[:300]}. The traceback is in {path}.", file=sys.stderr)
    return ExitCode.INTERNAL


def _wants_traceback(parsed: argparse.Namespace) -> bool:
    return bool(parsed.debug or os.environ.get(_DEBUG_VARIABLE))


def _version() -> str:
    from importlib.metadata import version

    return version("enginesmith")


def _parser(program: _Program, words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program.name,
        description=program.description,
        epilog=f"{program.name} COMMAND --help shows a command's options.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("--debug", action="store_true", help=f"show tracebacks (also {_DEBUG_VARIABLE}=1)")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    wanted = next((word for word in words if not word.startswith("-")), None)
    for command in program.commands:
        subparser = subparsers.add_parser(command.name, help=command.summary, description=command.summary)
        if command.name == wanted:
            import_module(command.module).add_arguments(subparser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
