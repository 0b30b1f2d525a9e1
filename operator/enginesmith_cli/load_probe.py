"""Loads a backend's library in a process of its own: `python -m enginesmith_cli.load_probe BACKEND`.

A library whose parts do not fit may abort its process, so `doctor` loads none itself. The child prints one LoadAnswer.
"""

import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from enginesmith_contract.backend_traits import traits
from enginesmith_contract.backends import Backend
from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.record import Record
from enginesmith_contract.text import one_line
from enginesmith_runtime.child_processes import Limits, Outcome, open_event_stream, python_command, run_child
from enginesmith_runtime.engines.nvinfer.library import RTX_LIBRARY, TENSORRT_LIBRARY

__all__ = ["LoadAnswer", "probe_backend"]

_LONGEST_SECONDS: Final = 120
_LONGEST_PROBLEM: Final = 300


class LoadAnswer(Record):
    """What the child found.

    Attributes:
        problem: why the library does not load; empty where it does.
        providers: execution providers of ONNX Runtime, in its own names.
    """

    problem: str = ""
    providers: tuple[str, ...] = ()


def probe_backend(backend: Backend) -> LoadAnswer:
    """Return whether the library of an installed backend loads here."""
    command = python_command("enginesmith_cli.load_probe", backend)
    lines: list[bytes] = []
    limits = Limits(seconds=_LONGEST_SECONDS)
    with TemporaryDirectory(prefix="enginesmith-") as folder:
        end = run_child(command, log=Path(folder) / "load.log", limits=limits, tick=lambda: None, on_line=lines.append)
    if end.outcome is Outcome.OUT_OF_TIME:
        return LoadAnswer(problem=f"it did not load within {_LONGEST_SECONDS} s")
    if not lines:
        said = one_line(end.said)[-_LONGEST_PROBLEM:]
        return LoadAnswer(problem=f"its process ended with {end.cause}: {said or 'no output'}")
    return LoadAnswer.from_json(lines[-1])


def _load(backend: Backend) -> LoadAnswer:
    for library in (TENSORRT_LIBRARY, RTX_LIBRARY):
        if library.backend is backend:
            library.load()
            return LoadAnswer()
    module = import_module(traits(backend).module.partition(".")[0])
    return LoadAnswer(providers=tuple(module.get_available_providers()))


def _main(name: str) -> None:
    events = open_event_stream()
    try:
        answer = _load(Backend(name))
    except EnginesmithError as error:
        answer = LoadAnswer(problem=one_line(error.why or error.what))
    except (AttributeError, ImportError, OSError, RuntimeError) as error:
        answer = LoadAnswer(problem=one_line(f"{type(error).__name__}: {error}"))
    events.write(answer.to_json() + b"\n")


if __name__ == "__main__":
    _main(sys.argv[1])
