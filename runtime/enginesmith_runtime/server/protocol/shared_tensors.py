"""The tensors of one request that lie in shared memory: taken before it is queued, read and written while it runs."""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.engines.interface import Array, DeviceArray, Instance
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.protocol.tensor_decoding import InputHeader, check_values, read_strings
from enginesmith_runtime.server.protocol.tensor_encoding import encode_tensor
from enginesmith_runtime.server.protocol.tensor_place import TensorPlace
from enginesmith_runtime.server.shared_memory.device_region import DeviceRegion
from enginesmith_runtime.server.shared_memory.region import Region
from enginesmith_runtime.server.shared_memory.region_table import RegionTable
from enginesmith_runtime.server.shared_memory.system_region import SystemRegion

__all__ = ["SharedTensors"]


class SharedTensors:
    """Holds the regions of one request. `release` must be called once, whatever became of the request.

    Args:
        table: has the regions.
        inputs: those that lie in shared memory, each with its place.
        outputs: places of those that shall be left in shared memory, by name.
        specs: of the model's outputs.

    Raises:
        ProtocolError: INVALID_ARGUMENT; a region is unknown, or a tensor does not lie within it.
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
        """Whether some of them lie on a GPU."""
        return any(isinstance(region, DeviceRegion) for region in self._taken)

    def release(self) -> None:
        """Give the regions back."""
        while self._taken:
            self._table.give_back(self._taken.pop())

    def read_inputs(self, instance: Instance) -> dict[str, Array | DeviceArray]:
        """Return the inputs: from the system's memory in the instance's own, on a GPU where they lie.

        Raises:
            ProtocolError: INVALID_ARGUMENT; a client took the memory away, or its bytes are no such tensor.
        """
        return {header.spec.name: _read(header, place, region, instance) for header, place, region in self._inputs}

    def device_places(self) -> dict[str, DeviceArray]:
        """Return where the engine itself shall leave outputs."""
        return {
            name: DeviceArray(
                address=region.address + place.offset, shape=(), dtype=spec.dtype.numpy, nbytes=place.size
            )
            for name, (spec, place, region) in self._outputs.items()
            if isinstance(region, DeviceRegion)
        }

    def write_outputs(self, outputs: Mapping[str, Array | DeviceArray]) -> dict[str, int]:
        """Leave the outputs where the request wants them; returns the size of each in bytes.

        Raises:
            ProtocolError: INVALID_ARGUMENT; an output is larger than its place.
        """
        return {
            name: _write(outputs[name], spec, place, region) for name, (spec, place, region) in self._outputs.items()
        }

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
    assert isinstance(region, SystemRegion)  # noqa: S101 - the other kind
    if spec.dtype is DType.BYTES:
        content = memoryview(bytearray(place.size))
        region.read(place.offset, content)
        return read_strings(content, spec, shape)
    array = instance.staging(spec.name, shape)
    region.read(place.offset, array.reshape(-1).view(np.uint8).data)
    check_values(array, spec)
    return array


def _write(array: Array | DeviceArray, spec: TensorSpec, place: TensorPlace, region: Region) -> int:
    if isinstance(array, DeviceArray):
        return prod(array.shape) * array.dtype.itemsize
    assert isinstance(region, SystemRegion)  # noqa: S101 - the engine leaves the others on the device
    content = encode_tensor(array, spec)
    if len(content) > place.size:
        raise _outside(
            f"output '{spec.name}': {len(content)} bytes do not fit the {place.size} that the request gives it in "
            f"shared memory region '{region.name}'"
        )
    region.write(place.offset, content)
    return len(content)


def _outside(message: str) -> ProtocolError:
    return ProtocolError(Code.INVALID_ARGUMENT, message, reason="RegionTooSmall")
