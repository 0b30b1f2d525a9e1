"""Meaning of CUDA errors for a request, an engine and the process. Only this module knows the numbers.

Most errors end one call. Some leave the process's CUDA context unusable: every later call gives the same error, no
memory can be read or freed, and only a new process can continue. These errors are "sticky": the driver repeats them.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from enginesmith_contract.errors import DeviceFailedError, EnginesmithError, InferenceError

__all__ = ["OUT_OF_MEMORY", "CudaCallError", "EnqueueRefusedError", "describe", "device_failed", "is_sticky", "judge"]

_SUCCESS: Final = 0
OUT_OF_MEMORY: Final = 2
_NOT_READY: Final = 600

# Text that TensorRT logs if an allocation fails. Its calls only return False.
_MEMORY_WORDS: Final = ("out of memory", "OutOfMemory", "outOfMemory")


class CudaCallError(Exception):
    """A failed call of the driver. It is only used within the engine's modules.

    Attributes:
        call: Name of the driver's function.
        code: CUresult of the call.
    """

    def __init__(self, call: str, code: int) -> None:
        self.call = call
        self.code = code
        super().__init__(f"{call}: {describe(code)}")


class EnqueueRefusedError(Exception):
    """The library refused a call. The reason is in its log. It is only used within the engine's modules."""


class _Fault(NamedTuple):
    name: str
    meaning: str
    reason: str = "DeviceFailed"


# Errors that make the context unusable (CUDA driver API, "CUresult"; the numbers do not change).
_STICKY: Final = {
    3: _Fault("NOT_INITIALIZED", "the driver is not initialised"),
    4: _Fault("DEINITIALIZED", "the driver is shutting down"),
    46: _Fault("DEVICE_UNAVAILABLE", "the device is held by another process or is in an error state", "DeviceLost"),
    100: _Fault("NO_DEVICE", "there is no device any more", "DeviceLost"),
    101: _Fault("INVALID_DEVICE", "the device is not one that the driver knows", "DeviceLost"),
    201: _Fault("INVALID_CONTEXT", "the CUDA context is gone"),
    214: _Fault("ECC_UNCORRECTABLE", "an uncorrectable ECC error in the device's memory", "EccUncorrectable"),
    220: _Fault("NVLINK_UNCORRECTABLE", "an uncorrectable NVLink error", "NvLinkUncorrectable"),
    226: _Fault("CONTAINED", "a memory error that was contained to this process", "EccUncorrectable"),
    401: _Fault("ILLEGAL_STATE", "a resource is in a state in which it cannot be used"),
    700: _Fault("ILLEGAL_ADDRESS", "a kernel read or wrote an illegal address"),
    702: _Fault("LAUNCH_TIMEOUT", "a kernel ran longer than the device allows"),
    709: _Fault("CONTEXT_IS_DESTROYED", "the CUDA context was destroyed"),
    710: _Fault("ASSERT", "an assertion failed in a kernel"),
    714: _Fault("HARDWARE_STACK_ERROR", "a hardware stack error in a kernel"),
    715: _Fault("ILLEGAL_INSTRUCTION", "a kernel met an illegal instruction"),
    716: _Fault("MISALIGNED_ADDRESS", "a kernel used an address that is not aligned"),
    717: _Fault("INVALID_ADDRESS_SPACE", "a kernel used an address of the wrong kind of memory"),
    718: _Fault("INVALID_PC", "a kernel's program counter left its code"),
    719: _Fault("LAUNCH_FAILED", "a kernel failed while it ran"),
    721: _Fault("TENSOR_MEMORY_LEAK", "a kernel ended without giving tensor memory back"),
    802: _Fault("SYSTEM_NOT_READY", "the system's fabric is not ready", "DeviceLost"),
    805: _Fault("MPS_CONNECTION_FAILED", "the MPS daemon cannot be reached", "DeviceLost"),
    806: _Fault("MPS_RPC_FAILURE", "the MPS server does not answer", "DeviceLost"),
    807: _Fault("MPS_SERVER_NOT_READY", "the MPS server is not ready, or restarts after another client's fault"),
    810: _Fault("MPS_CLIENT_TERMINATED", "the MPS server ended this client"),
    999: _Fault("UNKNOWN", "an error without a name; often a device that fell off the bus", "DeviceLost"),
}

