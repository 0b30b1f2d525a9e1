"""Reports which processes use a GPU's memory (from NVML), for messages about missing memory."""

import os
from typing import Any, Final

__all__ = ["describe_occupancy"]

_GIB: Final = 1 << 30
_MOST_NAMED: Final = 3


def describe_occupancy() -> str:
    """Return the free and total memory of the first GPU and the processes that use it, or "" if NVML does not work.

    A container does not see processes of other containers, but the sizes are always those of the whole GPU.
    """
    try:
        import pynvml
    except ImportError:
        return ""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ""
    try:
        return _describe(pynvml)
    except pynvml.NVMLError:  # a GPU with unified memory, or a slice that does not report it
        return ""
    finally:
        pynvml.nvmlShutdown()


def _describe(nvml: Any) -> str:
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    said = f"{memory.free / _GIB:.1f} of {memory.total / _GIB:.1f} GiB of the GPU are free"
    others = [
        f"process {one.pid} holds {(one.usedGpuMemory or 0) / _GIB:.1f} GiB"
        for one in nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        if one.pid != os.getpid()
    ]
    return "; ".join((said, *others[:_MOST_NAMED]))
