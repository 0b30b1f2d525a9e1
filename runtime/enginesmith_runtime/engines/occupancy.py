"""Who holds a GPU's memory, as NVML tells: the other half of every message that says that there is not enough."""

import os
from typing import Any, Final

__all__ = ["describe_occupancy"]

_GIB: Final = 1 << 30
_MOST_NAMED: Final = 3


def describe_occupancy() -> str:
    """Return free and total memory of the first GPU and the processes that hold it; empty where NVML does not answer.

    A container sees no processes of others; the sizes are those of the whole GPU all the same.
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
    except pynvml.NVMLError:  # a GPU without memory of its own, or a slice that does not tell
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
