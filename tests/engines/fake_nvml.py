"""NVML with GPUs, one of which may be cut into a slice, or use the machine's memory: the test machine has none."""

from types import SimpleNamespace


class NVMLError(Exception):
    """What every call of the library raises."""


def fake_nvml(
    name: str,
    *,
    slice_name: str = "",
    memory_bytes: int | None = None,
    driver: str = "580.95.05",
    cuda: int = 13000,
    capability: tuple[int, int] = (12, 0),
    count: int = 1,
    lost: bool = False,
) -> SimpleNamespace:
    """Return a module that answers like pynvml.

    Args:
        name: of every GPU.
        slice_name: of its only MIG device; empty: MIG is off.
        memory_bytes: None: the GPU has none of its own.
        driver: its version.
        cuda: the newest CUDA that it runs, as NVML counts: 1000 times the major and 10 times the minor.
        capability: compute capability.
        count: of GPUs.
        lost: every GPU fell off the bus.
    """

    def memory(_handle: object) -> SimpleNamespace:
        if memory_bytes is None:
            raise NVMLError("Not Supported")
        return SimpleNamespace(total=memory_bytes)

    def handle_by_index(_index: int) -> str:
        if lost:
            raise NVMLError("GPU is lost")
        return "gpu"

    return SimpleNamespace(
        NVMLError=NVMLError,
        NVML_DEVICE_MIG_ENABLE=1,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: driver,
        nvmlSystemGetCudaDriverVersion_v2=lambda: cuda,
        nvmlDeviceGetCount=lambda: count,
        nvmlDeviceGetHandleByIndex=handle_by_index,
        nvmlDeviceGetCudaComputeCapability=lambda _handle: capability,
        nvmlDeviceGetNumGpuCores=lambda _handle: 24064,
        nvmlDeviceGetName=lambda handle: slice_name if handle == "slice" else name,
        nvmlDeviceGetMemoryInfo=memory,
        nvmlDeviceGetMigMode=lambda _handle: (1 if slice_name else 0, 0),
        nvmlDeviceGetMaxMigDeviceCount=lambda _handle: 1,
        nvmlDeviceGetMigDeviceHandleByIndex=lambda _handle, _index: "slice",
        nvmlDeviceGetAttributes_v2=lambda _handle: SimpleNamespace(memorySizeMB=24000, multiprocessorCount=46),
    )


def crowded_nvml() -> SimpleNamespace:
    """Return NVML of a GPU of 140 GiB that other processes fill."""
    library = fake_nvml("NVIDIA H200", memory_bytes=140 << 30)
    library.nvmlDeviceGetMemoryInfo = lambda _handle: SimpleNamespace(total=140 << 30, free=2 << 30)
    library.nvmlDeviceGetComputeRunningProcesses = lambda _handle: [
        SimpleNamespace(pid=4711, usedGpuMemory=130 << 30),
        SimpleNamespace(pid=4712, usedGpuMemory=None),
    ]
    return library
