"""A double of the `tensorrt` module: engines that are Python functions, with the library's habits at run time.

It answers False and writes to its log, asks output allocators while it enqueues, wants its activation memory before
it runs, and works only on what the addresses it was given held at the time the stream reached it.
"""

# ruff: noqa: D102, N802 - the names, and the types, are those of the module that it stands for

import ctypes
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

import numpy as np
from tests.engines.fake_cuda import FakeDevice

from enginesmith_contract.backends import Backend

Shape = tuple[int, ...]
Values = Mapping[str, np.ndarray]
_ACTIVATION_BYTES = 4096


class TensorLocation(Enum):
    """As the library's."""

    DEVICE = 0
    HOST = 1


class ExecutionContextAllocationStrategy(Enum):
    """As the library's."""

    STATIC = 0
    USER_MANAGED = 2


class IOutputAllocator:
    """As the library's."""


class ILogger:
    """As the library's."""

    INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)


def init_libnvinfer_plugins(_log: Any, _namespace: str) -> None:
    """As the library's."""


@dataclass
class FakeNetwork:
    """What an engine computes.

    Attributes:
        inputs: dtype and shape, -1 where a profile says.
        outputs: dtype of each.
        compute: all outputs from all inputs.
        shapes: the outputs' shapes from the inputs' shapes and the shape tensors' values; -1: depends on the data.
        profiles: min, opt and max of each input with an open dimension.
        values: min, opt and max of each shape tensor, which lies on the host.
        bounds: largest bytes of an output whose shape depends on the data.
    """

    inputs: Mapping[str, tuple[np.dtype, Shape]]
    outputs: Mapping[str, np.dtype]
    compute: Callable[[Values], Values]
    shapes: Callable[[Mapping[str, Shape], Mapping[str, np.ndarray]], Mapping[str, Shape]]
    profiles: Sequence[Mapping[str, tuple[Shape, Shape, Shape]]] = ({},)
    values: Mapping[str, tuple[list[int], list[int], list[int]]] = field(default_factory=dict)
    bounds: Mapping[str, int] = field(default_factory=dict)


