"""Runs a plan on the GPU: one context, one stream and one set of buffers for each instance.

The primary CUDA context is retained once and pushed around every call, because a call may come from any thread.
Buffers grow to the largest request seen and are kept. Outputs whose size depends on the data get their memory from
the library's own question (IOutputAllocator).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, Final

import numpy as np
from typing_extensions import override

from enginesmith_contract.errors import DeviceFailedError, EngineRefusedError
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.tensors import TensorSpec
from enginesmith_runtime.engines.interface import Array, DeviceArray, Engine, Instance
from enginesmith_runtime.engines.nvinfer_buffers import Buffer, create_output_allocator

__all__ = ["Gpu", "NvInferEngine", "NvInferInstance", "open_device"]

# CU_STREAM_NON_BLOCKING of the driver API; pycuda has no name for it. The default stream would wait for every other.
_NON_BLOCKING: Final = 1

_NOWHERE: Final[Mapping[str, DeviceArray]] = {}


class Gpu:
    """The first visible device's primary context."""

    def __init__(self, driver: Any, context: Any) -> None:  # noqa: ANN401 - the library has no types
        self.driver = driver
        self._context = context

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context the calling thread's own."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def release(self) -> None:
        """Let the primary context go."""
        self._context.detach()


def open_device() -> Gpu:
    """Retain the first device's primary context, which other users of CUDA in this process share.

    Raises:
        EngineRefusedError: CUDA's Python binding is missing or finds no device.
    """
    try:
        from pycuda import driver  # noqa: PLC0415 - only where there is a driver
    except ImportError as error:
        raise EngineRefusedError(
            "CUDA's Python binding is missing",
            where="pycuda",
            why=str(error),
            remedy="install pycuda for this CUDA version",
            reason="ToolchainMissing",
        ) from error
    try:
        driver.init()
        return Gpu(driver, driver.Device(0).retain_primary_context())
    except driver.Error as error:
        raise EngineRefusedError(
            "the GPU cannot be opened",
            where="device 0",
            why=str(error),
            remedy="check nvidia-smi on the node",
            reason="NoDevice",
        ) from error


class NvInferEngine(Engine):
    """A deserialised plan: weights on the device."""

    def __init__(self, *, manifest: Manifest, module: Any, runtime: Any, engine: Any, log: Any, gpu: Gpu) -> None:  # noqa: ANN401, PLR0913 - untyped library; parts of one engine
        self.manifest = manifest
        self.module = module
        self.native = engine
        self.log = log
        self.gpu = gpu
        # The plan's memory belongs to the runtime.
        self._runtime = runtime

    @override
    def open_instance(self) -> "NvInferInstance":
        with self.gpu.current():
            context = self.native.create_execution_context()
            if context is None:
                raise EngineRefusedError(
                    "the GPU has no room for another instance",
                    where=f"engine {self.manifest.engine_key[:12]}",
                    why=" | ".join(self.log.errors),
                    remedy="lower serving.instances, or use a GPU with more memory",
                    reason="OutOfMemory",
                )
            return NvInferInstance(self, context)

    @override
    def close(self) -> None:
        if self.native is None:
            return
        with self.gpu.current():
            self.native = None
            self._runtime = None
        self.gpu.release()


