"""Number of CPUs that this process can use: the smaller of its affinity and its cgroup's quota.

ONNX Runtime counts the machine's cores. In a pod with a limit of two CPUs on a large node it would start dozens of
threads, which the kernel then throttles, so the backend sets the number itself.
"""

import math
import os
from pathlib import Path

__all__ = ["count_usable_cpus"]

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def count_usable_cpus(cpu_max: Path = _CPU_MAX) -> int:
    """Return the number of CPUs, at least 1.

    Args:
        cpu_max: File of cgroup v2 with "<quota> <period>" in microseconds, or "max <period>".
    """
    try:
        affinity = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        affinity = os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
        limit = affinity if quota == "max" else math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no cgroup v2 here
        return affinity
    return max(1, min(affinity, limit))
