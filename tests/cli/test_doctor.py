"""`enginesmith doctor` on this machine, and on machines with a GPU that are put together from fakes."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import CommandLine
from tests.cli.fake_machine import FakeMachine, fake_machine

from enginesmith_cli.diagnosis import diagnose
from enginesmith_cli.machine_state import MachineState, ToolchainState
from enginesmith_contract.backends import Backend, Hardware, Toolchain
from enginesmith_contract.matrix.load import load_matrix
from enginesmith_runtime.engines.device import count_pci_gpus

__all__ = ["fake_machine"]

_ORT = ToolchainState(toolchain=Toolchain(name="onnxruntime", backend=Backend.ONNXRUNTIME, version="1.32.0"))


@pytest.fixture
def command(tmp_path: Path) -> CommandLine:
    """A command line that needs no model."""
    return CommandLine(tmp_path)


@pytest.mark.slow
def test_a_machine_without_a_gpu_serves_on_its_cpu(command: CommandLine) -> None:
    run = command.run("doctor")
    assert run.returncode == 0, run.stderr
    assert "gpu      none" in run.stdout
    assert "CPUExecutionProvider" in run.stdout
    assert "works    enginesmith up builds and serves on CPU with onnxruntime" in run.stdout
    assert "problem" not in run.stdout


@pytest.mark.slow
def test_a_gpu_without_tensorrt_gets_the_command_that_installs_it(
    command: CommandLine, fake_machine: FakeMachine
) -> None:
    fake_machine.add_gpu()
    run = command.run("doctor", "-o", "json")
    document = json.loads(run.stdout)
    remedy = f"run: {document['machine']['install']} 'enginesmith[runtime,tensorrt-cu13]'"
    assert run.returncode == 30
    assert document["works"] is False
    assert document["problems"] == [
        {"what": "TensorRT is not installed", "where": "NVIDIA-H200", "why": "", "remedy": remedy}
    ]
    assert run.stderr == f"enginesmith: NVIDIA-H200: TensorRT is not installed. R{remedy[1:]}.\n"


@pytest.mark.slow
def test_a_tensorrt_that_does_not_load_is_told_in_its_own_words(
    command: CommandLine, fake_machine: FakeMachine
) -> None:
    fake_machine.add_gpu(cuda_says=802)
    fake_machine.install_tensorrt("12", "11.4.0.106", fails="libnvinfer.so.11: cannot open shared object file")
    run = command.run("doctor")
    assert run.returncode == 30
    assert "does not load: libnvinfer.so.11: cannot open shared object file" in run.stdout
    assert "NVIDIA-H200: CUDA does not start: the NVIDIA driver does not start: cuInit: CUDA error 802" in run.stderr


@pytest.mark.slow
def test_a_gpu_with_all_that_it_needs_works(command: CommandLine, fake_machine: FakeMachine) -> None:
    fake_machine.add_gpu(driver="580.159.04")
    fake_machine.install_tensorrt("12", "10.6.0.post1")
    fake_machine.install("cuda-bindings", "13.3.1")
    run = command.run("doctor")
    assert run.returncode == 0, run.stderr
    assert "gpu 0    NVIDIA-H200, compute capability 9.0, 144384 MiB" in run.stdout
    assert "driver   580.159.04, runs CUDA up to 13.0" in run.stdout
    assert "works    enginesmith up builds and serves on NVIDIA-H200 with tensorrt-cu12-bindings" in run.stdout
    assert "note     pycuda is not installed; cuda-bindings is used instead" in run.stdout
    assert "TensorRT for RTX runs on compute capability" in run.stdout


def _state(**fields: Any) -> MachineState:
    known = {"host": Hardware(), "python": "3.12", "install": "pip install", "uninstall": "pip uninstall -y"}
    return MachineState.model_validate(known | {"toolchains": (_ORT,)} | fields)


def _tensorrt(cuda: str, version: str, problem: str = "") -> ToolchainState:
    name = f"tensorrt-cu{cuda}-bindings"
    toolchain = Toolchain(name=name, backend=Backend.TENSORRT, version=version, cuda=cuda)
    return ToolchainState(toolchain=toolchain, problem=problem)


def _packages(cuda: str, version: str, bindings: str | None) -> dict[str, str]:
    found = {f"tensorrt-cu{cuda}{suffix}": version for suffix in ("", "-libs", "-bindings")}
    return found if bindings is None else found | {"cuda-bindings": bindings}


@pytest.mark.parametrize(
    ("gpu", "what", "said"),
    [
        ({}, "TensorRT is not installed", "run: pip install 'enginesmith[runtime,tensorrt-cu13]'"),
        (
            {"driver": "550.90.07"},
            "TensorRT is not installed",
            "run: pip install 'enginesmith[runtime,tensorrt-cu12]'",
        ),
        (
            {"driver": "470.82.01"},
            "the driver is too old",
            (
                "driver 470.82.01 is older than 525.60.13, which the oldest CUDA with a TensorRT for this GPU needs; "
                "install the NVIDIA driver 580.65.06 or newer (525.60.13 at least), then run enginesmith doctor again"
            ),
        ),
        (
            {"product": "NVIDIA-GeForce-GTX-1080", "compute_capability": "6.1"},
            "TensorRT does not support this GPU",
            (
                "no TensorRT 10 or 11 for Python 3.12 on amd64 has code for its compute capability 6.1; "
                "serve on the CPU with a target of backend: onnxruntime"
            ),
        ),
        (
            {"product": "Tesla-V100-SXM2-16GB", "compute_capability": "7.0", "driver": "550.90.07"},
            "TensorRT is not installed",
            "run: pip install 'enginesmith[runtime,tensorrt-cu12]' 'tensorrt-cu12==10.4.*'",
        ),
        (
            {"arch": "arm64", "driver": "550.90.07"},
            "TensorRT is not installed",
            "run: pip install 'enginesmith[runtime,tensorrt-cu12]' 'tensorrt-cu12==10.13.0.*'",
        ),
    ],
    ids=["CUDA 13", "CUDA 12", "old driver", "Pascal", "Volta", "arm64"],
)
def test_a_gpu_gets_the_tensorrt_that_fits_its_driver_and_its_generation(
    gpu: dict[str, str], what: str, said: str
) -> None:
    known = {"product": "NVIDIA-H200", "compute_capability": "9.0", "driver": "580.95.05"}
    found = diagnose(_state(devices=(Hardware.model_validate(known | gpu),)), load_matrix())
    (problem,) = found.problems
    assert not found.works
    assert problem.what == what
    assert "; ".join(part for part in (problem.why, problem.remedy) if part) == said


@pytest.mark.parametrize(
    ("installed", "bindings", "why", "remedy"),
    [
        (
            _tensorrt("13", "11.4.0.106"),
            "13.5.0",
            (
                "driver 550.90.07 is older than 580.65.06, which CUDA 13 needs (wanted: a driver >= 580.65.06, or "
                "TensorRT 11.4 built for CUDA 12)"
            ),
            (
                "run: pip uninstall -y tensorrt-cu13 tensorrt-cu13-bindings tensorrt-cu13-libs && "
                "pip install 'enginesmith[runtime,tensorrt-cu12]'"
            ),
        ),
        (
            _tensorrt("12", "11.4.0.106", "libnvinfer.so.11: no such file"),
            "12.9.10",
            "TensorRT 11.4.0.106 does not load: libnvinfer.so.11: no such file",
            (
                "run: pip install --force-reinstall --no-deps 'tensorrt-cu12==11.4.*' 'tensorrt-cu12-libs==11.4.*' "
                "'tensorrt-cu12-bindings==11.4.*'"
            ),
        ),
        (
            _tensorrt("12", "10.6.0"),
            None,
            "cuda-bindings is not installed",
            "run: pip install 'cuda-bindings==12.*'",
        ),
        (
            _tensorrt("12", "10.6.0", "libnvinfer.so.10: no such file"),
            "12.9.10",
            "TensorRT 10.6.0 does not load: libnvinfer.so.10: no such file",
            "run: pip install 'enginesmith[runtime,tensorrt-cu12]' 'tensorrt-cu12==11.4.*'",
        ),
    ],
    ids=["another CUDA", "broken", "no cuda-bindings", "broken and old"],
)
def test_a_tensorrt_that_does_not_work_is_told_with_its_cure(
    installed: ToolchainState, bindings: str | None, why: str, remedy: str
) -> None:
    gpu = Hardware(product="NVIDIA-H200", compute_capability="9.0", driver="550.90.07")
    toolchain = installed.toolchain
    packages = _packages(toolchain.cuda or "", toolchain.version, bindings)
    found = diagnose(_state(devices=(gpu,), toolchains=(installed, _ORT), packages=packages), load_matrix())
    assert not found.works
    assert [(problem.why, problem.remedy) for problem in found.problems] == [(why, remedy)]


@pytest.mark.parametrize(
    ("fields", "where", "remedy"),
    [
        ({"pci_gpus": 1, "driver_problem": "NVML says: Driver Not Loaded"}, "this machine", "NVIDIA's driver"),
        (
            {"pci_gpus": 1, "driver_problem": "the Python package nvidia-ml-py is not installed"},
            "this machine",
            "run: pip install 'enginesmith[runtime]'",
        ),
        ({"missing": ("grpcio>=1.76",)}, "this Python environment", "run: pip install 'enginesmith[runtime]'"),
        ({"toolchains": ()}, "this Python environment", "run: pip install 'enginesmith[runtime]'"),
        (
            {"toolchains": (_ORT.model_copy(update={"problem": "no libstdc++"}),)},
            "this Python environment",
            "run: pip install --force-reinstall onnxruntime",
        ),
    ],
    ids=["no driver", "no NVML", "packages missing", "nothing installed", "broken"],
)
def test_the_first_problem_has_the_cure(fields: dict[str, Any], where: str, remedy: str) -> None:
    found = diagnose(_state(**fields), load_matrix())
    assert not found.works
    assert found.problems[0].where == where
    assert remedy in found.problems[0].remedy


def test_notes_tell_what_no_toolchain_shows() -> None:
    gpu = Hardware(product="NVIDIA-H999", compute_capability="9.0", driver="580.65.06")
    packages = {"tensorrt-cu12-bindings": "10.6.0", "tensorrt-cu13-bindings": "11.4.0.106"}
    found = diagnose(_state(devices=(gpu,), packages=packages, visible_devices="1"), load_matrix())
    assert len(found.notes) == 3
    assert "CUDA_VISIBLE_DEVICES=1" in found.notes[0]
    assert "NVIDIA-H999 is not in the matrix" in found.notes[1]
    assert "overwrite each other's files" in found.notes[2]


def test_the_kernel_s_list_of_pci_devices_is_read(tmp_path: Path) -> None:
    for name, vendor, kind in (("a", "0x10de", "0x030200"), ("b", "0x10de", "0x0c0330"), ("c", "0x8086", "0x030000")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    (tmp_path / "empty").mkdir()
    assert count_pci_gpus(tmp_path) == 1
    assert count_pci_gpus(tmp_path / "missing") == 0
