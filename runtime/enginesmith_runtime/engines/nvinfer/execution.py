"""A loaded plan and the state that its instances share: the device, the memory counters and a device failure.

After a device failure the engine makes no further calls: it refuses every inference of every instance at once.
"""

from typing import Any

from typing_extensions import override

from enginesmith_contract.errors import DeviceFailedError, EnginesmithError
from enginesmith_contract.manifest import Manifest
from enginesmith_runtime.engines.cuda.device import Gpu
from enginesmith_runtime.engines.cuda.faults import CudaCallError, EnqueueRefusedError, judge
from enginesmith_runtime.engines.cuda.memory import CudaMemory
from enginesmith_runtime.engines.cuda.shared_memory import MappedRegion
from enginesmith_runtime.engines.interface import DeviceMemory, Engine
from enginesmith_runtime.engines.nvinfer.contexts import Library
from enginesmith_runtime.engines.nvinfer.instance import NvInferInstance
from enginesmith_runtime.engines.nvinfer.options import ExecutionOptions

__all__ = ["NvInferEngine"]


class NvInferEngine(Engine):
    """A deserialised plan with its weights on the device.

    Attributes:
        gpu: The device. Instances that are opened later call its `bindings`.
        fault: Failure of the device; None while it works.
    """

    def __init__(
        self,
        *,
        manifest: Manifest,
        module: Any,
        runtime: Any,
        engine: Any,
        log: Any,
        gpu: Gpu,
        options: ExecutionOptions | None = None,
        weights_bytes: int | None = None,
    ) -> None:
        self.manifest = manifest
        self.gpu = gpu
        self.options = options or ExecutionOptions()
        self.fault: DeviceFailedError | None = None
        where = f"engine {manifest.engine_key[:12]}"
        self.library = Library(
            module=module, engine=engine, log=log, inputs=manifest.inputs, outputs=manifest.outputs, where=where
        )
        self.memory = CudaMemory(gpu, where=where, weights=weights_bytes, limit=self.options.device_memory_limit)
        # The runtime owns the plan's memory.
        self._runtime = runtime
        self._closed = False

    @property
    @override
    def device_memory(self) -> DeviceMemory:
        return self.memory.report()

    @override
    def open_instance(self) -> "NvInferInstance":
        self.refuse_if_broken()
        with self.gpu.current():
            return NvInferInstance(self)

    @override
    def open_shared_memory(self, ipc_handle: bytes, size: int, device_id: int) -> MappedRegion:
        self.refuse_if_broken()
        return MappedRegion(self.gpu, ipc_handle, size, device_id)

    @override
    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self.fault is not None:
            # Nothing can be freed any more. The end of the process frees the memory.
            return
        with self.gpu.current():
            self.library.release()
            self._runtime = None
        self.gpu.release()

    def refuse_if_broken(self) -> None:
        """Raise the failure of the device, if there is one.

        Raises:
            DeviceFailedError: A new exception each time, because several threads may raise it.
        """
        fault = self.fault
        if fault is not None:
            raise DeviceFailedError(
                fault.what, where=fault.where, why=fault.why, remedy=fault.remedy, reason=fault.reason
            )

    def settle(self, error: CudaCallError | EnqueueRefusedError, now: int) -> EnginesmithError:
        """Return the error for the caller of a failed call, and store it if the device has failed.

        Args:
            error: Error of the call.
            now: CUresult of another driver call.
        """
        verdict = judge(error, now, where=self.library.where, said=self.library.take_messages())
        if isinstance(verdict, DeviceFailedError):
            self.fault = verdict
        return verdict