class NvInferInstance(Instance):
    """One execution context with its stream and buffers."""

    def __init__(self, engine: NvInferEngine, context: Any) -> None:  # noqa: ANN401 - the library has no types
        self._engine = engine
        self._context = context
        self._profile = 0
        driver = engine.gpu.driver
        self._stream = driver.Stream(_NON_BLOCKING)
        specs = (*engine.manifest.inputs, *engine.manifest.outputs)
        host = engine.module.TensorLocation.HOST
        self._buffers = {
            spec.name: Buffer(driver, on_host=engine.native.get_tensor_location(spec.name) == host) for spec in specs
        }
        self._allocators: dict[str, Any] = {}

    @override
    def infer(
        self,
        inputs: Mapping[str, Array | DeviceArray],
        *,
        profile: int,
        outputs: Sequence[str],
        into: Mapping[str, DeviceArray] = _NOWHERE,
    ) -> dict[str, Array | DeviceArray]:
        if into:
            raise NotImplementedError
        if self._context is None:
            raise RuntimeError("the instance is closed")
        driver = self._engine.gpu.driver
        with self._engine.gpu.current():
            try:
                return self._infer(inputs, profile, outputs)
            except driver.Error as error:
                raise self._broken(str(error)) from error

    @override
    def staging(self, name: str, shape: tuple[int, ...]) -> Array:
        specs = {spec.name: spec for spec in self._engine.manifest.inputs}
        return np.empty(shape, specs[name].dtype.numpy)

    @override
    def close(self) -> None:
        if self._context is None:
            return
        with self._engine.gpu.current():
            self._context = None
            self._allocators.clear()
            for buffer in self._buffers.values():
                buffer.free()
            self._stream = None

    def _infer(
        self, inputs: Mapping[str, Array | DeviceArray], profile: int, outputs: Sequence[str]
    ) -> dict[str, Array | DeviceArray]:
        self._select_profile(profile)
        for spec in self._engine.manifest.inputs:
            self._bind_input(spec.name, inputs[spec.name])
        missing = self._context.infer_shapes()
        if missing:
            raise self._broken(f"no shape for {', '.join(missing)}")
        for spec in self._engine.manifest.outputs:
            self._bind_output(spec)
        if not self._context.execute_async_v3(self._stream.handle):
            raise self._broken("the library could not enqueue the inference")
        specs = {spec.name: spec for spec in self._engine.manifest.outputs}
        # A data-dependent output's shape is known after the run; the others' copies are enqueued behind it.
        if self._allocators:
            self._stream.synchronize()
        shapes = {name: self._output_shape(name) for name in outputs}
        for name in outputs:
            self._source(name).copy_out(_size_bytes(specs[name], shapes[name]), self._stream)
        self._stream.synchronize()
        return {name: self._source(name).read(shapes[name], specs[name].dtype.numpy) for name in outputs}

    def _select_profile(self, profile: int) -> None:
        # A plan of fixed shapes has one profile of its own, whatever the manifest calls it.
        wanted = min(profile, self._engine.native.num_optimization_profiles - 1)
        if wanted == self._profile:
            return
        if not self._context.set_optimization_profile_async(wanted, self._stream.handle):
            raise self._broken(f"the library refuses profile {wanted}")
        self._stream.synchronize()
        self._profile = wanted

    def _bind_input(self, name: str, array: Array | DeviceArray) -> None:
        if isinstance(array, DeviceArray):
            raise NotImplementedError
        if not self._context.set_input_shape(name, array.shape):
            raise self._broken(f"the library refuses shape {list(array.shape)} of input {name!r}")
        self._context.set_tensor_address(name, self._buffers[name].copy_in(array, self._stream))

    def _bind_output(self, spec: TensorSpec) -> None:
        shape = tuple(self._context.get_tensor_shape(spec.name))
        if any(size < 0 for size in shape):
            allocator = self._allocators.get(spec.name)
            if allocator is None:
                allocator = create_output_allocator(self._engine.module, self._buffers[spec.name])
                self._allocators[spec.name] = allocator
                self._context.set_output_allocator(spec.name, allocator)
            return
        self._context.set_tensor_address(spec.name, self._buffers[spec.name].reserve(_size_bytes(spec, shape)))

    def _output_shape(self, name: str) -> tuple[int, ...]:
        allocator = self._allocators.get(name)
        if allocator is not None:
            return tuple(allocator.shape)
        return tuple(self._context.get_tensor_shape(name))

    def _source(self, name: str) -> Buffer:
        return self._buffers[name]

    def _broken(self, why: str) -> DeviceFailedError:
        said = " | ".join(self._engine.log.errors)
        return DeviceFailedError(
            "the inference failed on the GPU",
            where=f"engine {self._engine.manifest.engine_key[:12]}",
            why=f"{why}: {said}" if said else why,
            remedy="start the server again; if it repeats, check the GPU with nvidia-smi",
        )


def _size_bytes(spec: TensorSpec, shape: tuple[int, ...]) -> int:
    return int(prod(shape)) * int(np.dtype(spec.dtype.numpy).itemsize)
