"""The calls of `cuda.bindings.driver` that own memory, streams and the context, on the device of `fake_cuda`.

For the engines where pycuda is not installed: everything then goes through cuda-bindings.
"""

# ruff: noqa: D102, N802 - the names are those of the module that they stand for

import ctypes
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
from tests.engines.fake_cuda import CUresult, FakeBindings, FakeDevice, FakeStream
from typing_extensions import override

_Answer = tuple[Any, ...]
_HANDLE_BYTES = 64


class Attribute(IntEnum):
    """As CUDA's CUdevice_attribute."""

    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76


class IpcHandle:
    """64 bytes that only their address gives access to."""

    def __init__(self) -> None:
        self.held = ctypes.create_string_buffer(_HANDLE_BYTES)

    def getPtr(self) -> int:
        return ctypes.addressof(self.held)


class FakeOwningBindings(FakeBindings):
    """cuda.bindings.driver, all that `BindingsDriver` calls included."""

    CUdevice_attribute = Attribute
    CUipcMemHandle = IpcHandle
    CUipcMem_flags = SimpleNamespace(CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS=1)

    def __init__(self, device: FakeDevice) -> None:
        super().__init__(device)
        self.pinned: dict[int, np.ndarray] = {}

    def cuInit(self, _flags: int) -> _Answer:
        return self.device.answer("cuInit") or (CUresult.CUDA_SUCCESS,)

    def cuDeviceGet(self, index: int) -> _Answer:
        return self.device.answer("Device", None) or (CUresult.CUDA_SUCCESS, index)

    def cuDeviceGetName(self, size: int, _device: Any) -> _Answer:
        return (CUresult.CUDA_SUCCESS, self.device.name.encode().ljust(size, b"\0"))

    def cuDeviceGetAttribute(self, attribute: Attribute, _device: Any) -> _Answer:
        at = attribute - Attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
        return (CUresult.CUDA_SUCCESS, self.device.compute_capability[at])

    def cuDevicePrimaryCtxRetain(self, _device: Any) -> _Answer:
        if self.device.free <= 0:
            return (CUresult.CUDA_ERROR_OUT_OF_MEMORY, None)
        return (CUresult.CUDA_SUCCESS, 1)

    def cuDevicePrimaryCtxRelease(self, _device: Any) -> _Answer:
        self.device.calls["release"] += 1
        return (CUresult.CUDA_SUCCESS,)

    def cuCtxGetCurrent(self) -> _Answer:
        return (CUresult.CUDA_SUCCESS, 1)

    def cuCtxPushCurrent(self, _context: Any) -> _Answer:
        self.device.pushed += 1
        return (CUresult.CUDA_SUCCESS,)

    @override
    def cuCtxPopCurrent(self) -> _Answer:
        self.device.pushed -= 1
        return (CUresult.CUDA_SUCCESS, 1)

    def cuStreamCreate(self, flags: int) -> _Answer:
        assert flags == 1, "a stream that waits for the default stream"
        assert self.device.pushed, "no current context"
        handle = 1000 + len(self.device.streams)
        self.device.streams[handle] = FakeStream()
        return self.device.answer("cuStreamCreate", None) or (CUresult.CUDA_SUCCESS, self.CUstream(handle))

    def cuStreamDestroy(self, _stream: Any) -> _Answer:
        self.device.calls["cuStreamDestroy"] += 1
        return (CUresult.CUDA_SUCCESS,)

    def cuMemGetInfo(self) -> _Answer:
        return (CUresult.CUDA_SUCCESS, self.device.free, 1 << 30)

    def cuMemAlloc(self, size: int) -> _Answer:
        failed = self.device.answer("mem_alloc", None)
        if failed is None and size > self.device.free:
            failed = (CUresult.CUDA_ERROR_OUT_OF_MEMORY, None)
        return failed or (CUresult.CUDA_SUCCESS, self.CUdeviceptr(self.device.allocate(size)))

    def cuMemFree(self, address: Any) -> _Answer:
        assert self.device.pushed, "no current context"
        self.device.release(int(address))
        return (CUresult.CUDA_SUCCESS,)

    def cuMemHostAlloc(self, size: int, _flags: int) -> _Answer:
        failed = self.device.answer("pagelocked_empty", None)
        if failed is not None:
            return failed
        memory = np.full(size, 0x5A, np.uint8)
        self.pinned[memory.ctypes.data] = memory
        return (CUresult.CUDA_SUCCESS, memory.ctypes.data)

    def cuMemFreeHost(self, address: int) -> _Answer:
        assert self.device.pushed, "no current context"
        del self.pinned[address]
        return (CUresult.CUDA_SUCCESS,)

    def cuIpcOpenMemHandle(self, handle: IpcHandle, _flags: int) -> _Answer:
        region = self.device.regions.get(handle.held.raw)
        if region is None:
            return (CUresult.CUDA_ERROR_INVALID_VALUE, None)
        address = int(region.ctypes.data)
        self.device.memory[address] = (region.nbytes, region)
        return (CUresult.CUDA_SUCCESS, self.CUdeviceptr(address))

    def cuIpcCloseMemHandle(self, address: Any) -> _Answer:
        self.device.memory.pop(int(address))
        return (CUresult.CUDA_SUCCESS,)
