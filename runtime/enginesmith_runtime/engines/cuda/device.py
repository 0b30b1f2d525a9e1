"""The first visible device's primary context, through pycuda and cuda-bindings.

pycuda owns memory, streams and the context; cuda-bindings makes the calls that pycuda lacks (graphs) and those of the
hot path, because it returns the driver's error numbers and releases the interpreter's lock. Both use the same handles.
Without pycuda, cuda-bindings replaces it (`bindings_driver`).

A call may come from any thread. `current` pushes the context around calls that allocate or free memory, as pycuda
requires. `enter` makes it the thread's context permanently, which costs nothing from the second call on. pycuda's own
stack must be empty when a thread ends, or it aborts the process, so `enter` does not use it.
"""

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from enginesmith_contract.errors import EngineRefusedError
from enginesmith_runtime.engines.cuda.bindings_driver import BindingsDriver
from enginesmith_runtime.engines.cuda.faults import CudaCallError
from enginesmith_runtime.engines.occupancy import describe_occupancy

__all__ = ["CudaIdentity", "Gpu", "open_device"]

# Text of pycuda, and of `describe`, if a GPU in exclusive mode already has a process.
_BUSY: Final = ("busy or unavailable", "CUDA error 46")


class CudaIdentity(NamedTuple):
    """Name and compute capability ("9.0") of the device, as CUDA reports them."""

    name: str
    compute_capability: str


class _ThreadState(threading.local):
    entered = False


class Gpu:
    """One retained primary context.

    Attributes:
        driver: The module pycuda.driver, or a BindingsDriver.
        bindings: The module cuda.bindings.driver. Its functions return (CUresult, ...).
        identity: Name and compute capability of the device.
        thread: `thread.entered` is True if the calling thread has called `enter`. The hot path reads it.
    """

    def __init__(self, driver: Any, bindings: Any, device: Any, context: Any) -> None:
        self.driver = driver
        self.bindings = bindings
        self.identity = CudaIdentity(device.name(), ".".join(str(part) for part in device.compute_capability()))
        self.thread = _ThreadState()
        self._context = context
        self._handle = bindings.CUcontext(context.handle)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current on the calling thread while memory, streams or engines are created or freed."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def enter(self) -> None:
        """Make the context current on the calling thread from now on.

        Raises:
            CudaCallError: The driver refused.
        """
        self.check("cuCtxSetCurrent", self.bindings.cuCtxSetCurrent(self._handle))
        self.thread.entered = True

    def check(self, call: str, answer: tuple[Any, ...]) -> Any:
        """Return the results of a call of `bindings` without its CUresult.

        Raises:
            CudaCallError: The call failed.
        """
        if answer[0] != self.bindings.CUresult.CUDA_SUCCESS:
            raise CudaCallError(call, int(answer[0]))
        return answer[1] if len(answer) == 2 else answer[1:]  # noqa: PLR2004 - the result and one value

    def free_bytes(self) -> int:
        """Return the free memory of the device in bytes, after the use of all processes."""
        return int(self.driver.mem_get_info()[0])

    def release(self) -> None:
        """Release the primary context. Safe from any thread."""
        # pycuda can only release the current context. It removes it from its own stack; we pop the driver's stack.
        self._context.push()
        self._context.detach()
        self.bindings.cuCtxPopCurrent()


def open_device(driver: Any = None, bindings: Any = None) -> Gpu:
    """Retain the first device's primary context, which other users of CUDA in this process share.

    Args:
        driver: Replacement for pycuda.driver.
        bindings: Replacement for cuda.bindings.driver.

    Raises:
        EngineRefusedError: CUDA's Python bindings are missing or find no device.
    """
    try:
        bindings = bindings or importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        raise EngineRefusedError(
            "CUDA's Python bindings are missing",
            where="cuda-bindings",
            why=str(error),
            remedy="install cuda-bindings of the same CUDA major as TensorRT; `enginesmith doctor` prints the command",
            reason="ToolchainMissing",
        ) from error
    driver = driver or _pycuda_driver() or BindingsDriver(bindings)
    try:
        driver.init()
        device = driver.Device(0)
        return Gpu(driver, bindings, device, device.retain_primary_context())
    except driver.MemoryError as error:
        raise EngineRefusedError(
            "the GPU has no room for another process",
            where="device 0",
            why="; ".join(part for part in (str(error), describe_occupancy()) if part),
            remedy="find the users of its memory with nvidia-smi; use a GPU that is not shared, or a larger one",
            reason="OutOfMemory",
        ) from error
    except driver.Error as error:
        if any(words in str(error) for words in _BUSY):
            raise EngineRefusedError(
                "the GPU is held by another process",
                where="device 0",
                why="; ".join(part for part in (str(error), describe_occupancy()) if part),
                remedy="end that process, or set the GPU's compute mode to default (nvidia-smi -c 0 on the node)",
                reason="DeviceBusy",
            ) from error
        raise EngineRefusedError(
            "the GPU cannot be opened",
            where="device 0",
            why=str(error),
            remedy="check nvidia-smi on the node",
            reason="NoDevice",
        ) from error


def _pycuda_driver() -> Any:
    """Return the module pycuda.driver, or None if it is missing or was built for another CUDA or Python."""
    try:
        return importlib.import_module("pycuda.driver")
    except ImportError:
        return None
