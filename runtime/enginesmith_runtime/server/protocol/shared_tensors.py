"""The tensors of one request in shared memory. They are acquired before it is queued, and used while it runs."""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.engines.interface import Array, DeviceArray, Instance
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.protocol.tensor_decoding import check_values, read_strings
from enginesmith_runtime.server.protocol.tensor_encoding import encode_tensor
from enginesmith_runtime.server.protocol.tensor_headers import InputHeader
from enginesmith_runtime.server.protocol.tensor_place import TensorPlace
from enginesmith_runtime.server.shared_memory.device_region import DeviceRegion
from enginesmith_runtime.server.shared_memory.region import Region
from enginesmith_runtime.server.shared_memory.region_table import RegionTable
from enginesmith_runtime.server.shared_memory.system_region import Extent, SystemRegion

__all__ = ["SharedTensors"]


class SharedTensors:
    """Holds the regions of one request. `release` must be called once, also after a failure.

    Args:
        table: Registered regions.
        inputs: All inputs of the request.
        outputs: Places of the outputs to write to shared memory, by name.
        specs: Specifications of the model's outputs.

    Raises:
        ProtocolError: INVALID_ARGUMENT if a region is unknown, or a tensor exceeds it.
    """

    def __init__(
        self,
        table: RegionTable,
        inputs: Sequence[InputHeader],
        outputs: Mapping[str, TensorPlace],
        specs: Mapping[str, TensorSpec],
    ) -> None:
        self._table = table
        self._taken: list[Region] = []
        self._inputs: list[tuple[InputHeader, TensorPlace, Region]] = []
        self._outputs: dict[str, tuple[TensorSpec, TensorPlace, Region]] = {}
        self._places: dict[str, Array] = {}
        self._sizes = _sizes_of_symbols(inputs)
        try:
            for header in inputs:
                if header.place is not None:
                    region = self._take(f"input '{header.spec.name}'", header.spec, header.place)
                    self._inputs.append((header, header.place, region))
            for name, place in outputs.items():
                self._outputs[name] = (specs[name], place, self._take(f"output '{name}'", specs[name], place))
        except ProtocolError:
            self.release()
            raise

    @property
    def on_device(self) -> bool:
        """Whether some of the regions are on a GPU."""
        return any(isinstance(region, DeviceRegion) for region in self._taken)

    def release(self) -> None:
        """Return the regions to the table."""
        while self._taken:
            self._table.give_back(self._taken.pop())

    def read_inputs(self, instance: Instance) -> dict[str, Array | DeviceArray]:
        """Return the inputs: in shared memory if the engine can read them there, else copies in the instance's memory.

        Raises:
            ProtocolError: INVALID_ARGUMENT if a client removed the memory, or its bytes are not a valid tensor.
        """
        return {header.spec.name: _read(header, place, region, instance) for header, place, region in self._inputs}

    def infer(
        self, instance: Instance, inputs: Mapping[str, Array | DeviceArray], *, profile: int, outputs: Sequence[str]
    ) -> dict[str, Array | DeviceArray]:
        """Run the inference. The engine writes outputs to their places directly if it can.

        Raises:
            As `Instance.infer` does.
        """
        if any(isinstance(region, DeviceRegion) for _, _, region in self._outputs.values()):
            return instance.infer(inputs, profile=profile, outputs=outputs, into=self._device_places())
        self._places = self._host_places(instance)
        return instance.infer_in_place(inputs, profile=profile, outputs=outputs, places=self._places)

    def write_outputs(self, outputs: Mapping[str, Array | DeviceArray]) -> dict[str, int]:
        """Write the outputs to the places of the request. Return the size of each in bytes.

        Raises:
            ProtocolError: INVALID_ARGUMENT if an output is larger than its place, or a client removed the memory since
                the request was read.
        """
        sizes: dict[str, int] = {}
        for name, (spec, place, region) in self._outputs.items():
            output = outputs[name]
            left = output is self._places.get(name)
            sizes[name] = self._places[name].nbytes if left else _write(output, spec, place, region)
        for region in self._taken:
            if isinstance(region, SystemRegion):
                region.check()
        return sizes

    def _device_places(self) -> dict[str, DeviceArray]:
        return {
            name: DeviceArray(
                address=region.address + place.offset, shape=(), dtype=spec.dtype.numpy, nbytes=place.size
            )
            for name, (spec, place, region) in self._outputs.items()
            if isinstance(region, DeviceRegion)
        }

    def _host_places(self, instance: Instance) -> dict[str, Array]:
        """Return the places that the engine can use directly: of known shape, aligned and without overlap."""
        places: dict[str, Array] = {}
        extents = [
            region.extent(place.offset, place.size)
            for _, place, region in self._inputs
            if isinstance(region, SystemRegion)
        ]
        for name, (spec, place, region) in self._outputs.items():
            if not isinstance(region, SystemRegion):
                continue
            extent = region.extent(place.offset, place.size)
            apart = not any(_overlap(extent, other) for other in extents)
            extents.append(extent)
            if apart and instance.works_in_place(name) and (shape := self._expected_shape(spec)) is not None:
                size = prod(shape) * spec.dtype.numpy.itemsize
                # A place that is too small is reported when the output is copied.
                view = region.view(place.offset, size).view(spec.dtype.numpy) if 0 < size <= place.size else None
                if view is not None and view.flags.aligned:
                    places[name] = view.reshape(shape)
        return places

    def _expected_shape(self, spec: TensorSpec) -> tuple[int, ...] | None:
        """Return the shape that an output will have, or None if only the run determines it."""
        symbols = spec.symbols or (None,) * len(spec.shape)
        shape = tuple(
            size if size >= 0 else self._sizes.get(symbol, -1) for size, symbol in zip(spec.shape, symbols, strict=True)
        )
        return shape if all(size >= 0 for size in shape) else None

    def _take(self, tensor: str, spec: TensorSpec, place: TensorPlace) -> Region:
        try:
            region = self._table.take(place.region)
        except ProtocolError as error:
            raise ProtocolError(error.code, f"{tensor}: {error.message}", reason=error.reason) from None
        self._taken.append(region)
        if place.offset + place.size > region.size:
            raise _outside(
                f"{tensor}: {place.size} bytes from {place.offset} on end beyond the {region.size} bytes of shared "
                f"memory region '{region.name}'"
            )
        if spec.dtype is DType.BYTES and isinstance(region, DeviceRegion):
            raise _outside(f"{tensor}: BYTES are read by the server, and region '{region.name}' lies on a GPU")
        return region


