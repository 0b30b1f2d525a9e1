"""The last line of `enginesmith up` before the server's own: a GPU of this machine that stays idle, and why."""

from types import SimpleNamespace
from typing import cast

import pytest
from tests.cli.conftest import CLS, CommandLine
from tests.cli.fake_machine import FakeMachine, fake_machine

from enginesmith_cli.idle_gpus import idle_gpus
from enginesmith_cli.local import BuiltEngine
from enginesmith_cli.machine_state import MachineState
from enginesmith_contract.backends import Backend, Hardware
from enginesmith_contract.matrix.load import load_matrix

__all__ = ["fake_machine"]

_GPU = Hardware(product="NVIDIA-H200", compute_capability="9.0", driver="580.95.05")


def _last_line(command_line: CommandLine) -> str:
    """Return what `up` says after the program for a client, which is the end of what it says itself."""
    with command_line.up() as server:
        said = server.log.read_text().splitlines()
        server.stop()
    (program_end,) = (number for number, line in enumerate(said) if "client.infer(" in line)
    return said[program_end + 1]


@pytest.mark.slow
def test_up_names_the_gpu_that_stays_idle_and_the_command(command_line: CommandLine, fake_machine: FakeMachine) -> None:
    fake_machine.add_gpu()
    said = _last_line(command_line)
    assert said.startswith("GPU NVIDIA-H200 stays idle: TensorRT is not installed; run: ")
    assert said.endswith(" 'enginesmith[runtime,tensorrt-cu13]'")


@pytest.mark.slow
def test_up_says_that_no_document_asks_for_the_gpu(command_line: CommandLine, fake_machine: FakeMachine) -> None:
    fake_machine.add_gpu()
    fake_machine.install_tensorrt("12", "10.6.0")
    fake_machine.install("cuda-bindings", "12.9.10")
    lines = CLS.splitlines(keepends=True)
    only_cpu = [line for line in lines if "name: gpu" not in line]
    (command_line.folder / "engine.yaml").write_text("".join(only_cpu).replace(", standby: true", ""))
    said = _last_line(command_line)
    assert said.startswith("GPU NVIDIA-H200 stays idle: no target of cls has a backend for GPUs")

    other = "".join(lines).replace("minMemory: 4Gi", "product: NVIDIA-L4")
    (command_line.folder / "engine.yaml").write_text(other)
    assert "target gpu of cls: Product" in _last_line(command_line)


def _served_by(backend: Backend) -> BuiltEngine:
    return cast("BuiltEngine", SimpleNamespace(manifest=SimpleNamespace(toolchain=SimpleNamespace(backend=backend))))


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ({}, ""),
        ({"devices": (_GPU,)}, ""),
        ({"devices": (_GPU,) * 2}, "1 more GPU of this machine stays idle: a server uses the first GPU that CUDA sees"),
        ({"devices": (_GPU,) * 8}, "7 more GPUs of this machine stay idle: a server uses the first GPU that CUDA sees"),
        (
            {"pci_gpus": 1, "driver_problem": "NVML says: Driver Not Loaded"},
            "this machine's GPU stays idle: NVML says: Driver Not Loaded; enginesmith doctor says what to do",
        ),
    ],
    ids=["no GPU", "one, in use", "two", "eight", "no driver"],
)
def test_a_gpu_is_idle_unless_the_server_uses_it(fields: dict[str, object], want: str) -> None:
    known = {"host": Hardware(), "python": "3.12", "install": "pip install", "uninstall": "pip uninstall -y"}
    state = MachineState.model_validate(known | fields)
    said = idle_gpus((_served_by(Backend.TENSORRT),), state, load_matrix())
    assert said.startswith(want)
    assert bool(said) is bool(want)
