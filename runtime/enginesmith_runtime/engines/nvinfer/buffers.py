"""The memory of one instance's inputs and outputs: one pinned and one device arena, with a fixed place for each tensor.

Both are taken once, for the largest shapes of every profile, so that a request takes nothing and every address stays
what a recorded graph knows. Where the largest shapes are more than the limit, every place is cut by the same share
and a request that does not fit gets an error.
"""

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any, Final

from enginesmith_contract.errors import EngineRefusedError, InferenceError
from enginesmith_contract.tensors import TensorSpec
from enginesmith_runtime.engines.cuda.memory import CudaMemory, Purpose
from enginesmith_runtime.engines.interface import Array

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ALIGNMENT", "Arena", "Slot", "create_output_allocator", "size_bytes"]

ALIGNMENT: Final = 256
"""Of every tensor's address on the device, in bytes; what the allocator of CUDA guarantees and TensorRT expects."""

_KEPT_VIEWS: Final = 512


class Slot:
    """One tensor's place.

    Attributes:
        capacity: in bytes.
        address: on the device.
        host_address: in pinned memory.
    """

    def __init__(self, spec: TensorSpec, host: Array, address: int) -> None:
        self.name = spec.name
        self.dtype = spec.dtype.numpy
        self.capacity = host.nbytes
        self.address = address
        self.host_address = int(host.ctypes.data)
        self._host = host
        self._views: dict[tuple[int, ...], Array] = {}

    def view(self, shape: tuple[int, ...]) -> Array:
        """Return the place as an array of `shape`; the same object for the same shape.

        Raises:
            InferenceError: `RequestTooLarge`.
        """
        view = self._views.get(shape)
        if view is None:
            size = size_bytes(shape, self.dtype)
            if size > self.capacity:
                raise self.too_large(shape, "RequestTooLarge")
            if len(self._views) >= _KEPT_VIEWS:
                self._views.clear()
            view = self._host[:size].view(self.dtype).reshape(shape)
            self._views[shape] = view
        return view

    def too_large(self, shape: tuple[int, ...], reason: str) -> InferenceError:
        """Return the error for a request whose tensor does not fit."""
        return InferenceError(
            "the tensor is larger than the instance's memory for it",
            where=self.name,
            why=f"shape {list(shape)} has {size_bytes(shape, self.dtype)} bytes, and there are {self.capacity}",
            remedy="send a smaller batch, or raise backendOptions.pinnedMemoryLimit",
            reason=reason,
        )


class Arena:
    """The places of every input and output of one instance; used with the GPU's context current."""

    def __init__(
        self,
        memory: CudaMemory,
        specs: tuple[TensorSpec, ...],
        wanted: Mapping[str, int],
        needed: Mapping[str, int],
        limit: int,
    ) -> None:
        """Take the memory.

        Args:
            memory: where from.
            specs: of the inputs and outputs.
            wanted: bytes of each at the largest shapes.
            needed: bytes of each at the largest opt: less is of no use.
            limit: of all together, in bytes.

        Raises:
            EngineRefusedError: `OutOfMemory`.
        """
        sizes = {spec.name: _aligned(wanted[spec.name]) for spec in specs}
        total = sum(sizes.values())
        if total > limit:
            sizes = {name: _aligned_down(size * limit // total) for name, size in sizes.items()}
            _refuse_useless(sizes, needed, limit, total)
        self._memory = memory
        self._size = sum(sizes.values())
        self._pinned: Array | None = memory.pinned(self._size)
        self._device: Any = memory.device(self._size, Purpose.BUFFERS)
        self.slots: dict[str, Slot] = {}
        offset = 0
        for spec in specs:
            end = offset + sizes[spec.name]
            self.slots[spec.name] = Slot(spec, self._pinned[offset:end], int(self._device) + offset)
            offset = end

    def free(self) -> None:
        """Free both; safe to call twice. Pinned memory lives on while an array of it does."""
        if self._device is None:
            return
        self.slots.clear()
        self._device.free()
        self._device = None
        self._pinned = None
        self._memory.forget(self._size, Purpose.BUFFERS)
        self._memory.forget(self._size, Purpose.PINNED)


def size_bytes(shape: tuple[int, ...], dtype: "np.dtype[np.generic]") -> int:
    """Return the bytes of a tensor."""
    return prod(shape) * dtype.itemsize


def create_output_allocator(module: Any, slot: Slot, *, on_host: bool) -> Any:
    """Return an IOutputAllocator that serves one output from its place.

    Its `shape` is what the last run gave the output, its `refused` the bytes that were asked for in vain, or 0.
    """
    address = slot.host_address if on_host else slot.address

    class _Allocator(module.IOutputAllocator):  # type: ignore[misc]  # the base is known at run time only
        """Asked by the library while it enqueues."""

        def __init__(self) -> None:
            module.IOutputAllocator.__init__(self)
            self.shape: tuple[int, ...] = ()
            self.refused = 0

        def reallocate_output(self, _name: str, _memory: int, size: int, _alignment: int) -> int:
            if size > slot.capacity:
                self.refused = size
                return 0
            return address

        def reallocate_output_async(self, name: str, memory: int, size: int, alignment: int, _stream: int) -> int:
            return self.reallocate_output(name, memory, size, alignment)

        def notify_shape(self, _name: str, shape: Any) -> None:
            self.shape = tuple(shape)

    return _Allocator()


def _aligned(size: int) -> int:
    # A tensor of no elements gets an address, too.
    return max(-(-size // ALIGNMENT), 1) * ALIGNMENT


def _aligned_down(size: int) -> int:
    return max(size // ALIGNMENT, 1) * ALIGNMENT


def _refuse_useless(sizes: Mapping[str, int], needed: Mapping[str, int], limit: int, total: int) -> None:
    short = [name for name, size in sizes.items() if size < needed[name]]
    if not short:
        return
    raise EngineRefusedError(
        "the limit leaves no room for the shapes that the engine is tuned for",
        where="backendOptions.pinnedMemoryLimit",
        why=f"the largest shapes take {total} bytes, {limit} are allowed, and {', '.join(short)} would not fit at opt",
        remedy="raise it, or narrow the profiles",
        reason="OutOfMemory",
    )
