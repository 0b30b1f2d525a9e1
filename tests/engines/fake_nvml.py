"""NVML with one GPU: a slice, or a GPU whose memory is the machine's, neither of which the test machine has."""

from types import SimpleNamespace


class NVMLError(Exception):
    """What every call of the library raises."""


def fake_nvml(name: str, *, slice_name: str = "", memory_bytes: int | None = None) -> SimpleNamespace:
    """Return a module that answers like pynvml.

    Args:
        name: of the GPU.
        slice_name: of its only MIG device; empty: MIG is off.
        memory_bytes: None: the GPU has none of its own.
    """

    def memory(_handle: object) -> SimpleNamespace:
        if memory_bytes is None:
            raise NVMLError("Not Supported")
        return SimpleNamespace(total=memory_bytes)

    return SimpleNamespace(
        NVMLError=NVMLError,
        NVML_DEVICE_MIG_ENABLE=1,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: "580.95.05",
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda _index: "gpu",
        nvmlDeviceGetCudaComputeCapability=lambda _handle: (12, 0),
        nvmlDeviceGetNumGpuCores=lambda _handle: 24064,
        nvmlDeviceGetName=lambda handle: slice_name if handle == "slice" else name,
        nvmlDeviceGetMemoryInfo=memory,
        nvmlDeviceGetMigMode=lambda _handle: (1 if slice_name else 0, 0),
        nvmlDeviceGetMaxMigDeviceCount=lambda _handle: 1,
        nvmlDeviceGetMigDeviceHandleByIndex=lambda _handle, _index: "slice",
        nvmlDeviceGetAttributes_v2=lambda _handle: SimpleNamespace(memorySizeMB=24000, multiprocessorCount=46),
    )
