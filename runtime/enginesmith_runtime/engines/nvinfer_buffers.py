"""Memory of one tensor: pinned on the host, and on the device unless the library wants the tensor on the host."""

from typing import Any

import numpy as np

from enginesmith_runtime.engines.interface import Array

__all__ = ["Buffer", "create_output_allocator"]


class Buffer:
    """A pair of pinned host memory and device memory that grows and is kept; used within one CUDA context.

    Pinned memory is what makes a copy asynchronous. A tensor of no elements still gets an address.
    """

    def __init__(self, driver: Any, *, on_host: bool = False) -> None:  # noqa: ANN401 - the library has no types
        self._driver = driver
        self._on_host = on_host
        self._host: np.ndarray[tuple[int], np.dtype[np.uint8]] | None = None
        self._device: Any = None
        self._capacity = 0

    def reserve(self, size: int) -> int:
        """Return the address of at least `size` bytes where the library reads or writes the tensor."""
        if size > self._capacity or self._host is None:
            self.free()
            self._capacity = max(size, 1)
            self._host = self._driver.pagelocked_empty(self._capacity, np.uint8)
            if not self._on_host:
                self._device = self._driver.mem_alloc(self._capacity)
        return int(self._host.ctypes.data) if self._on_host else int(self._device)

    def copy_in(self, array: Array, stream: Any) -> int:  # noqa: ANN401 - the library has no types
        """Copy an array to where the library reads it; returns the address."""
        address = self.reserve(array.nbytes)
        if array.nbytes and self._host is not None:
            part = self._host[: array.nbytes]
            np.copyto(part, np.ascontiguousarray(array).reshape(-1).view(np.uint8))
            if not self._on_host:
                self._driver.memcpy_htod_async(self._device, part, stream)
        return address

    def copy_out(self, size: int, stream: Any) -> None:  # noqa: ANN401 - the library has no types
        """Begin to copy `size` bytes back to the host."""
        if size and not self._on_host and self._host is not None:
            self._driver.memcpy_dtoh_async(self._host[:size], self._device, stream)

    def read(self, shape: tuple[int, ...], dtype: "np.dtype[np.generic]") -> Array:
        """Return a copy of what was copied out."""
        count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if self._host is None or count == 0:
            return np.empty(shape, dtype)
        return self._host[:count].view(dtype).reshape(shape).copy()

    def free(self) -> None:
        """Free both; safe to call twice."""
        if self._device is not None:
            self._device.free()
        self._device = None
        self._host = None
        self._capacity = 0


def create_output_allocator(module: Any, buffer: Buffer) -> Any:  # noqa: ANN401 - the library has no types
    """Return an IOutputAllocator that serves one output from `buffer`; `shape` is what the last run gave it."""

    class _Allocator(module.IOutputAllocator):  # type: ignore[misc]  # the base is known at run time only
        """Asked by the library while it enqueues."""

        def __init__(self) -> None:
            module.IOutputAllocator.__init__(self)
            self.shape: tuple[int, ...] = ()

        def reallocate_output(self, _name: str, _memory: int, size: int, _alignment: int) -> int:
            return buffer.reserve(size)

        def reallocate_output_async(self, name: str, memory: int, size: int, alignment: int, _stream: int) -> int:
            return self.reallocate_output(name, memory, size, alignment)

        def notify_shape(self, _name: str, shape: Any) -> None:  # noqa: ANN401 - the library has no types
            self.shape = tuple(shape)

    return _Allocator()
