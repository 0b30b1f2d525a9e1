"""Allocates, counts and limits all device memory and pinned memory of one engine.

The counter proves that a request in steady state allocates no memory: `DeviceMemory.allocations` does not change.
"""

import threading
from enum import Enum, unique
from typing import Any, NoReturn

import numpy as np

from enginesmith_contract.errors import EngineRefusedError
from enginesmith_runtime.engines.cuda.device import Gpu
from enginesmith_runtime.engines.interface import Array, DeviceMemory

__all__ = ["CudaMemory", "Purpose"]


@unique
class Purpose(Enum):
    """Purpose of an allocation."""

    CONTEXTS = "activations"
    BUFFERS = "inputs and outputs"
    PINNED = "inputs and outputs on the host"


class CudaMemory:
    """Memory of one engine and its instances. The GPU's context must be current on each call."""

    def __init__(self, gpu: Gpu, *, where: str, weights: int | None = None, limit: int | None = None) -> None:
        """Record the weights, which the library allocated itself.

        Args:
            gpu: GPU that allocates the memory.
            where: Name of the engine in errors.
            weights: Device memory that was allocated during loading, in bytes.
            limit: Limit of all device memory in bytes.
        """
        self._driver = gpu.driver
        self._gpu = gpu
        self._where = where
        self._weights = weights
        self._limit = limit
        self._held = dict.fromkeys(Purpose, 0)
        self._allocations = 0
        self._lock = threading.Lock()

    def device(self, size: int, purpose: Purpose) -> Any:
        """Allocate `size` bytes on the device, aligned to 256 bytes. `int()` of the result is the address.

        Raises:
            EngineRefusedError: `OutOfMemory` if there is not enough memory, or the limit is exceeded.
        """
        self._refuse_beyond_limit(size, purpose)
        try:
            result = self._driver.mem_alloc(size)
        except self._driver.MemoryError as error:
            free = self._gpu.free_bytes()
            self._refuse(f"{purpose.value} need {_mib(size)}, and {_mib(free)} are free", error)
        self._count(size, purpose)
        return result

    def pinned(self, size: int) -> Array:
        """Return `size` bytes of page-locked host memory as an array of uint8, zeroed.

        Raises:
            EngineRefusedError: `OutOfMemory` if the host cannot lock that much memory.
        """
        try:
            result: Array = self._driver.pagelocked_empty(size, np.uint8)
        except self._driver.MemoryError as error:
            self._refuse(f"{Purpose.PINNED.value} need {_mib(size)} of page-locked memory", error)
        result[:] = 0
        self._count(size, Purpose.PINNED)
        return result

    def forget(self, size: int, purpose: Purpose) -> None:
        """Record that memory was freed."""
        with self._lock:
            self._held[purpose] -= size

    def report(self) -> DeviceMemory:
        """Return the memory that is allocated now."""
        with self._lock:
            return DeviceMemory(
                weights=self._weights,
                contexts=self._held[Purpose.CONTEXTS],
                buffers=self._held[Purpose.BUFFERS],
                pinned=self._held[Purpose.PINNED],
                allocations=self._allocations,
            )

    def _count(self, size: int, purpose: Purpose) -> None:
        with self._lock:
            self._held[purpose] += size
            self._allocations += 1

    def _refuse_beyond_limit(self, size: int, purpose: Purpose) -> None:
        if self._limit is None:
            return
        held = (self._weights or 0) + self._held[Purpose.CONTEXTS] + self._held[Purpose.BUFFERS]
        if held + size > self._limit:
            self._refuse(
                f"{purpose.value} need {_mib(size)} in addition to {_mib(held)} that are held, and "
                f"backendOptions.deviceMemoryLimit allows {_mib(self._limit)}",
                None,
            )

    def _refuse(self, why: str, cause: BaseException | None) -> NoReturn:
        raise EngineRefusedError(
            "there is no room for another instance",
            where=self._where,
            why=why,
            remedy="lower serving.instances, narrow the profiles, or use a GPU with more memory",
            reason="OutOfMemory",
        ) from cause


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
