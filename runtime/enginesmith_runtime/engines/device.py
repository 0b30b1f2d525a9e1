"""Detects the hardware of this machine: its GPUs through NVML, and the host.

NVML does not create a CUDA context, so the detection uses no GPU memory.
"""

import ctypes
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from enginesmith_contract.backends import Hardware
from enginesmith_contract.products import canonical_mig_profile, product_from_device_name

__all__ = [
    "DriverState",
    "count_pci_gpus",
    "detect_devices",
    "driver_problem",
    "find_driver",
    "host_hardware",
    "host_memory_mib",
]

# Architecture names of Kubernetes, by those of the kernel.
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}

# FP32 units of one multiprocessor by compute capability (CUDA C++ Programming Guide, "Arithmetic Instructions"); NVML
# reports the cores of a full GPU, but the multiprocessors only of a MIG slice.
_CORES_PER_MULTIPROCESSOR: Final = {"7.5": 64, "8.0": 64}
_CORES_SINCE_AMPERE_86: Final = 128

_PCI_DEVICES: Final = Path("/sys/bus/pci/devices")
_NVIDIA: Final = "0x10de"
_DISPLAY_CLASS: Final = "0x03"


class DriverState(NamedTuple):
    """State of the driver, as NVML reports it.

    Attributes:
        version: Version of the driver, such as "580.159.04"; None if NVML does not work.
        cuda: Newest CUDA version that the driver supports, such as "13.0".
        problem: Reason why NVML does not work; empty if it works.
    """

    version: str | None = None
    cuda: str | None = None
    problem: str = ""


def host_hardware() -> Hardware:
    """Return this machine without a GPU: architecture and operating system."""
    machine = platform.machine()
    return Hardware(arch=_ARCHITECTURES.get(machine, machine), os=platform.system().lower())


def host_memory_mib() -> int:
    """Return the memory of this machine in MiB. A GPU with unified memory uses the same memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20


def detect_devices() -> tuple[Hardware, ...]:
    """Return every GPU or MIG slice in NVML's order. The result is empty without NVML or a driver."""
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, or a driver that does not work
        return ()
    try:
        return tuple(_list_devices(pynvml))
    finally:
        pynvml.nvmlShutdown()


def find_driver() -> DriverState:
    """Return the state of the driver from NVML, or the reason why there is none."""
    try:
        import pynvml
    except ImportError:
        return DriverState(problem="the Python package nvidia-ml-py is not installed")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return DriverState(problem=f"NVML says: {error}")
    try:
        cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        return DriverState(_text(pynvml.nvmlSystemGetDriverVersion()), f"{cuda // 1000}.{cuda % 1000 // 10}")
    finally:
        pynvml.nvmlShutdown()


def count_pci_gpus(devices: Path = _PCI_DEVICES) -> int:
    """Return the number of NVIDIA display or compute devices that the kernel lists, with or without a driver."""
    return sum(
        _read_word(device / "vendor") == _NVIDIA and _read_word(device / "class").startswith(_DISPLAY_CLASS)
        for device in (devices.iterdir() if devices.is_dir() else ())
    )


def _read_word(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def driver_problem() -> str:
    """Return why no device was detected, as a clause: a missing library of the driver, its error, or no device."""
    for library in ("libcuda.so.1", "libnvidia-ml.so.1"):
        try:
            ctypes.CDLL(library)
        except OSError:
            return f"{library} of the NVIDIA driver is missing here"
    return find_driver().problem or "the NVIDIA driver shows no device here"


def _list_devices(nvml: Any) -> Iterator[Hardware]:
    driver = _text(nvml.nvmlSystemGetDriverVersion())
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            whole = _describe_gpu(nvml, handle, driver)
        except nvml.NVMLError:  # the GPU fell off the bus, or this process has no access to it
            continue
        slices = tuple(_list_slices(nvml, handle, whole))
        yield from slices or (whole,)


def _describe_gpu(nvml: Any, handle: Any, driver: str) -> Hardware:
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    capability = f"{major}.{minor}"
    host = host_hardware()
    try:
        cores = nvml.nvmlDeviceGetNumGpuCores(handle)
    except nvml.NVMLError:  # older drivers do not report it
        multiprocessors = None
    else:
        multiprocessors = cores // _CORES_PER_MULTIPROCESSOR.get(capability, _CORES_SINCE_AMPERE_86)
    return Hardware(
        product=product_from_device_name(_text(nvml.nvmlDeviceGetName(handle))),
        compute_capability=capability,
        memory_mib=_memory_mib(nvml, handle),
        multiprocessors=multiprocessors,
        driver=driver,
        arch=host.arch,
        os=host.os,
    )


def _memory_mib(nvml: Any, handle: Any) -> int | None:
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total) >> 20
    except nvml.NVMLError:  # a GPU without memory of its own, such as GB10
        return None


def _list_slices(nvml: Any, handle: Any, whole: Hardware) -> Iterator[Hardware]:
    try:
        mode, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError:  # the GPU does not support MIG
        return
    if mode != nvml.NVML_DEVICE_MIG_ENABLE:
        return
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError:  # no slice at this index, or this container has no access to it
            continue
        attributes = nvml.nvmlDeviceGetAttributes_v2(part)
        yield whole.model_copy(
            update={
                "mig_profile": _mig_profile(_text(nvml.nvmlDeviceGetName(part))),
                "memory_mib": attributes.memorySizeMB,
                "multiprocessors": attributes.multiprocessorCount,
            }
        )


def _mig_profile(name: str) -> str | None:
    """Return "1g.10gb.me" of "NVIDIA A100-SXM4-80GB MIG 1g.10gb+me": labels and keys have no "+"."""
    _, found, profile = name.partition(" MIG ")
    return canonical_mig_profile(profile.strip()) if found else None


def _text(value: bytes | str) -> str:
    # Releases of the library before 11.5 return bytes.
    return value.decode() if isinstance(value, bytes) else value
