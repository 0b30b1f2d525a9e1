"""Regions in GPU memory. An engine on that GPU maps them, so a client on the same GPU copies nothing."""

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
"""Size of a cudaIpcMemHandle_t."""


class DeviceRegion(Region):
    """Device memory of a client.

    Args:
        name: Name of the region in requests.
        engine: Engine that maps the memory. Every engine of the process then has it at the same address.
        handle: Bytes of the cudaIpcMemHandle_t.
        device_id: CUDA index of the GPU.
        size: Size in bytes.

    Raises:
        ProtocolError: INVALID_ARGUMENT if the handle is invalid or cannot be opened, UNIMPLEMENTED if no engine has a
            GPU, UNAVAILABLE if the GPU has failed.
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
        """Address of the first byte of the region in this process."""
        return self._memory.address

    @override
    def close(self) -> None:
        try:
            self._memory.close()
        except Exception:  # noqa: BLE001 - a driver error cannot be handled here
            # A failed device cannot unmap memory. The end of the process, which follows, frees it.
            _log.exception("region %s could not be unmapped", self.name)
