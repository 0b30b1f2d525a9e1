"""Device memory of another process on the same GPU, mapped into this one (CUDA shared memory of the protocol).

The size and device from the client are compared with those of the driver, because a kernel that reads beyond the region
would break the context for all requests.
"""

from typing import Any, Final

from enginesmith_contract.errors import SpecError
from enginesmith_runtime.engines.cuda.device import Gpu
from enginesmith_runtime.engines.cuda.faults import CudaCallError

__all__ = ["MappedRegion"]

_HANDLE_BYTES: Final = 64
_FIRST_DEVICE: Final = 0


class MappedRegion:
    """A SharedRegion of CUDA memory."""

    def __init__(self, gpu: Gpu, ipc_handle: bytes, size: int, device_id: int) -> None:
        """Map the region.

        Raises:
            SpecError: `SharedMemoryRefused` if the handle is invalid, or the size or device is not that of the driver.
        """
        if len(ipc_handle) != _HANDLE_BYTES:
            raise _refused(f"a handle must have {_HANDLE_BYTES} bytes, and this one has {len(ipc_handle)}")
        if device_id != _FIRST_DEVICE:
            raise _refused(f"the engine runs on device {_FIRST_DEVICE}, and the request has the device {device_id}")
        self.size = size
        self._gpu = gpu
        self._mapping: Any = None
        with gpu.current():
            try:
                self._mapping = gpu.driver.IPCMemoryHandle(bytearray(ipc_handle))
            except gpu.driver.Error as error:
                raise _refused(f"the driver cannot open the handle: {error}") from error
            self.address = int(self._mapping)
            found = _allocation_size(gpu, self.address)
        if found is None or not 0 < size <= found:
            self.close()
            raise _refused(
                f"the request says that it has {size} bytes, and "
                + ("the driver cannot tell" if found is None else f"the allocation has {found}")
            )

    def close(self) -> None:
        """Unmap the region. Safe to call twice."""
        if self._mapping is None:
            return
        with self._gpu.current():
            self._mapping.close()
        self._mapping = None


def _allocation_size(gpu: Gpu, address: int) -> int | None:
    cuda = gpu.bindings
    try:
        base, size = gpu.check("cuMemGetAddressRange", cuda.cuMemGetAddressRange(address))
    except CudaCallError:
        return None
    return int(base) + int(size) - address


def _refused(why: str) -> SpecError:
    return SpecError(
        "the CUDA shared memory region cannot be opened",
        why=why,
        remedy="pass the handle and the size of one allocation of a running process on the GPU of this server",
        reason="SharedMemoryRefused",
    )
