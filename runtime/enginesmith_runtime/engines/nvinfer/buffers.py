"""Memory for the inputs and outputs of one instance: a pinned and a device arena with a fixed slot for each tensor.

Both are allocated once, for the largest shapes of every profile. So a request allocates nothing, and the addresses in a
captured graph stay valid. If the largest shapes exceed the limit, every slot is reduced by the same share, and a
request that does not fit gets an error.
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
"""Alignment of tensor addresses on the device in bytes, which CUDA's allocator guarantees and TensorRT expects."""

_KEPT_VIEWS: Final = 512


class Slot:
    """Memory of one tensor.

    Attributes:
        capacity: Size in bytes.
        address: Address on the device.
        host_address: Address in pinned memory.
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
        """Return the pinned memory as an array of `shape`. The same shape gives the same object.

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
    """The slots of all inputs and outputs of one instance. The GPU's context must be current."""

    def __init__(
        self,
        memory: CudaMemory,
        specs: tuple[TensorSpec, ...],
        wanted: Mapping[str, int],
        needed: Mapping[str, int],
        limit: int,
    ) -> None:
        """Allocate the memory.

        Args:
            memory: Allocator.
            specs: Specifications of the inputs and outputs.
            wanted: Bytes of each at the largest shapes.
            needed: Bytes of each at the largest opt. Less memory would be useless.
            limit: Limit of the sum in bytes.

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
        """Free both arenas. Safe to call twice. Pinned memory stays allocated while an array uses it."""
        if self._device is None:
            return
        self.slots.clear()
        self._device.free()
        self._device = None
        self._pinned = None
        self._memory.forget(self._size, Purpose.BUFFERS)
        self._memory.forget(self._size, Purpose.PINNED)


def size_bytes(shape: tuple[int, ...], dtype: "np.dtype[np.generic]") -> int:
    """Return the size of a tensor in bytes."""
    return prod(shape) * dtype.itemsize


def create_output_allocator(module: Any, slot: Slot, *, on_host: bool) -> Any:
    """Return an IOutputAllocator that gives one output its slot.

    `shape` is the shape of the output in the last run. `refused` is the size in bytes of a refused request, or 0.
    """
    address = slot.host_address if on_host else slot.address

    class _Allocator(module.IOutputAllocator):  # type: ignore[misc]  # the base class is known only at run time
        """The library calls it while it enqueues."""

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
    # An empty tensor also needs an address.
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
