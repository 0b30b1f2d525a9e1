"""The GPU itself, seen from outside the cluster's pods: its name, and the memory in use."""

import subprocess
from typing import Final

from tests.cluster.access import Cluster

__all__ = ["FULL_ROOM", "SIMULATED", "ask_nvidia_smi", "describe_gpu", "memory_in_use_mib", "node_with_real_gpu"]

SIMULATED: Final = "gpu-l4"
"""Node of a rehearsal: its GPUs are labels and numbers."""

FULL_ROOM: Final = 6
"""How often the GPU is handed out where servers and builds of several engines are to have room."""

_REAL: Final = "gpu-real"


def node_with_real_gpu(cluster: Cluster) -> str | None:
    """Return the name of the node that `hack/cluster up` adds on a machine with a GPU; None on any other machine."""
    return _REAL if cluster.run("kubectl", "get", "node", _REAL).returncode == 0 else None


def describe_gpu() -> str:
    """Return name, driver and memory of the GPU, as nvidia-smi says them."""
    return ask_nvidia_smi("name,driver_version,memory.total")


def memory_in_use_mib() -> int:
    """Return how much of the GPU's memory processes have, in MiB; the driver's own share is not among it."""
    used = subprocess.run(
        ["nvidia-smi", "--query-compute-apps=used_memory", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout
    return sum(int(line) for line in used.split() if line.isdigit())


def ask_nvidia_smi(fields: str) -> str:
    """Return what nvidia-smi says of these fields, one line a GPU."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout.strip()
