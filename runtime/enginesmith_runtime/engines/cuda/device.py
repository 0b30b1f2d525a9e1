"""The first visible device's primary context, through pycuda and cuda-bindings.

pycuda owns memory, streams and the context; cuda-bindings makes the calls that pycuda lacks (graphs) and those of the
hot path, since it gives the driver's numbers and lets the interpreter's lock go. Both work on the same handles. Where
pycuda is not installed, cuda-bindings does its part too (`bindings_driver`).

A call may come from any thread. `current` pushes the context around calls that take or free memory, as pycuda wants
it; `enter` makes it the thread's own for good, which costs a request nothing from its second call on. pycuda's own
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

# Of pycuda, and of our own `describe`: a GPU in exclusive mode takes one process.
_BUSY: Final = ("busy or unavailable", "CUDA error 46")


class CudaIdentity(NamedTuple):
    """What CUDA says of the device: its name, and its compute capability as "9.0"."""

    name: str
    compute_capability: str


class _ThreadState(threading.local):
    entered = False


class Gpu:
    """One retained primary context.

    Attributes:
        driver: the module pycuda.driver, or a BindingsDriver.
        bindings: the module cuda.bindings.driver; its functions return (CUresult, ...).
        identity: see CudaIdentity.
        thread: `thread.entered` says whether the calling thread has entered; read in the hot path.
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
        """Make the context the calling thread's own while memory, streams or engines are made or freed."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def enter(self) -> None:
        """Make the context the calling thread's own from now on.

        Raises:
            CudaCallError: the driver refuses.
        """
        self.check("cuCtxSetCurrent", self.bindings.cuCtxSetCurrent(self._handle))
        self.thread.entered = True

    def check(self, call: str, answer: tuple[Any, ...]) -> Any:
        """Return what a call of `bindings` returned in addition to its CUresult.

        Raises:
            CudaCallError: it did not succeed.
        """
        if answer[0] != self.bindings.CUresult.CUDA_SUCCESS:
            raise CudaCallError(call, int(answer[0]))
        return answer[1] if len(answer) == 2 else answer[1:]  # noqa: PLR2004 - the result and one value

    def free_bytes(self) -> int:
        """Return the device's free memory, other processes' use included."""
        return int(self.driver.mem_get_info()[0])

    def release(self) -> None:
        """Let the primary context go; safe to call from any thread."""
        # pycuda releases only what is current; the release takes it off pycuda's stack, and the driver's is ours.
        self._context.push()
        self._context.detach()
        self.bindings.cuCtxPopCurrent()


def open_device(driver: Any = None, bindings: Any = None) -> Gpu:
    """Retain the first device's primary context, which other users of CUDA in this process share.

    Args:
        driver: in place of pycuda.driver.
        bindings: in place of cuda.bindings.driver.

    Raises:
        EngineRefusedError: CUDA's Python bindings are missing, or find no device.
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
            remedy="see with nvidia-smi who holds its memory; use a GPU that is not shared, or one with more",
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
    """Return the module pycuda.driver; None where it is missing, or was built for another CUDA or Python."""
    try:
        return importlib.import_module("pycuda.driver")
    except ImportError:
        return None