def _read(header: InputHeader, place: TensorPlace, region: Region, instance: Instance) -> Array | DeviceArray:
    spec, shape = header.spec, header.shape
    if isinstance(region, DeviceRegion):
        return DeviceArray(
            address=region.address + place.offset, shape=shape, dtype=spec.dtype.numpy, nbytes=place.size
        )
    assert isinstance(region, SystemRegion)  # noqa: S101 - the only other kind
    source = region.view(place.offset, place.size)
    if spec.dtype is DType.BYTES:
        content = memoryview(source.tobytes())
        region.check()
        return read_strings(content, spec, shape)
    region.check()
    if instance.works_in_place(spec.name):
        array = source.view(spec.dtype.numpy).reshape(shape)
        if array.flags.aligned:
            return array
    # Copy before the check, because the client can change its memory at any time.
    array = instance.staging(spec.name, shape)
    array.reshape(-1).view(np.uint8)[:] = source
    region.check()
    check_values(array, spec)
    return array


def _write(array: Array | DeviceArray, spec: TensorSpec, place: TensorPlace, region: Region) -> int:
    if isinstance(array, DeviceArray):
        return prod(array.shape) * array.dtype.itemsize
    assert isinstance(region, SystemRegion)  # noqa: S101 - the engine writes device outputs itself
    content = np.frombuffer(encode_tensor(array, spec), np.uint8)
    if content.nbytes > place.size:
        raise _outside(
            f"output '{spec.name}': {content.nbytes} bytes do not fit the {place.size} that the request gives it in "
            f"shared memory region '{region.name}'"
        )
    region.view(place.offset, content.nbytes)[:] = content
    return content.nbytes


def _sizes_of_symbols(inputs: Sequence[InputHeader]) -> dict[str | None, int]:
    return {
        symbol: size
        for header in inputs
        for symbol, size in zip(header.spec.symbols, header.shape, strict=False)
        if symbol is not None
    }


def _overlap(one: Extent, other: Extent) -> bool:
    return one[0] == other[0] and one[1] < other[2] and other[1] < one[2]


def _outside(message: str) -> ProtocolError:
    return ProtocolError(Code.INVALID_ARGUMENT, message, reason="RegionTooSmall")