# Errors that affect only one call.
_PASSING: Final = {
    1: _Fault("INVALID_VALUE", "a parameter is out of range"),
    OUT_OF_MEMORY: _Fault("OUT_OF_MEMORY", "the device has not enough free memory"),
    34: _Fault("STUB_LIBRARY", "libcuda.so.1 is the toolkit's stub, not the driver's"),
    208: _Fault("ALREADY_MAPPED", "the memory is mapped already"),
    400: _Fault("INVALID_HANDLE", "a handle is not one that the driver gave"),
    701: _Fault("LAUNCH_OUT_OF_RESOURCES", "a kernel wants more registers or threads than there are"),
    801: _Fault("NOT_SUPPORTED", "the device or the system does not support it"),
    900: _Fault("STREAM_CAPTURE_UNSUPPORTED", "the operation cannot be recorded in a graph"),
    803: _Fault("SYSTEM_DRIVER_MISMATCH", "the driver's library and its kernel module are of different versions"),
    804: _Fault("COMPAT_NOT_SUPPORTED_ON_DEVICE", "the forward compatibility package does not support this GPU"),
    901: _Fault("STREAM_CAPTURE_INVALIDATED", "the recording of a graph became invalid"),
}


def is_sticky(code: int) -> bool:
    """Whether this error makes the process's CUDA context unusable."""
    return code in _STICKY


def describe(code: int) -> str:
    """Return an error as text, with its number and name."""
    fault = _STICKY.get(code) or _PASSING.get(code)
    return f"CUDA error {code}" if fault is None else f"CUDA error {code} (CUDA_ERROR_{fault.name}): {fault.meaning}"


def device_failed(code: int, *, doing: str, where: str, said: Sequence[str] = ()) -> DeviceFailedError:
    """Return the error for every request after a device failure.

    Args:
        code: a CUresult.
        doing: Call that failed.
        where: the engine.
        said: Messages of the library about it.
    """
    fault = _STICKY.get(code)
    return DeviceFailedError(
        "the GPU failed",
        where=where,
        why=" | ".join((f"{doing}: {describe(code)}", *said)),
        remedy="let a new process take over; if it repeats, check the node with nvidia-smi and dmesg",
        reason=fault.reason if fault else "DeviceFailed",
    )


def judge(error: CudaCallError | EnqueueRefusedError, now: int, *, where: str, said: Sequence[str]) -> EnginesmithError:
    """Return the error for the caller of a failed call: a device failure, or one failed inference.

    Args:
        error: Error of the call.
        now: CUresult of another driver call after the stream was synchronised.
        where: the engine.
        said: Messages of the library about it.
    """
    code = error.code if isinstance(error, CudaCallError) else now
    doing = error.call if isinstance(error, CudaCallError) else "the library could not enqueue the inference"
    if is_sticky(code):
        return device_failed(code, doing=doing, where=where, said=said)
    # An error that the driver repeats is sticky, even if it is not in the table.
    if now not in {_SUCCESS, _NOT_READY}:
        return device_failed(now, doing=doing, where=where, said=said)
    starved = code == OUT_OF_MEMORY or any(word in message for message in said for word in _MEMORY_WORDS)
    parts = (doing if code == _SUCCESS else f"{doing}: {describe(code)}", *said)
    return InferenceError(
        "the GPU has no memory for this inference" if starved else "the inference failed on the GPU",
        where=where,
        why=" | ".join(parts),
        remedy="send less at once, or lower serving.instances" if starved else "check the inputs of this request",
        reason="OutOfMemory" if starved else "",
    )
