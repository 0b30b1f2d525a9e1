"""A server process whose GPU is faked: the real server, with a loader that stands for TensorRT on an H100.

The engine doubles its input `data`; its input `command` makes it fail as a GPU fails, or run as long as a test wants
(see `Command`). Usage: like `python -m enginesmith_runtime.server`.
"""

import ctypes
import mmap
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType, ModuleType

import numpy as np
from typing_extensions import override

from enginesmith_contract.backends import Backend, Hardware
from enginesmith_contract.errors import DeviceFailedError, InferenceError, SpecError
from enginesmith_contract.manifest import Manifest
from enginesmith_runtime.engines import registry
from enginesmith_runtime.engines.interface import Array, DeviceArray, DeviceMemory, Engine, Instance
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
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the system has its objects


class Command(IntEnum):
    """What the engine is told to do."""

    RUN = 0
    RUN_OUT_OF_MEMORY = 1
    FAIL = 2
    HANG = 3
    """As an inference does on a GPU that has fallen off the bus."""
    HOLD = 4
    """Run once the test lets it: no machine is quick or slow enough to change what a test sees."""
    HOLD_AND_FAIL = 5


class FakeRegion:
    """A GPU's memory that another process has: a POSIX shared memory object, whose name is the handle."""

    def __init__(self, ipc_handle: bytes, size: int) -> None:
        try:
            with (_SHARED_MEMORY / ipc_handle.rstrip(b"\0").decode()).open("r+b") as file:
                self._memory = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise SpecError(
                "the handle cannot be opened", where="device 0", why="CUDA error 400", reason="SharedMemoryRefused"
            ) from error
        self.size = size
        self.address = np.frombuffer(self._memory, np.uint8).ctypes.data

    def close(self) -> None:
        """Only say so: a test reads it, and the mapping goes with the process."""
        sys.stderr.write("fake region closed\n")


class FakeInstance(Instance):
    """Obeys."""

    @override
    def infer(
        self,
        inputs: Mapping[str, Array | DeviceArray],
        *,
        profile: int,
        outputs: Sequence[str],
        into: Mapping[str, DeviceArray] = MappingProxyType({}),
    ) -> dict[str, Array | DeviceArray]:
        """Do what the command says."""
        del profile
        data = _values(inputs["data"])
        command = Command(int(_values(inputs["command"])[0]))
        if command in {Command.HOLD, Command.HOLD_AND_FAIL}:
            _wait_until_let_go()
        match command:
            case Command.RUN | Command.HOLD:
                return {name: _leave(data * 2, into.get(name)) for name in outputs}
            case Command.RUN_OUT_OF_MEMORY:
                raise InferenceError(
                    "the GPU has no memory for this request", why="12 MiB", remedy="send less", reason="OutOfMemory"
                )
            case Command.FAIL | Command.HOLD_AND_FAIL:
                raise DeviceFailedError("an illegal memory access", where="device 0", why="CUDA error 700")
            case Command.HANG:
                threading.Event().wait()
        raise AssertionError

    @override
    def staging(self, name: str, shape: tuple[int, ...]) -> Array:
        """Return new memory."""
        return np.empty(shape, np.int64 if name == "command" else np.float32)

    @override
    def close(self) -> None:
        """Hold nothing."""


def _wait_until_let_go() -> None:
    # The test makes this file in the folder of the server's request (`RunningServer.let_go`).
    let_go = Path(sys.argv[sys.argv.index("--request") + 1]).with_name("let-go")
    while not let_go.exists():
        time.sleep(0.005)


def _values(tensor: Array | DeviceArray) -> Array:
    if not isinstance(tensor, DeviceArray):
        return tensor
    content = (ctypes.c_byte * tensor.nbytes).from_address(tensor.address)
    values: Array = np.frombuffer(memoryview(content), tensor.dtype).reshape(tensor.shape)
    return values


def _leave(result: Array, place: DeviceArray | None) -> Array | DeviceArray:
    if place is None:
        return result
    if result.nbytes > place.nbytes:
        raise InferenceError(
            "an output is larger than its place", why=f"{result.nbytes} bytes", reason="OutputTooLarge"
        )
    ctypes.memmove(place.address, result.ctypes.data, result.nbytes)
    return DeviceArray(address=place.address, shape=result.shape, dtype=result.dtype, nbytes=result.nbytes)


class FakeEngine(Engine):
    """Makes instances."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    @property
    @override
    def device_memory(self) -> DeviceMemory:
        """Return numbers to recognise."""
        return DeviceMemory(weights=1000, contexts=200, buffers=30, pinned=4, allocations=5)

    @override
    def open_instance(self) -> FakeInstance:
        """Return a new one."""
        return FakeInstance()

    @override
    def open_shared_memory(self, ipc_handle: bytes, size: int, device_id: int) -> FakeRegion:
        """Map it."""
        del device_id
        return FakeRegion(ipc_handle, size)

    @override
    def close(self) -> None:
        """Hold nothing."""


class FakeLoader:
    """Loads anything."""

    backend = Backend.TENSORRT

    def version(self) -> str:
        """Return a version that the matrix knows."""
        return FAKE_VERSION

    def load(self, manifest: Manifest, files: Path, options: Mapping[str, str], *, instances: int = 1) -> FakeEngine:
        """Return an engine that reads no file."""
        del files, options, instances
        return FakeEngine(manifest)


if __name__ == "__main__":
    # In place of TensorRT's own module, which only tests replace.
    module = ModuleType(registry.module_name(Backend.TENSORRT))
    module.__dict__["create_loader"] = FakeLoader
    sys.modules[module.__name__] = module
    loading.__dict__["detect_devices"] = lambda: (FAKE_GPU,)
    code = server.main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
