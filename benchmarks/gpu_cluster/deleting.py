"""Deletes every engine, and looks for what is left."""

import time
from typing import Final

from benchmarks.gpu_cluster.gpus import ask_nvidia_smi, memory_in_use_mib
from benchmarks.gpu_cluster.workplace import Workplace

__all__ = ["run"]

_KINDS: Final = (
    "inferenceengines,enginebuilds,pods,deployments,jobs,services,poddisruptionbudgets,horizontalpodautoscalers"
)


def run(work: Workplace) -> None:
    """Note how long it takes until no object and no process on the GPU is left."""
    tenant = work.tenant("cls")
    begun = time.monotonic()
    tenant.kubectl("delete", "inferenceengines", "--all", "--wait=false")
    work.until(lambda: not tenant.kubectl("get", _KINDS, "--ignore-not-found", "-o=name"), "all is gone", seconds=90)
    seconds = round(time.monotonic() - begun, 2)
    memory = memory_in_use_mib() if work.is_real else None
    says = ask_nvidia_smi("memory.used") if work.is_real else ""
    work.note("deleting", "everything", seconds=seconds, gpuMemoryMib=memory, memoryUsed=says)
