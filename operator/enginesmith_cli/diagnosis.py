"""Diagnoses a machine's state: which GPU works with which toolchain, what is wrong, and what to do about it.

    MachineState + Matrix ──diagnose──> Diagnosis: fits, problems (the first one first), notes

Pure: the same rules of the matrix judge here that judge a plan.
"""

from collections.abc import Iterator
from typing import Final

from enginesmith_cli.gpu_advice import advise_driver, advise_tensorrt
from enginesmith_cli.machine_state import CUDA_BINDINGS, PYCUDA, MachineState, ToolchainState
from enginesmith_contract.backend_traits import traits
from enginesmith_contract.backends import Hardware
from enginesmith_contract.matrix.model import Matrix
from enginesmith_contract.matrix.query import MatrixQuery, find_product
from enginesmith_contract.matrix.rules import check_all, refusals
from enginesmith_contract.matrix.versions import major_of
from enginesmith_contract.record import Record
from enginesmith_contract.verdicts import Verdict

__all__ = ["Diagnosis", "Fit", "Problem", "describe_gpu", "diagnose", "gpu_problem"]

_CPU: Final = "CPU"


class Fit(Record):
    """Whether one installed toolchain works on one device.

    Attributes:
        device: the GPU's product, with its MIG profile; "CPU".
        toolchain: its package.
        works: whether engines can be built and run with it there.
        why: what is in the way, or what the matrix cannot tell.
    """

    device: str
    toolchain: str
    works: bool
    why: str = ""


class Problem(Record):
    """Something that is in the way, as an EnginesmithError says it; `remedy` has the command where there is one."""

    what: str
    where: str
    why: str = ""
    remedy: str


