"""A double of `pycuda.driver` and `cuda.bindings.driver` whose device memory is host memory.

Work on a stream is only queued, and done when somebody waits for the stream, so a missing wait shows as a missing
value. A stream that records keeps the work as a graph that can be launched again. An address that no live allocation
holds is an illegal address, after which every call fails, as on a device.
"""

# ruff: noqa: D102, N802, A001, N818 - the names, and the types, are those of the modules that it stands for

import ctypes
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

Work = Callable[[], None]
_ALIGNMENT = 256


class CUresult(IntEnum):
    """The numbers that the tests use."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_ECC_UNCORRECTABLE = 214
    CUDA_ERROR_INVALID_HANDLE = 400
    CUDA_ERROR_ILLEGAL_ADDRESS = 700
    CUDA_ERROR_LAUNCH_FAILED = 719
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901
    CUDA_ERROR_UNKNOWN = 999


class CUstreamCaptureMode(IntEnum):
    """As CUDA's."""

    CU_STREAM_CAPTURE_MODE_GLOBAL = 0
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1


class IllegalAddress(Exception):
    """Raised by work on a stream."""


class _Handle:
    def __init__(self, value: int) -> None:
        self._value = int(value)

    def __int__(self) -> int:
        return self._value


def _copy(to: int, data: bytes) -> None:
    ctypes.memmove(to, data, len(data))


@dataclass
class FakeStream:
    """Work that waits, and the graph that is being recorded."""

    waiting: list[Work] = field(default_factory=list)
    recording: list[Work] | None = None
    invalid: bool = False


