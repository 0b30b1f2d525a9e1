"""The part of pycuda.driver that the engines use, implemented with cuda-bindings.

pycuda is published as source, so its installation needs a C++ compiler and CUDA's headers. cuda-bindings is a wheel, so
an environment without pycuda runs the same engines through this module. Names and behaviour are those of pycuda.
"""

# ruff: noqa: A001, N802 - the names are those of pycuda

import ctypes
import weakref
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from enginesmith_runtime.engines.cuda.faults import OUT_OF_MEMORY, describe

__all__ = ["BindingsDriver"]

_NAME_BYTES: Final = 256


class BindingsDriver:
    """Replaces the module pycuda.driver.

    Args:
        bindings: The module cuda.bindings.driver.
    """

    class Error(Exception):
        """The driver refused a call. The text has the call and the CUDA error number."""

    class MemoryError(Error):
        """There is not enough memory."""

    def __init__(self, bindings: Any) -> None:
        self.bindings = bindings

    def call(self, name: str, *arguments: Any) -> Any:
        """Return the results of a call without its CUresult.

        Raises:
            BindingsDriver.Error: The call failed, or the driver's library cannot be loaded.
        """
        try:
            code, *values = getattr(self.bindings, name)(*arguments)
        except RuntimeError as error:
            raise self.Error(f"{name}: {error}") from error
        if code != self.bindings.CUresult.CUDA_SUCCESS:
            kind = self.MemoryError if int(code) == OUT_OF_MEMORY else self.Error
            raise kind(f"{name}: {describe(int(code))}")
        return values[0] if len(values) == 1 else tuple(values)

    def init(self) -> None:
        """Initialise the driver."""
        self.call("cuInit", 0)

    def Device(self, index: int) -> "_Device":
        """Return a device."""
        return _Device(self, self.call("cuDeviceGet", index))

    def Stream(self, flags: int) -> "_Stream":
        """Return a new stream of the current context."""
        return _Stream(self, flags)

    def mem_alloc(self, size: int) -> "_DeviceMemory":
        """Allocate `size` bytes on the device."""
        return _DeviceMemory(self, self.call("cuMemAlloc", size), "cuMemFree")

    def IPCMemoryHandle(self, handle: bytearray) -> "_DeviceMemory":
        """Map another process's device memory."""
        opaque = self.bindings.CUipcMemHandle()
        ctypes.memmove(opaque.getPtr(), bytes(handle), len(handle))
        lazy = self.bindings.CUipcMem_flags.CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS
        return _DeviceMemory(self, self.call("cuIpcOpenMemHandle", opaque, int(lazy)), "cuIpcCloseMemHandle")

    def pagelocked_empty(self, size: int, dtype: Any) -> npt.NDArray[Any]:
        """Return a page-locked array of `size` elements; its memory is freed with it."""
        dtype = np.dtype(dtype)
        address = int(self.call("cuMemHostAlloc", size * dtype.itemsize, 0))
        owner = (ctypes.c_uint8 * (size * dtype.itemsize)).from_address(address)
        weakref.finalize(owner, _free_pinned, self.bindings, self.call("cuCtxGetCurrent"), address).atexit = False
        return np.frombuffer(owner, dtype)

    def mem_get_info(self) -> tuple[int, int]:
        """Return the device's free and total memory in bytes."""
        free, total = self.call("cuMemGetInfo")
        return int(free), int(total)


class _Device:
    def __init__(self, driver: BindingsDriver, device: Any) -> None:
        self._driver = driver
        self._device = device

    def name(self) -> str:
        raw: bytes = self._driver.call("cuDeviceGetName", _NAME_BYTES, self._device)
        return raw.partition(b"\0")[0].decode()

    def compute_capability(self) -> tuple[int, int]:
        names = self._driver.bindings.CUdevice_attribute
        major, minor = (
            int(self._driver.call("cuDeviceGetAttribute", attribute, self._device))
            for attribute in (
                names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        return major, minor

    def retain_primary_context(self) -> "_Context":
        return _Context(self._driver, self._device, self._driver.call("cuDevicePrimaryCtxRetain", self._device))


class _Context:
    def __init__(self, driver: BindingsDriver, device: Any, context: Any) -> None:
        self._driver = driver
        self._device = device
        self._context = context
        self.handle = int(context)

    def push(self) -> None:
        self._driver.call("cuCtxPushCurrent", self._context)

    def pop(self) -> None:
        self._driver.call("cuCtxPopCurrent")

    def detach(self) -> None:
        """Release the context. As with pycuda, it stays on the driver's stack until the caller pops it."""
        self._driver.call("cuDevicePrimaryCtxRelease", self._device)


class _Stream:
    """A stream. It is destroyed with this object, whose owner must make the context current first."""

    def __init__(self, driver: BindingsDriver, flags: int) -> None:
        stream = driver.call("cuStreamCreate", flags)
        self.handle = int(stream)
        weakref.finalize(self, driver.bindings.cuStreamDestroy, stream).atexit = False


class _DeviceMemory:
    """Device memory, released by `free`, or by `close` if it belongs to another process."""

    def __init__(self, driver: BindingsDriver, address: Any, give_back: str) -> None:
        self._driver = driver
        self._address = address
        self._give_back = give_back

    def __int__(self) -> int:
        return int(self._address)

    def free(self) -> None:
        self._driver.call(self._give_back, self._address)

    close = free


def _free_pinned(bindings: Any, context: Any, address: int) -> None:
    """Free page-locked memory from any thread. If the context is gone, its memory is already freed."""
    (code,) = bindings.cuCtxPushCurrent(context)
    if code == bindings.CUresult.CUDA_SUCCESS:
        bindings.cuMemFreeHost(address)
        bindings.cuCtxPopCurrent()
