"""Section `machine`: what the GPU, the driver and the libraries say of themselves."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from benchmarks.measure import machine

from enginesmith_runtime.engines.device import detect_devices
from enginesmith_runtime.engines.registry import installed_toolchains

__all__ = ["describe_machine"]

_PACKAGES: Final = (
    "numpy",
    "onnx",
    "onnxruntime",
    "grpcio",
    "protobuf",
    "pydantic",
    "pycuda",
    "cuda-bindings",
    "nvidia-ml-py",
)


def describe_machine() -> dict[str, Any]:
    """Return the machine; GPUs as NVML sees them."""
    found: dict[str, Any] = {
        "host": machine(),
        "devices": [device.model_dump(mode="json", by_alias=True) for device in detect_devices()],
        "toolchains": [one.model_dump(mode="json", by_alias=True) for one in installed_toolchains()],
        "packages": {name: _version(name) for name in _PACKAGES},
    }
    try:
        query = "name,driver_version,clocks.sm,clocks.max.sm,power.limit,persistence_mode"
        found["nvidiaSmi"] = subprocess.check_output(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv"], text=True, timeout=30
        ).splitlines()
    except (OSError, subprocess.SubprocessError) as error:
        found["nvidiaSmi"] = [str(error)]
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