@dataclass
class FakeDevice:
    """One GPU.

    Attributes:
        calls: how often each function was called.
        failures: the results that the next calls of a function give, by name.
        sticky: what every call answers from now on.
        refusal: words with which the device is refused; empty: it is there.
        regions: device memory of other processes, by IPC handle.
    """

    free: int = 1 << 30
    calls: Counter[str] = field(default_factory=Counter)
    failures: dict[str, list[CUresult]] = field(default_factory=dict)
    sticky: CUresult | None = None
    refusal: str = ""
    name: str = "NVIDIA H100 80GB HBM3"
    compute_capability: tuple[int, int] = (9, 0)
    regions: dict[bytes, np.ndarray] = field(default_factory=dict)
    streams: dict[int, FakeStream] = field(default_factory=dict)
    graphs: dict[int, list[Work]] = field(default_factory=dict)
    memory: dict[int, tuple[int, np.ndarray]] = field(default_factory=dict)
    pushed: int = 0

    def allocate(self, size: int) -> int:
        """Return the address of new device memory, full of a pattern that is no sensible value."""
        array = np.full(size + _ALIGNMENT, 0xA5, np.uint8)
        address = -(-int(array.ctypes.data) // _ALIGNMENT) * _ALIGNMENT
        self.memory[address] = (size, array)
        self.free -= size
        return address

    def release(self, address: int) -> None:
        """Free device memory."""
        size, array = self.memory.pop(address)
        array[:] = 0xDD
        self.free += size

    def check(self, address: int, size: int) -> None:
        """Raise unless the device may touch these bytes."""
        if not any(base <= address and address + size <= base + held for base, (held, _) in self.memory.items()):
            raise IllegalAddress(hex(address))

    def read(self, address: int, size: int) -> bytes:
        """Return bytes of the device."""
        self.check(address, size)
        return ctypes.string_at(address, size)

    def write(self, address: int, data: bytes) -> None:
        """Set bytes of the device."""
        self.check(address, len(data))
        ctypes.memmove(address, data, len(data))

    def put(self, stream: int, work: Work) -> CUresult:
        """Queue or record work."""
        target = self.streams[int(stream)]
        (target.waiting if target.recording is None else target.recording).append(work)
        return CUresult.CUDA_SUCCESS

    def drain(self, stream: int) -> CUresult:
        """Do what waits on a stream."""
        target = self.streams[int(stream)]
        try:
            while target.waiting:
                target.waiting.pop(0)()
        except IllegalAddress:
            self.sticky = CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
            target.waiting.clear()
        return self.sticky or CUresult.CUDA_SUCCESS

    def answer(self, call: str, *values: Any) -> tuple[Any, ...] | None:
        """Return the failure that this call must give, or None."""
        self.calls[call] += 1
        planned = self.failures.get(call)
        code = planned.pop(0) if planned else None
        if code is None or code is CUresult.CUDA_SUCCESS:
            code = self.sticky
        return None if code is None else (code, *(None for _ in values))


class FakeBindings:
    """cuda.bindings.driver."""

    CUresult = CUresult
    CUstreamCaptureMode = CUstreamCaptureMode
    CUstream = CUdeviceptr = CUcontext = _Handle

    def __init__(self, device: FakeDevice) -> None:
        self.device = device

    def cuCtxSetCurrent(self, _context: Any) -> tuple[Any, ...]:
        return self.device.answer("cuCtxSetCurrent") or (CUresult.CUDA_SUCCESS,)

    def cuCtxPopCurrent(self) -> tuple[Any, ...]:
        return self.device.answer("cuCtxPopCurrent", None) or (CUresult.CUDA_SUCCESS, None)

    def cuCtxSynchronize(self) -> tuple[Any, ...]:
        failed = self.device.answer("cuCtxSynchronize")
        drained = [self.device.drain(stream) for stream in self.device.streams]
        return failed or (max(drained, default=CUresult.CUDA_SUCCESS),)

    def cuStreamSynchronize(self, stream: Any) -> tuple[Any, ...]:
        return self.device.answer("cuStreamSynchronize") or (self.device.drain(stream),)

    def cuMemcpyHtoDAsync(self, target: Any, source: Any, size: int, stream: Any) -> tuple[Any, ...]:
        device, to, from_ = self.device, int(target), int(source)
        failed = device.answer("cuMemcpyHtoDAsync")
        return failed or (device.put(stream, lambda: device.write(to, ctypes.string_at(from_, size))),)

    def cuMemcpyDtoHAsync(self, target: Any, source: Any, size: int, stream: Any) -> tuple[Any, ...]:
        device, to, from_ = self.device, int(target), int(source)
        failed = device.answer("cuMemcpyDtoHAsync")
        return failed or (device.put(stream, lambda: _copy(to, device.read(from_, size))),)

    def cuMemcpyDtoDAsync(self, target: Any, source: Any, size: int, stream: Any) -> tuple[Any, ...]:
        device, to, from_ = self.device, int(target), int(source)
        failed = device.answer("cuMemcpyDtoDAsync")
        return failed or (device.put(stream, lambda: device.write(to, device.read(from_, size))),)

    def cuEventCreate(self, _flags: int) -> tuple[Any, ...]:
        return self.device.answer("cuEventCreate", None) or (CUresult.CUDA_SUCCESS, {"stream": None})

    def cuEventRecord(self, event: Any, stream: Any) -> tuple[Any, ...]:
        event["stream"] = int(stream)
        return self.device.answer("cuEventRecord") or (CUresult.CUDA_SUCCESS,)

    def cuEventSynchronize(self, event: Any) -> tuple[Any, ...]:
        return self.device.answer("cuEventSynchronize") or (self.device.drain(event["stream"]),)

    def cuEventDestroy(self, _event: Any) -> tuple[Any, ...]:
        return self.device.answer("cuEventDestroy") or (CUresult.CUDA_SUCCESS,)

    def cuStreamBeginCapture(self, stream: Any, _mode: IntEnum) -> tuple[Any, ...]:
        failed = self.device.answer("cuStreamBeginCapture")
        if failed is None:
            self.device.streams[int(stream)].recording = []
        return failed or (CUresult.CUDA_SUCCESS,)

    def cuStreamEndCapture(self, stream: Any) -> tuple[Any, ...]:
        target = self.device.streams[int(stream)]
        work, target.recording = target.recording, None
        invalid, target.invalid = target.invalid, False
        failed = self.device.answer("cuStreamEndCapture", None)
        if invalid:
            return (CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, None)
        return failed or (CUresult.CUDA_SUCCESS, tuple(work or ()))

    def cuGraphInstantiate(self, graph: Any, _flags: int) -> tuple[Any, ...]:
        failed = self.device.answer("cuGraphInstantiate", None)
        if failed is not None:
            return failed
        handle = len(self.device.graphs) + self.device.calls["cuGraphInstantiate"] + 1
        self.device.graphs[handle] = list(graph)
        return (CUresult.CUDA_SUCCESS, _Handle(handle))

    def cuGraphUpload(self, _graph: Any, _stream: Any) -> tuple[Any, ...]:
        return self.device.answer("cuGraphUpload") or (CUresult.CUDA_SUCCESS,)

    def cuGraphDestroy(self, _graph: Any) -> tuple[Any, ...]:
        return self.device.answer("cuGraphDestroy") or (CUresult.CUDA_SUCCESS,)

    def cuGraphExecDestroy(self, graph: Any) -> tuple[Any, ...]:
        self.device.graphs.pop(int(graph))
        return self.device.answer("cuGraphExecDestroy") or (CUresult.CUDA_SUCCESS,)

    def cuGraphLaunch(self, graph: Any, stream: Any) -> tuple[Any, ...]:
        failed = self.device.answer("cuGraphLaunch")
        if failed is None:
            for work in self.device.graphs[int(graph)]:
                self.device.put(stream, work)
        return failed or (CUresult.CUDA_SUCCESS,)

    def cuMemGetAddressRange(self, address: Any) -> tuple[Any, ...]:
        failed = self.device.answer("cuMemGetAddressRange", None, None)
        size, _ = self.device.memory[int(address)]
        return failed or (CUresult.CUDA_SUCCESS, _Handle(int(address)), size)


class FakeDriver:
    """pycuda.driver."""

    class Error(Exception):
        """As pycuda's."""

    class MemoryError(Error):
        """As pycuda's."""

    class LogicError(Error):
        """As pycuda's."""

    def __init__(self, device: FakeDevice) -> None:
        self.device = device

    def init(self) -> None:
        """As pycuda's."""

    def Device(self, _index: int) -> "_Device":
        if self.device.failures.get("Device"):
            raise self.LogicError("cuDeviceGet failed: invalid device ordinal")
        if self.device.refusal:
            raise self.LogicError(self.device.refusal)
        return _Device(self.device)

    def Stream(self, flags: int) -> "_Stream":
        assert flags == 1, "a stream that waits for the default stream"
        return _Stream(self)

    def mem_alloc(self, size: int) -> "_Allocation":
        self.device.calls["mem_alloc"] += 1
        if self.device.sticky:
            raise self.LogicError("cuMemAlloc failed")
        if size > self.device.free:
            raise self.MemoryError("cuMemAlloc failed: out of memory")
        return _Allocation(self.device, self.device.allocate(size))

    def pagelocked_empty(self, size: int, dtype: Any) -> np.ndarray:
        self.device.calls["pagelocked_empty"] += 1
        return np.full(size, 0x5A, dtype)

    def mem_get_info(self) -> tuple[int, int]:
        return self.device.free, 1 << 30

    def IPCMemoryHandle(self, handle: bytearray) -> "_Allocation":
        assert isinstance(handle, bytearray), "pycuda takes no bytes here"
        region = self.device.regions.get(bytes(handle))
        if region is None:
            raise self.LogicError("cuIpcOpenMemHandle failed: invalid value")
        address = int(region.ctypes.data)
        self.device.memory[address] = (region.nbytes, region)
        return _Allocation(self.device, address)


class _Device:
    def __init__(self, device: FakeDevice) -> None:
        self._device = device

    def name(self) -> str:
        return self._device.name

    def compute_capability(self) -> tuple[int, int]:
        return self._device.compute_capability

    def retain_primary_context(self) -> "_Context":
        if self._device.free <= 0:
            raise FakeDriver.MemoryError("cuDevicePrimaryCtxRetain failed: out of memory")
        return _Context(self._device)


class _Context:
    handle = 1

    def __init__(self, device: FakeDevice) -> None:
        self._device = device

    def push(self) -> None:
        self._device.pushed += 1

    def pop(self) -> None:
        self._device.pushed -= 1

    def detach(self) -> None:
        self.pop()
        self._device.calls["release"] += 1


class _Stream:
    def __init__(self, driver: FakeDriver) -> None:
        assert driver.device.pushed, "no current context"
        self.handle = 1000 + len(driver.device.streams)
        driver.device.streams[self.handle] = FakeStream()


class _Allocation:
    def __init__(self, device: FakeDevice, address: int) -> None:
        self._device = device
        self._address = address

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        assert self._device.pushed, "no current context"
        self._device.release(self._address)

    def close(self) -> None:
        self._device.memory.pop(self._address)
