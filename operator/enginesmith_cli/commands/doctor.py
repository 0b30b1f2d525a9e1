"""`enginesmith doctor`: GPUs, driver and toolchains of this machine, what works together, what is missing."""

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from enginesmith_contract.errors import EngineRefusedError
from enginesmith_contract.exit_codes import ExitCode

if TYPE_CHECKING:
    from enginesmith_cli.diagnosis import Diagnosis
    from enginesmith_cli.machine_state import MachineState, ToolchainState
    from enginesmith_contract.backends import Hardware

__all__ = ["add_arguments", "run"]

_EPILOG = """Checks this Python environment, and loads each library in a separate process.

The exit code is 0 if engines can be built and served on a GPU of this machine, or on the CPU if there is no GPU;
otherwise it is 30.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("--output", "-o", choices=("text", "json"), default="text", help="default: text")


def run(arguments: argparse.Namespace) -> int:
    """Print what was found.

    Raises:
        EngineRefusedError: nothing works on this machine's GPU, or on its CPU where there is no GPU.
    """
    from enginesmith_cli.diagnosis import diagnose
    from enginesmith_cli.machine_state import read_machine
    from enginesmith_contract.matrix.load import load_matrix

    state = read_machine()
    found = diagnose(state, load_matrix())
    if arguments.output == "json":
        document = {"machine": json.loads(state.to_json()), **json.loads(found.to_json())}
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print("\n".join(_page(state, found)))
    if found.works:
        return ExitCode.OK
    first = found.problems[0]
    raise EngineRefusedError(
        first.what, where=first.where, why=first.why, remedy=first.remedy, reason="NothingWorksHere"
    )


def _page(state: "MachineState", found: "Diagnosis") -> Iterator[str]:
    from enginesmith_cli.machine_state import CUDA_BINDINGS, PYCUDA

    yield from _machine(state)
    rows = [*map(_toolchain, state.toolchains)]
    rows += [(name, state.packages.get(name, "-"), "", "") for name in (CUDA_BINDINGS, PYCUDA)]
    yield from _table(("INSTALLED", "VERSION", "CUDA", "STATE"), rows)
    yield from _table(
        ("DEVICE", "TOOLCHAIN", "WORKS", "WHY"),
        [(fit.device, fit.toolchain, "yes" if fit.works else "no", fit.why) for fit in found.fits],
    )
    yield ""
    for problem in found.problems:
        yield f"problem  {': '.join(part for part in (problem.where, problem.what, problem.why) if part)}"
        yield f"         {problem.remedy}"
    yield from (f"note     {note}" for note in found.notes)
    if found.works:
        yield f"works    enginesmith up builds and serves on {_where_it_works(state, found)}"


def _machine(state: "MachineState") -> Iterator[str]:
    for number, gpu in enumerate(state.devices):
        yield f"gpu {number}    {_gpu(gpu)}"
    if not state.devices:
        seen = f"{state.pci_gpus} on the PCI bus" if state.pci_gpus else "none"
        yield f"gpu      {seen}"
    driver = f"{state.driver}, runs CUDA up to {state.cuda}" if state.driver else f"none ({state.driver_problem})"
    yield f"driver   {driver}"
    yield f"python   {state.python} on {state.host.arch}; packages: {state.install}"


def _gpu(gpu: "Hardware") -> str:
    from enginesmith_cli.diagnosis import describe_gpu

    memory = f", {gpu.memory_mib} MiB" if gpu.memory_mib else ""
    return f"{describe_gpu(gpu)}, compute capability {gpu.compute_capability}{memory}"


def _toolchain(one: "ToolchainState") -> tuple[str, str, str, str]:
    loads = ", ".join(("loads", *one.providers))
    state = f"does not load: {one.problem}" if one.problem else loads
    return one.toolchain.name, one.toolchain.version, one.toolchain.cuda or "", state


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    from enginesmith_cli.tables import table_lines

    yield ""
    yield from table_lines(head, rows or [("none", *("" for _ in head[1:]))])


def _where_it_works(state: "MachineState", found: "Diagnosis") -> str:
    names = [f"{fit.device} with {fit.toolchain}" for fit in found.fits if fit.works]
    gpus = [name for name in names if not name.startswith("CPU ")]
    return ", ".join(gpus if state.devices else names)
