"""What `doctor` looks at: GPUs, driver, toolchains and packages of this machine and this Python environment.

Nothing here decides anything (`diagnosis` does), and nothing but the command line's own dependencies must be installed.
"""

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from typing import Final

from packaging.requirements import Requirement

from enginesmith_contract.backend_traits import list_traits
from enginesmith_contract.backends import Hardware, Toolchain
from enginesmith_contract.errors import EngineRefusedError
from enginesmith_contract.record import Record
from enginesmith_runtime.engines.cuda.driver import require_driver
from enginesmith_runtime.engines.device import count_pci_gpus, detect_devices, find_driver, host_hardware
from enginesmith_runtime.engines.registry import installed_toolchains, installed_version

__all__ = ["CUDA_BINDINGS", "PYCUDA", "MachineState", "ToolchainState", "read_machine"]

CUDA_BINDINGS: Final = "cuda-bindings"
PYCUDA: Final = "pycuda"
_PRODUCT: Final = "enginesmith"
_EXTRA: Final = "runtime"
_BINDINGS_SUFFIX: Final = "-bindings"


class ToolchainState(Record):
    """An installed toolchain.

    Attributes:
        problem: why its library does not load; empty where it does, or was not tried.
        providers: what ONNX Runtime calls its execution providers.
    """

    toolchain: Toolchain
    problem: str = ""
    providers: tuple[str, ...] = ()


class MachineState(Record):
    """This machine, and what is installed for this Python.

    Attributes:
        devices: GPUs and MIG slices as NVML sees them.
        driver: version of the NVIDIA driver; None where NVML does not answer.
        cuda: the newest CUDA that the driver runs.
        driver_problem: why NVML does not answer.
        cuda_problem: why CUDA does not start on a machine whose GPUs NVML sees.
        visible_devices: of the environment, which hides GPUs from CUDA and not from NVML.
        pci_gpus: NVIDIA devices that the kernel sees, with a driver or without.
        packages: versions of the installed packages of NVIDIA that matter here, by name.
        missing: requirements of the extra `runtime` that are not installed.
        python: such as "3.11".
        install: how packages are installed for this Python, up to their names.
        uninstall: the same for their removal.
    """

    host: Hardware
    devices: tuple[Hardware, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    driver_problem: str = ""
    cuda_problem: str = ""
    visible_devices: str | None = None
    pci_gpus: int = 0
    toolchains: tuple[ToolchainState, ...] = ()
    packages: Mapping[str, str] = {}
    missing: tuple[str, ...] = ()
    python: str
    install: str
    uninstall: str


def read_machine(*, load: bool = True) -> MachineState:
    """Inspect this machine.

    Args:
        load: load every library in a child, about a second each; False: believe the packages' metadata.
    """
    found = find_driver()
    devices = detect_devices()
    python = shlex.quote(sys.executable)
    has_pip = find_spec("pip") is not None
    return MachineState(
        host=host_hardware(),
        devices=devices,
        driver=found.version,
        cuda=found.cuda,
        driver_problem=found.problem,
        cuda_problem=_cuda_problem() if devices else "",
        visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        pci_gpus=count_pci_gpus(),
        toolchains=tuple(_toolchain_state(one, load=load) for one in installed_toolchains()),
        packages={name: version for name in _package_names() if (version := installed_version(name)) is not None},
        missing=tuple(_missing_requirements()),
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        install=f"{python} -m pip install" if has_pip else f"uv pip install --python {python}",
        uninstall=f"{python} -m pip uninstall -y" if has_pip else f"uv pip uninstall --python {python}",
    )


def _cuda_problem() -> str:
    try:
        require_driver(EngineRefusedError)
    except EngineRefusedError as error:
        return f"{error.what}: {error.where}: {error.why}"
    return ""


def _toolchain_state(toolchain: Toolchain, *, load: bool) -> ToolchainState:
    if not load:
        return ToolchainState(toolchain=toolchain)
    from enginesmith_cli.load_probe import probe_backend

    answer = probe_backend(toolchain.backend)
    return ToolchainState(toolchain=toolchain, problem=answer.problem, providers=answer.providers)


def _package_names() -> Iterator[str]:
    """Yield the packages of CUDA's bindings, and all that bring a library of NVIDIA's."""
    yield from (CUDA_BINDINGS, PYCUDA)
    for package in (package for row in list_traits() for package in row.packages):
        bare = package.name.removesuffix(_BINDINGS_SUFFIX)
        yield from dict.fromkeys((bare, f"{bare}-libs", package.name))


def _missing_requirements() -> Iterator[str]:
    """Yield requirements of the extra that are not installed; none if the product runs from a checkout's folders."""
    try:
        listed = requires(_PRODUCT) or []
    except PackageNotFoundError:
        return
    for requirement in map(Requirement, listed):
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}) or not marker.evaluate({"extra": _EXTRA}):
            continue
        version = installed_version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name}{requirement.specifier}"
