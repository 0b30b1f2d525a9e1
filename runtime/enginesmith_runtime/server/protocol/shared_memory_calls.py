"""The six calls for shared memory, with which clients register, list and unregister regions."""

from typing import Final

from enginesmith_contract.protos import inference_pb2 as pb
from enginesmith_runtime.engines.interface import Engine
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.repository import Repository
from enginesmith_runtime.server.shared_memory.device_region import DeviceRegion
from enginesmith_runtime.server.shared_memory.region_table import RegionTable
from enginesmith_runtime.server.shared_memory.system_region import SystemRegion

__all__ = ["SWITCHED_OFF", "SharedMemoryCalls"]

SWITCHED_OFF: Final = (
    "shared memory is switched off; send tensors in the request, or start the server with sharedMemory "
    "(--shared-memory)"
)


class SharedMemoryCalls:
    """Answers the calls.

    Args:
        table: Registered regions; None if shared memory is disabled.
    """

    def __init__(self, repository: Repository, table: RegionTable | None) -> None:
        self._repository = repository
        self._table = table

    def system_status(self, request: pb.SystemSharedMemoryStatusRequest) -> pb.SystemSharedMemoryStatusResponse:
        """List system regions."""
        regions = self._table.find(SystemRegion, request.name) if self._table is not None else ()
        kind = pb.SystemSharedMemoryStatusResponse.RegionStatus
        return pb.SystemSharedMemoryStatusResponse(
            regions={
                one.name: kind(name=one.name, key=one.key, offset=one.offset, byte_size=one.size) for one in regions
            }
        )

    def system_register(self, request: pb.SystemSharedMemoryRegisterRequest) -> pb.SystemSharedMemoryRegisterResponse:
        """Register a POSIX shared memory object."""
        self._switched_on().register(
            request.name, lambda: SystemRegion(request.name, request.key, request.offset, request.byte_size)
        )
        return pb.SystemSharedMemoryRegisterResponse()

    def system_unregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """Unregister system regions."""
        if self._table is not None:
            self._table.unregister(SystemRegion, request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    def cuda_status(self, request: pb.CudaSharedMemoryStatusRequest) -> pb.CudaSharedMemoryStatusResponse:
        """List CUDA regions."""
        regions = self._table.find(DeviceRegion, request.name) if self._table is not None else ()
        kind = pb.CudaSharedMemoryStatusResponse.RegionStatus
        return pb.CudaSharedMemoryStatusResponse(
            regions={one.name: kind(name=one.name, device_id=one.device_id, byte_size=one.size) for one in regions}
        )

    def cuda_register(self, request: pb.CudaSharedMemoryRegisterRequest) -> pb.CudaSharedMemoryRegisterResponse:
        """Register device memory of another process."""
        self._switched_on().register(
            request.name,
            lambda: DeviceRegion(
                request.name, self._mapping_engine(), request.raw_handle, request.device_id, request.byte_size
            ),
        )
        return pb.CudaSharedMemoryRegisterResponse()

    def cuda_unregister(self, request: pb.CudaSharedMemoryUnregisterRequest) -> pb.CudaSharedMemoryUnregisterResponse:
        """Unregister CUDA regions."""
        if self._table is not None:
            self._table.unregister(DeviceRegion, request.name)
        return pb.CudaSharedMemoryUnregisterResponse()

    def _switched_on(self) -> RegionTable:
        if self._table is None:
            raise ProtocolError(Code.UNIMPLEMENTED, SWITCHED_OFF)
        return self._table

    def _mapping_engine(self) -> Engine:
        """Return an engine that runs on a GPU. Without one, return any engine; it refuses with an error."""
        engines = [entry.model.engine for entry in self._repository if entry.model is not None]
        if not engines:
            raise ProtocolError(Code.UNAVAILABLE, "no model is loaded yet; try again when the server is ready")
        return next((engine for engine in engines if engine.device_memory is not None), engines[0])
