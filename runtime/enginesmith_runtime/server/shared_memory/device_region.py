"""Regions in the memory of a GPU, mapped by an engine that runs on it: a client on that GPU moves no bytes."""

import logging
from typing import ClassVar, Final

from typing_extensions import override

from enginesmith_contract.errors import DeviceFailedError, SpecError
from enginesmith_runtime.engines.interface import Engine
from enginesmith_runtime.server.errors import Code, ProtocolError, device_failed
from enginesmith_runtime.server.shared_memory.region import Region, region_invalid

__all__ = ["DeviceRegion"]

_log = logging.getLogger(__name__)

_HANDLE_BYTES: Final = 64
"""Of a cudaIpcMemHandle_t."""


class DeviceRegion(Region):
    """Device memory of a client.

    Args:
        name: what requests call it.
        engine: maps it; every engine of the process then sees it at the same address.
        handle: a cudaIpcMemHandle_t.
        device_id: CUDA's index of the GPU.
        size: in bytes.

    Raises:
        ProtocolError: INVALID_ARGUMENT; the handle is none, or cannot be opened. UNIMPLEMENTED: no engine has a GPU.
            UNAVAILABLE: the GPU is broken.
    """

    kind: ClassVar[str] = "CUDA"

    def __init__(self, name: str, engine: Engine, handle: bytes, device_id: int, size: int) -> None:
        super().__init__(name, size)
        self.device_id = device_id
        if size <= 0:
            raise region_invalid(name, "its size is 0 bytes")
        if len(handle) != _HANDLE_BYTES:
            why = f"the handle has {len(handle)} bytes, and a cudaIpcMemHandle_t has {_HANDLE_BYTES}"
            raise region_invalid(name, why)
        if device_id < 0:
            raise region_invalid(name, f"device_id is {device_id}")
        try:
            self._memory = engine.open_shared_memory(handle, size, device_id)
        except SpecError as error:
            if error.reason == "NoDeviceMemory":
                raise ProtocolError(Code.UNIMPLEMENTED, error.sentence(), reason=error.reason) from error
            raise region_invalid(name, error.sentence()) from error
        except DeviceFailedError as error:
            raise device_failed(error) from error

    @property
    def address(self) -> int:
        """Of the region's first byte, in this process."""
        return self._memory.address

    @override
    def close(self) -> None:
        try:
            self._memory.close()
        except Exception:  # noqa: BLE001 - whatever the driver says, nothing can be done about it
            # A broken device unmaps nothing; the memory goes with the process, which is about to end.
            _log.exception("region %s could not be unmapped", self.name)
