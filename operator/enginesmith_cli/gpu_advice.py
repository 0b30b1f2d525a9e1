"""Advice for a GPU without a working toolchain: which TensorRT fits, and the command that installs it."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from enginesmith_cli.machine_state import MachineState
from enginesmith_contract.backends import Hardware
from enginesmith_contract.matrix.alternatives import BUILDER_MAJORS, fits_device
from enginesmith_contract.matrix.judges import driver_floor
from enginesmith_contract.matrix.model import Matrix, Release
from enginesmith_contract.matrix.query import CudaBuild
from enginesmith_contract.matrix.versions import is_in_line, major_of, version_numbers

__all__ = ["Advice", "advise_driver", "advise_tensorrt"]

_EXTRA_MAJORS: Final = ("13", "12")
"""CUDA majors that `enginesmith[tensorrt-cuMAJOR]` exists for, the best first."""


class Advice(NamedTuple):
    """What is wrong, why, and what to do, as in an EnginesmithError."""

    what: str
    why: str
    remedy: str


def advise_driver(state: MachineState) -> str:
    """Return what to do if the kernel sees a GPU but NVML does not answer."""
    if "nvidia-ml-py" in state.driver_problem:
        return f"run: {state.install} 'enginesmith[runtime]'"
    return (
        "install NVIDIA's driver, or restart after its update; in a container, give it the GPU "
        "(docker run --gpus all, or a GPU resource of the pod)"
    )


def advise_tensorrt(state: MachineState, matrix: Matrix, gpu: Hardware) -> Advice:
    """Return how the GPU gets a TensorRT that works: a command, a newer driver, or not at all."""
    fitting = next(_wheels(matrix, gpu, state.python), None)
    if fitting is not None:
        what = "the installed TensorRT does not work" if _installed(state) else "TensorRT is not installed"
        return Advice(what, "", f"run: {_command(state, matrix, fitting)}")
    any_driver = tuple(_wheels(matrix, gpu.model_copy(update={"driver": None}), state.python))
    floors = {
        floor.driver: version_numbers(floor.driver) or ()
        for build in any_driver
        if (floor := driver_floor(matrix, build.release, build.cuda)) is not None
    }
    if floors:
        oldest, best = min(floors, key=floors.__getitem__), max(floors, key=floors.__getitem__)
        why = f"driver {gpu.driver} is older than {oldest}, which the oldest CUDA with a TensorRT for this GPU needs"
        remedy = f"install the NVIDIA driver {best} or newer ({oldest} at least), then run enginesmith doctor again"
        return Advice("the driver is too old", why, remedy)
    why = (
        f"no TensorRT {' or '.join(BUILDER_MAJORS)} for Python {state.python} on {gpu.arch} has code for its compute "
        f"capability {gpu.compute_capability}"
    )
    return Advice("TensorRT does not support this GPU", why, "serve on the CPU with a target of backend: onnxruntime")


def _wheels(matrix: Matrix, gpu: Hardware, python: str) -> Iterator[CudaBuild]:
    """Yield the wheels that no rule refuses on the GPU, the best first: by release, then by CUDA."""
    for release in reversed(matrix.releases):
        if not _is_published(release) or not _has_python(release, python):
            continue
        for major in _EXTRA_MAJORS:
            build = CudaBuild(release, release.general_availability or "", major)
            if gpu.arch in release.wheels.get(major, ()) and fits_device(matrix, build, gpu):
                yield build


def _is_published(release: Release) -> bool:
    return major_of(release.line) in BUILDER_MAJORS and release.general_availability is not None


def _has_python(release: Release, python: str) -> bool:
    oldest, newest = (version_numbers(one) or () for one in release.python or (python, python))
    return oldest <= (version_numbers(python) or ()) <= newest


def _installed(state: MachineState) -> list[str]:
    """Return the installed packages of TensorRT, of any CUDA."""
    return sorted(name for name in state.packages if name == "tensorrt" or name.startswith("tensorrt-cu"))


def _command(state: MachineState, matrix: Matrix, build: CudaBuild) -> str:
    """Return the command that brings a build; what is installed for another CUDA has the same files, and goes first."""
    package = f"tensorrt-cu{build.cuda}"
    names = (package, f"{package}-libs", f"{package}-bindings")
    # The wheels of some releases have fewer numbers than the library.
    pinned = [f"'{name}=={build.release.line}.*'" for name in names]
    others = [name for name in _installed(state) if name not in names]
    removal = f"{state.uninstall} {' '.join(others)} && " if others else ""
    present = version_numbers(state.packages.get(names[-1]))
    if present is not None and is_in_line(present, build.release.line):
        return f"{removal}{state.install} --force-reinstall --no-deps {' '.join(pinned)}"
    newest = next(one for one in reversed(matrix.releases) if _is_published(one) and build.cuda in one.wheels)
    # pip takes the newest by itself, unless an older one is there already.
    is_taken = newest is build.release and present is None
    extra = f"'enginesmith[runtime,{package}]'"
    return removal + " ".join([state.install, extra, *([] if is_taken else pinned[:1])])