class FakeLog:
    """A MessageLog."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []


class FakeEngine:
    """ICudaEngine."""

    device_memory_size_v2 = _ACTIVATION_BYTES

    def __init__(self, network: FakeNetwork, device: FakeDevice, log: FakeLog) -> None:
        self.network = network
        self.device = device
        self.log = log
        self.num_optimization_profiles = len(network.profiles)
        self.calls: Counter[str] = Counter()
        self.contexts = 0
        self.room_for_contexts = 100
        self.refuses_capture = False

    @property
    def num_io_tensors(self) -> int:
        return len(self.network.inputs) + len(self.network.outputs)

    def get_tensor_name(self, index: int) -> str:
        return (*self.network.inputs, *self.network.outputs)[index]

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.HOST if name in self.network.values else TensorLocation.DEVICE

    def get_tensor_shape(self, name: str) -> Shape:
        return self.network.inputs[name][1]

    def get_tensor_profile_shape(self, name: str, profile: int) -> tuple[Shape, Shape, Shape]:
        return self.network.profiles[profile][name]

    def get_tensor_profile_values(self, profile: int, name: str) -> tuple[list[int], list[int], list[int]]:
        if not isinstance(profile, int):
            raise TypeError
        return self.network.values[name]

    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC
    ) -> "FakeExecutionContext | None":
        if self.contexts >= self.room_for_contexts:
            self.log.errors.append("Error Code 2: OutOfMemory (Requested size was 4096 bytes.)")
            return None
        self.contexts += 1
        return FakeExecutionContext(self, strategy)


class FakeExecutionContext:
    """IExecutionContext."""

    def __init__(self, engine: FakeEngine, strategy: ExecutionContextAllocationStrategy) -> None:
        self._engine = engine
        self._network = engine.network
        self._needs_memory = strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        self._memory: tuple[int, int] | None = None
        self._profile = 0
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, Any] = {}

    def set_device_memory(self, address: int, size: int) -> None:
        assert address % 256 == 0
        assert size >= _ACTIVATION_BYTES
        self._memory = (address, size)

    def set_optimization_profile_async(self, profile: int, _stream: int) -> bool:
        self._profile = profile
        return profile < len(self._network.profiles)

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        self._engine.calls["set_input_shape"] += 1
        low, _, high = self._network.profiles[self._profile].get(name, (self._network.inputs[name][1],) * 3)
        fits = len(shape) == len(low) and all(a <= value <= b for a, value, b in zip(low, shape, high, strict=True))
        if not fits:
            self._engine.log.errors.append(
                f"Set dimension {list(shape)} for tensor {name} does not satisfy any profile"
            )
            return False
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> None:
        assert address, "a null address"
        assert name in self._network.values or address % 256 == 0, "an address that is not aligned"
        self._addresses[name] = address

    def set_output_allocator(self, name: str, allocator: Any) -> None:
        self._allocators[name] = allocator

    def infer_shapes(self) -> list[str]:
        return [name for name in self._network.inputs if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> Shape:
        return self._network.shapes(self._shapes, self._host_values())[name]

    def get_max_output_size(self, name: str) -> int:
        return self._network.bounds.get(name, -1)

    def execute_async_v3(self, stream: int) -> bool:
        engine = self._engine
        engine.calls["execute_async_v3"] += 1
        target = engine.device.streams[stream]
        if self._needs_memory and self._memory is None:
            engine.log.errors.append("no device memory was set")
            return False
        if target.recording is not None and (engine.refuses_capture or self._open_outputs()):
            target.invalid = True
            # The worst that a refused recording may do to a context.
            self._shapes.clear()
            self._addresses.clear()
            engine.log.errors.append("operation not permitted when stream is capturing")
            return False
        if engine.device.sticky:
            engine.log.errors.append("Error Code 1: Cuda Runtime (an illegal memory access was encountered)")
            return False
        if self._open_outputs():
            return self._run_with_allocators(stream)
        shapes, addresses, memory = dict(self._shapes), dict(self._addresses), self._memory
        out = self._network.shapes(shapes, self._host_values())
        engine.device.put(stream, lambda: self._run(shapes, addresses, out, memory))
        return True

    def _open_outputs(self) -> list[str]:
        shapes = self._network.shapes(self._shapes, self._host_values())
        return [name for name, shape in shapes.items() if any(size < 0 for size in shape)]

    def _host_values(self) -> dict[str, np.ndarray]:
        values = {}
        for name in self._network.values:
            dtype, shape = self._network.inputs[name]
            if name in self._addresses:
                values[name] = _array_at(self._addresses[name], shape, dtype).copy()
        return values

    def _run_with_allocators(self, stream: int) -> bool:
        device = self._engine.device
        device.drain(stream)
        results = self._network.compute(self._read_inputs(self._shapes, self._addresses))
        for name, value in results.items():
            address = self._addresses.get(name)
            if name in self._allocators:
                address = self._allocators[name].reallocate_output_async(name, 0, value.nbytes, 256, stream)
                if not address:
                    self._engine.log.errors.append(f"output allocator gave no memory for {name}")
                    return False
                self._allocators[name].notify_shape(name, value.shape)
            assert address is not None
            device.put(stream, partial(_write, device, address, value))
        return True

    def _run(self, shapes: dict[str, Shape], addresses: dict[str, int], out: Mapping[str, Shape], memory: Any) -> None:
        device = self._engine.device
        if memory is not None:
            # Activations of the one run are garbage to the next.
            device.write(memory[0], b"\xee" * _ACTIVATION_BYTES)
        for name, value in self._network.compute(self._read_inputs(shapes, addresses)).items():
            assert value.shape == out[name], f"{name}: {value.shape} is not {out[name]}"
            device.write(addresses[name], value.tobytes())

    def _read_inputs(self, shapes: Mapping[str, Shape], addresses: Mapping[str, int]) -> dict[str, np.ndarray]:
        values = {}
        for name, (dtype, _) in self._network.inputs.items():
            size = int(np.prod(shapes[name], dtype=np.int64)) * dtype.itemsize
            if name not in self._network.values:
                self._engine.device.check(addresses[name], size)
            values[name] = _array_at(addresses[name], shapes[name], dtype).copy()
        return values


def _write(device: FakeDevice, address: int, value: np.ndarray) -> None:
    device.write(address, value.tobytes())


def _array_at(address: int, shape: Shape, dtype: np.dtype) -> np.ndarray:
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return np.frombuffer(ctypes.string_at(address, size), dtype).reshape(shape)


class FakeLibrary:
    """An NvInferLibrary and its module, which knows one plan."""

    backend = Backend.TENSORRT
    TensorLocation = TensorLocation
    ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
    IOutputAllocator = IOutputAllocator
    ILogger = ILogger
    init_libnvinfer_plugins = staticmethod(init_libnvinfer_plugins)

    def __init__(self, device: FakeDevice, network: FakeNetwork, plan: bytes) -> None:
        self._device = device
        self._network = network
        self._plan = plan

    def version(self, _failure: type[Exception] = Exception) -> str:
        return "10.6.0.26"

    def load(self, _failure: type[Exception] = Exception) -> "FakeLibrary":
        return self

    def Runtime(self, log: Any) -> "FakeRuntime":
        return FakeRuntime(self._device, self._network, self._plan, log)


@dataclass
class FakeRuntime:
    """IRuntime."""

    device: FakeDevice
    network: FakeNetwork
    plan: bytes
    logger: Any

    def deserialize_cuda_engine(self, plan: bytes) -> FakeEngine | None:
        said = ""
        if self.device.sticky:
            said = "Error Code 1: Cuda Runtime (an illegal memory access was encountered)"
        elif plan != self.plan:
            said = "Error Code 1: Serialization (Serialization assertion plan->header.size == blobSize failed.)"
        elif len(plan) > self.device.free:
            said = "Error Code 2: OutOfMemory (Requested size was 4096 bytes.)"
        if said:
            self.logger.log(ILogger.ERROR, said)
            return None
        self.device.allocate(len(plan))
        return FakeEngine(self.network, self.device, self.logger)
