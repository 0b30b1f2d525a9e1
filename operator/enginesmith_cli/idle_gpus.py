"""Reports which GPUs of this machine `up` leaves idle, and why, in one line."""

from collections.abc import Iterator, Sequence

from enginesmith_cli.diagnosis import describe_gpu, gpu_problem
from enginesmith_cli.local import BuiltEngine
from enginesmith_cli.machine_state import MachineState
from enginesmith_contract.backend_traits import traits
from enginesmith_contract.matrix.model import Matrix

__all__ = ["idle_gpus"]


def idle_gpus(built: Sequence[BuiltEngine], state: MachineState, matrix: Matrix) -> str:
    """Return the line; empty if there is no GPU or none stays idle.

    Args:
        built: what the server is about to serve.
        state: this machine; libraries need not have been loaded.
        matrix: judges what is installed.
    """
    if not state.devices:
        if not state.pci_gpus:
            return ""
        return f"this machine's GPU stays idle: {state.driver_problem}; enginesmith doctor says what to do"
    if any(traits(one.manifest.toolchain.backend).runs_on_gpu for one in built):
        others = len(state.devices) - 1
        if not others:
            return ""
        idle = f"{others} more {'GPU' if others == 1 else 'GPUs'} of this machine"
        stay = "stays" if others == 1 else "stay"
        remedy = "start another enginesmith up with its own CUDA_VISIBLE_DEVICES and --address"
        return f"{idle} {stay} idle: a server uses the first GPU that CUDA sees; {remedy}"
    gpu = state.devices[0]
    problem = gpu_problem(state, matrix, gpu)
    if problem is None:
        why = "; ".join(dict.fromkeys(_reasons(built)))
        return f"GPU {describe_gpu(gpu)} stays idle: {why}"
    found = ": ".join(part for part in (problem.what, problem.why) if part)
    return f"GPU {describe_gpu(gpu)} stays idle: {found}; {problem.remedy}"


def _reasons(built: Sequence[BuiltEngine]) -> Iterator[str]:
    """Yield why each document is served without the GPU, although it works."""
    for one in built:
        planned, engine = one.document.plan, one.document.engine
        backends = {target.name: target.backend for target in engine.spec.targets}
        wanting = [target for target in planned.targets if traits(backends[target.name]).runs_on_gpu]
        if not wanting:
            add = "add one, such as {name: gpu, backend: tensorrt}"
            yield f"no target of {planned.name} has a backend for GPUs; {add}"
        for target in wanting:
            refused = [*(count.sentence() for count in target.refusals), *target.hints]
            before = f"target {one.target.name} comes before it"
            yield f"target {target.name} of {planned.name}: {'; '.join(refused) or before}"
