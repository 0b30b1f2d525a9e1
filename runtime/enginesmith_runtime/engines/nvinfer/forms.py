"""Computes a Run for a new form of request: the addresses that it reads and writes, and its copies."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from enginesmith_contract.errors import InferenceError
from enginesmith_contract.tensors import TensorSpec
from enginesmith_runtime.engines.cuda.device import Gpu
from enginesmith_runtime.engines.interface import Array, DeviceArray
from enginesmith_runtime.engines.nvinfer.buffers import ALIGNMENT, Slot, create_output_allocator, size_bytes
from enginesmith_runtime.engines.nvinfer.contexts import Library, ProfileContext
from enginesmith_runtime.engines.nvinfer.runs import Copy, Run

__all__ = ["FormBuilder", "feed"]


class FormBuilder:
    """Builds the runs of one instance."""

    def __init__(self, gpu: Gpu, library: Library, slots: Mapping[str, Slot]) -> None:
        self._library = library
        self._slots = slots
        self._on_host = frozenset(name for name in slots if library.is_on_host(name))
        self._pointer = gpu.bindings.CUdeviceptr
        self._in = gpu.bindings.cuMemcpyHtoDAsync
        self._out = gpu.bindings.cuMemcpyDtoHAsync
        self._across = gpu.bindings.cuMemcpyDtoDAsync

    def build(
        self,
        context: ProfileContext,
        profile: int,
        inputs: Mapping[str, Array | DeviceArray],
        outputs: Sequence[str],
        into: Mapping[str, DeviceArray],
    ) -> Run:
        """Return the run, and bind `context` to it.

        Args:
            context: Context of `profile`.
            profile: Index of the profile in the library.
            inputs: Inputs as for `Instance.infer`. Only the values of shape tensors are read.
            outputs: Names as for `Instance.infer`.
            into: Places as for `Instance.infer`.

        Raises:
            InferenceError: A tensor is too large (`RequestTooLarge`, `OutputTooLarge`), or the engine refuses the
                shapes (`ShapeRefused`).
        """
        context.bound = None
        run = Run(profile=profile)
        for spec in self._library.inputs:
            self._place_input(run, spec, inputs[spec.name])
        context.set_shapes(run.shapes)
        # Set the address first, because the library reads the values of a shape tensor here.
        for name, address in run.addresses:
            context.native.set_tensor_address(name, address)
        context.infer_shapes()
        wanted = dict.fromkeys(outputs)
        inputs_bound = len(run.addresses)
        for spec in self._library.outputs:
            self._place_output(run, context, spec, into.get(spec.name), wanted=spec.name in wanted)
        for name, address in run.addresses[inputs_bound:]:
            context.native.set_tensor_address(name, address)
        run.order = tuple(outputs)
        run.results = {name: run.results[name] for name in outputs if name in run.results}
        # Data-dependent shapes cannot be captured, and a tensor on the host would keep the values of the capture.
        run.can_record = context.can_record and not context.allocators and not self._on_host
        context.bound = run
        return run

    def place_open(
        self, name: str, shape: tuple[int, ...], into: DeviceArray | None
    ) -> tuple[Copy | None, Array | DeviceArray]:
        """Return the copy of an output whose shape only the run determined, and its destination.

        Raises:
            InferenceError: `OutputTooLarge`.
        """
        slot = self._slots[name]
        size = size_bytes(shape, slot.dtype)
        if into is None:
            view = slot.view(shape)
            return (None if name in self._on_host else self._download(slot, size)), view
        _refuse_small(name, into, shape, size)
        result = DeviceArray(address=into.address, shape=shape, dtype=slot.dtype, nbytes=size)
        return self._copy_across(name, slot, into.address, size), result

    def _place_input(self, run: Run, spec: TensorSpec, value: Array | DeviceArray) -> None:
        slot, name = self._slots[spec.name], spec.name
        run.shapes = (*run.shapes, (name, tuple(value.shape)))
        if isinstance(value, DeviceArray):
            self._place_device_input(run, slot, value)
            return
        view = slot.view(value.shape)
        run.feeds = (*run.feeds, (name, view))
        if name in self._on_host:
            feed(name, view, value)
            run.addresses = (*run.addresses, (name, slot.host_address))
            return
        run.addresses = (*run.addresses, (name, slot.address))
        if view.nbytes:
            copy = Copy(self._in, self._pointer(slot.address), slot.host_address, view.nbytes)
            run.before = (*run.before, copy)

    def _place_device_input(self, run: Run, slot: Slot, value: DeviceArray) -> None:
        size = size_bytes(value.shape, slot.dtype)
        if value.dtype != slot.dtype or value.nbytes < size or slot.name in self._on_host:
            on_host = "; the engine reads it in host memory" if slot.name in self._on_host else ""
            raise InferenceError(
                "the device memory is too small for this input",
                where=slot.name,
                why=f"shape {list(value.shape)} of {slot.dtype} has {size} bytes, and there are {value.nbytes} of "
                f"{value.dtype}{on_host}",
                remedy="send the tensor in the request, or in a region that contains it",
                reason="InputMismatch",
            )
        if value.address % ALIGNMENT == 0:
            run.addresses = (*run.addresses, (slot.name, value.address))
            return
        slot.view(value.shape)
        run.addresses = (*run.addresses, (slot.name, slot.address))
        if size:
            copy = Copy(self._across, self._pointer(slot.address), self._pointer(value.address), size)
            run.before = (*run.before, copy)

    def _place_output(
        self, run: Run, context: ProfileContext, spec: TensorSpec, into: DeviceArray | None, *, wanted: bool
    ) -> None:
        slot, name = self._slots[spec.name], spec.name
        shape = tuple(context.native.get_tensor_shape(name))
        on_host = name in self._on_host
        if any(size < 0 for size in shape):
            self._serve_open_output(context, slot, on_host=on_host)
            if wanted:
                run.open_outputs = (*run.open_outputs, name)
                if into is not None:
                    run.open_into = {**run.open_into, name: into}
            return
        size = size_bytes(shape, slot.dtype)
        if wanted and into is not None:
            self._place_output_into(run, slot, shape, into)
            return
        if size > slot.capacity:
            raise slot.too_large(shape, "RequestTooLarge")
        run.addresses = (*run.addresses, (name, slot.host_address if on_host else slot.address))
        if not wanted:
            return
        run.results[name] = slot.view(shape)
        copy = None if on_host else self._download(slot, size)
        if copy is not None:
            run.after = (*run.after, copy)

    def _place_output_into(self, run: Run, slot: Slot, shape: tuple[int, ...], into: DeviceArray) -> None:
        name, size = slot.name, size_bytes(shape, slot.dtype)
        _refuse_small(name, into, shape, size)
        run.results[name] = DeviceArray(address=into.address, shape=shape, dtype=slot.dtype, nbytes=size)
        on_host = name in self._on_host
        if into.address % ALIGNMENT == 0 and not on_host:
            run.addresses = (*run.addresses, (name, into.address))
            return
        if size > slot.capacity:
            raise slot.too_large(shape, "RequestTooLarge")
        run.addresses = (*run.addresses, (name, slot.host_address if on_host else slot.address))
        copy = self._copy_across(name, slot, into.address, size)
        if copy is not None:
            run.after = (*run.after, copy)

    def _serve_open_output(self, context: ProfileContext, slot: Slot, *, on_host: bool) -> None:
        if slot.name in context.allocators:
            return
        allocator = create_output_allocator(self._library.module, slot, on_host=on_host)
        context.native.set_output_allocator(slot.name, allocator)
        context.allocators[slot.name] = allocator

    def _download(self, slot: Slot, size: int) -> Copy | None:
        return Copy(self._out, slot.host_address, self._pointer(slot.address), size) if size else None

    def _copy_across(self, name: str, slot: Slot, address: int, size: int) -> Copy | None:
        if not size:
            return None
        if name in self._on_host:
            return Copy(self._in, self._pointer(address), slot.host_address, size)
        return Copy(self._across, self._pointer(address), self._pointer(slot.address), size)


def feed(name: str, view: Array, value: Any) -> None:
    """Copy a request's values into pinned memory.

    Raises:
        InferenceError: `DTypeMismatch`.
    """
    if value.dtype != view.dtype:
        raise InferenceError(
            "the tensor has another datatype than the engine's input",
            where=name,
            why=f"it has {value.dtype}, and the engine reads {view.dtype}",
            remedy="convert it",
            reason="DTypeMismatch",
        )
    np.copyto(view, value)


def _refuse_small(name: str, into: DeviceArray, shape: tuple[int, ...], size: int) -> None:
    if size <= into.nbytes:
        return
    raise InferenceError(
        "the output does not fit its place",
        where=name,
        why=f"shape {list(shape)} has {size} bytes, and there are {into.nbytes}",
        remedy="use a larger part of the region",
        reason="OutputTooLarge",
    )