class Diagnosis(Record):
    """The answer.

    Attributes:
        works: engines can be built and served on a GPU of this machine; on the CPU where there is no GPU.
        problems: what is in the way, the first to cure first.
        notes: what is good to know.
    """

    works: bool
    fits: tuple[Fit, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()


def diagnose(state: MachineState, matrix: Matrix) -> Diagnosis:
    """Judge every toolchain on every device."""
    gpus = tuple(dict.fromkeys(state.devices))
    fits = [_fit_gpu(state, matrix, one, gpu) for gpu in gpus for one in state.toolchains if _is_for_gpus(one)]
    fits += [_fit_cpu(one) for one in state.toolchains if not _is_for_gpus(one)]
    problems = [*_package_problems(state), *_unseen_gpu(state)]
    problems += [problem for gpu in gpus if (problem := gpu_problem(state, matrix, gpu)) is not None]
    has_gpu = bool(gpus or state.pci_gpus)
    device_works = any(fit.works for fit in fits if (fit.device != _CPU) is has_gpu)
    if not has_gpu and not device_works and not state.missing:
        problems.append(_no_cpu_backend(state))
    works = device_works and not state.missing
    return Diagnosis(works=works, fits=tuple(fits), problems=tuple(problems), notes=tuple(_notes(state, matrix)))


def gpu_problem(state: MachineState, matrix: Matrix, gpu: Hardware) -> Problem | None:
    """Return why no installed toolchain works on a GPU, with the cure; None where one does."""
    where = describe_gpu(gpu)
    if state.cuda_problem:
        remedy = (
            "check nvidia-smi; in a container, give it the GPU with the capability `compute` "
            "(NVIDIA_DRIVER_CAPABILITIES=compute,utility)"
        )
        return Problem(what="CUDA does not start", where=where, why=state.cuda_problem, remedy=remedy)
    candidates = [one for one in state.toolchains if _is_for_gpus(one)]
    if any(_fit_gpu(state, matrix, one, gpu).works for one in candidates):
        return None
    fitting = [one for one in candidates if not one.problem and not _refused(matrix, one, gpu)]
    if fitting:
        major = major_of(fitting[0].toolchain.cuda) or major_of(state.cuda) or ""
        return Problem(
            what=f"{_title(fitting[0])} cannot run",
            where=where,
            why=f"{CUDA_BINDINGS} is not installed",
            remedy=f"run: {state.install} '{CUDA_BINDINGS}=={major}.*'",
        )
    why = "; ".join(_fit_gpu(state, matrix, one, gpu).why for one in candidates if not _is_hopeless(matrix, one, gpu))
    advice = advise_tensorrt(state, matrix, gpu)
    return Problem(what=advice.what, where=where, why=why or advice.why, remedy=advice.remedy)


def describe_gpu(gpu: Hardware) -> str:
    """Return a GPU's name in a sentence: its product, and its MIG profile where it is a slice."""
    return f"{gpu.product} MIG {gpu.mig_profile}" if gpu.mig_profile else str(gpu.product)


def _fit_gpu(state: MachineState, matrix: Matrix, one: ToolchainState, gpu: Hardware) -> Fit:
    answers = check_all(matrix, MatrixQuery(toolchain=one.toolchain, hardware=gpu))
    said = [f"{answer.found} (wanted: {answer.wanted})" for answer in refusals(answers)]
    if one.problem:
        said.insert(0, f"{_title(one)} does not load: {one.problem}")
    if state.cuda_problem:
        said.append(f"CUDA does not start: {state.cuda_problem}")
    if CUDA_BINDINGS not in state.packages:
        said.append(f"{CUDA_BINDINGS} is not installed")
    works = not said
    if works:
        said = [f"not known: {answer.found}" for answer in answers if answer.verdict is Verdict.UNKNOWN]
    return Fit(device=describe_gpu(gpu), toolchain=one.toolchain.name, works=works, why="; ".join(said))


def _fit_cpu(one: ToolchainState) -> Fit:
    why = f"it does not load: {one.problem}" if one.problem else ""
    return Fit(device=_CPU, toolchain=one.toolchain.name, works=not one.problem, why=why)


def _refused(matrix: Matrix, one: ToolchainState, gpu: Hardware) -> bool:
    return bool(refusals(check_all(matrix, MatrixQuery(toolchain=one.toolchain, hardware=gpu))))


def _is_hopeless(matrix: Matrix, one: ToolchainState, gpu: Hardware) -> bool:
    """Whether the toolchain is for completely different GPUs, so that it needs no message."""
    return not traits(one.toolchain.backend).builds_on_gpu and _refused(matrix, one, gpu)


def _is_for_gpus(one: ToolchainState) -> bool:
    return traits(one.toolchain.backend).runs_on_gpu


def _title(one: ToolchainState) -> str:
    return f"{traits(one.toolchain.backend).title} {one.toolchain.version}"


def _package_problems(state: MachineState) -> Iterator[Problem]:
    if state.missing:
        yield Problem(
            what="packages are missing",
            where="this Python environment",
            why=", ".join(state.missing),
            remedy=f"run: {state.install} 'enginesmith[runtime]'",
        )


def _unseen_gpu(state: MachineState) -> Iterator[Problem]:
    if state.pci_gpus and not state.devices and not state.missing:
        yield Problem(
            what="the kernel sees an NVIDIA GPU, but the driver does not answer",
            where="this machine",
            why=state.driver_problem or "NVML lists no GPU",
            remedy=advise_driver(state),
        )


def _no_cpu_backend(state: MachineState) -> Problem:
    broken = next((one for one in state.toolchains if not _is_for_gpus(one)), None)
    why = f"{_title(broken)}: {broken.problem}" if broken else "ONNX Runtime is not installed"
    again = "--force-reinstall onnxruntime" if broken else "'enginesmith[runtime]'"
    remedy = f"run: {state.install} {again}"
    return Problem(what="no backend works on the CPU", where="this Python environment", why=why, remedy=remedy)


def _notes(state: MachineState, matrix: Matrix) -> Iterator[str]:
    if state.visible_devices is not None:
        yield f"CUDA_VISIBLE_DEVICES={state.visible_devices} limits the GPUs that CUDA sees"
    for product in dict.fromkeys(gpu.product for gpu in state.devices if gpu.product):
        if find_product(matrix, product) is None:
            yield f"{product} is not in the matrix; its compute capability is used"
    bindings = [name for name in state.packages if name.startswith("tensorrt-cu") and name.endswith("-bindings")]
    if len(bindings) > 1:
        yield f"{' and '.join(bindings)} are both installed and overwrite each other's files; uninstall one of them"
    if CUDA_BINDINGS in state.packages and PYCUDA not in state.packages:
        yield f"{PYCUDA} is not installed; {CUDA_BINDINGS} is used instead"
