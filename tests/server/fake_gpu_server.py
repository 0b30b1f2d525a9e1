"""A server process whose GPU is faked: the real server, with a loader that stands for TensorRT on an H100.

The engine doubles its input `data`; its input `command` makes it fail as a GPU fails (see `Command`). Usage: like
`python -m enginesmith_runtime.server`.
"""

import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from enginesmith_contract.backends import Backend, Hardware
from enginesmith_contract.errors import DeviceFailedError, InferenceError
from enginesmith_contract.manifest import Manifest
from enginesmith_runtime.engines import registry
from enginesmith_runtime.engines.interface import Array, Engine, Instance
from enginesmith_runtime.server import __main__ as server
from enginesmith_runtime.server import loading

FAKE_GPU = Hardware(
    product="NVIDIA-H100-80GB-HBM3",
    compute_capability="9.0",
    memory_mib=81559,
    multiprocessors=132,
    driver="580.159.04",
)
FAKE_VERSION = "10.6.0.26"


class Command(IntEnum):
    """What the engine is told to do."""

    RUN = 0
    RUN_OUT_OF_MEMORY = 1
    FAIL = 2
    """After data[0] seconds."""
    HANG = 3
    """As an inference does on a GPU that has fallen off the bus."""


class FakeInstance(Instance):
    """Obeys."""

    def infer(self, inputs: Mapping[str, Array], *, profile: int, outputs: Sequence[str]) -> dict[str, Array]:
        """Do what the command says."""
        del profile
        data = inputs["data"]
        match Command(int(inputs["command"][0])):
            case Command.RUN:
                return dict.fromkeys(outputs, data * 2)
            case Command.RUN_OUT_OF_MEMORY:
                raise InferenceError(
                    "the GPU has no memory for this request", why="12 MiB", remedy="send less", reason="OutOfMemory"
                )
            case Command.FAIL:
                time.sleep(float(data[0]))
                raise DeviceFailedError("an illegal memory access", where="device 0", why="CUDA error 700")
            case Command.HANG:
                threading.Event().wait()
        raise AssertionError

    def staging(self, name: str, shape: tuple[int, ...]) -> Array:
        """Return new memory."""
        return np.empty(shape, np.int64 if name == "command" else np.float32)

    def close(self) -> None:
        """Hold nothing."""


class FakeEngine(Engine):
    """Makes instances."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    def open_instance(self) -> FakeInstance:
        """Return a new one."""
        return FakeInstance()

    def close(self) -> None:
        """Hold nothing."""


class FakeLoader:
    """Loads anything."""

    backend = Backend.TENSORRT

    def version(self) -> str:
        """Return a version that the matrix knows."""
        return FAKE_VERSION

    def load(self, manifest: Manifest, files: Path, options: Mapping[str, str]) -> FakeEngine:
        """Return an engine that reads no file."""
        del files, options
        return FakeEngine(manifest)


if __name__ == "__main__":
    name = "fake_gpu_backend"
    sys.modules[name] = SimpleNamespace(create_loader=FakeLoader)
    registry._MODULES[Backend.TENSORRT] = name  # noqa: SLF001 - a backend that only tests have
    loading.detect_devices = lambda: (FAKE_GPU,)
    code = server.main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
