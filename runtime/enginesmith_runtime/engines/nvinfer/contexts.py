"""Execution contexts of one instance, one for each optimisation profile. They share one block of activation memory.

The contexts of an instance never run at the same time, so the memory has the size that the largest of them needs. Its
address never changes, because captured graphs contain it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from enginesmith_contract.errors import EngineRefusedError, InferenceError
from enginesmith_contract.tensors import TensorSpec
from enginesmith_contract.text import one_line
from enginesmith_runtime.engines.cuda.memory import CudaMemory, Purpose
from enginesmith_runtime.engines.nvinfer.buffers import ALIGNMENT, size_bytes
from enginesmith_runtime.engines.nvinfer.runs import Run
from enginesmith_runtime.engines.occupancy import describe_occupancy

__all__ = ["ActivationMemory", "Library", "ProfileContext", "create_context", "measure", "needed_activations"]

# Size of an output that depends on the data, if the library gives no upper bound.
_UNBOUNDED_OUTPUT: Final = 16 << 20

# One fault causes many messages of the library. The first ones state the cause.
_QUOTED_MESSAGES: Final = 5


@dataclass(kw_only=True)
class Library:
    """A deserialised plan and facts about it. `release` frees the plan even if a caller still holds this object.

    Attributes:
        module: `tensorrt`, or a module of its interface.
        engine: ICudaEngine.
        log: Logger of the engine, which is a MessageLog.
        where: Name of the engine in errors.
    """

    module: Any
    engine: Any
    log: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    where: str

    def release(self) -> None:
        """Free the plan. All its contexts must be closed."""
        self.engine = None

    @property
    def profiles(self) -> range:
        """Indices of the library's profiles. A plan of fixed shapes has one."""
        return range(max(self.engine.num_optimization_profiles, 1))

    def is_on_host(self, name: str) -> bool:
        """Whether the library reads or writes the tensor in host memory (shape tensors)."""
        return bool(self.engine.get_tensor_location(name) == self.module.TensorLocation.HOST)

    def shape_at(self, name: str, profile: int, point: int) -> tuple[int, ...]:
        """Return an input's shape at a profile's min (0), opt (1) or max (2)."""
        fixed = tuple(self.engine.get_tensor_shape(name))
        if all(size >= 0 for size in fixed):
            return fixed
        return tuple(self.engine.get_tensor_profile_shape(name, profile)[point])

    def values_at(self, name: str, profile: int, point: int) -> list[int]:
        """Return a shape tensor's values at a profile's min (0), opt (1) or max (2)."""
        # Some releases of the binding swap the names of these parameters.
        try:
            values = self.engine.get_tensor_profile_values(profile, name)
        except TypeError:
            values = self.engine.get_tensor_profile_values(name, profile)
        return list(values[point])

    def take_messages(self) -> tuple[str, ...]:
        """Return the first messages of the library since the last call, without duplicates, each on one line."""
        # Take them in one step, because threads of other instances write at the same time.
        heard = tuple(self.log.errors)
        said = tuple(dict.fromkeys(one_line(message) for message in heard))
        self.log.errors.clear()
        return said[:_QUOTED_MESSAGES]


class ProfileContext:
    """An IExecutionContext with a selected profile.

    Attributes:
        native: The IExecutionContext.
        bound: Run whose shapes and addresses are set; None if unknown.
        allocators: Allocators of outputs whose shape depends on the data.
        can_record: False if the capture of its opt shapes failed.
    """

    def __init__(self, native: Any, library: Library) -> None:
        self.native = native
        self.bound: Run | None = None
        self.allocators: dict[str, Any] = {}
        self.can_record = True
        self._library = library

    def set_shapes(self, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> None:
        """Set the shapes of inputs.

        Raises:
            InferenceError: `ShapeRefused` if the profile does not contain them.
        """
        for name, shape in shapes:
            if not self.native.set_input_shape(name, shape):
                raise self._refused(name, f"shape {list(shape)}")

    def infer_shapes(self) -> None:
        """Let the library compute the shapes of the outputs.

        Raises:
            InferenceError: `ShapeRefused` if the inputs contradict each other.
        """
        try:
            missing = self.native.infer_shapes()
        except RuntimeError as error:
            raise self._refused("inputs", str(error)) from error
        if missing:
            raise self._refused("inputs", f"no shape for {', '.join(missing)}")

    def bind(self, run: Run) -> None:
        """Set the shapes and addresses of a run again after another run used the context.

        Raises:
            InferenceError: `ShapeRefused`.
        """
        self.bound = None
        self.set_shapes(run.shapes)
        for name, address in run.addresses:
            self.native.set_tensor_address(name, address)
        self.infer_shapes()
        self.bound = run

    def _refused(self, where: str, why: str) -> InferenceError:
        self.bound = None
        return InferenceError(
            "the engine does not accept this shape",
            where=where,
            why=" | ".join((why, *self._library.take_messages())),
            remedy="send a shape within the profile's ranges",
            reason="ShapeRefused",
        )


class ActivationMemory:
    """Activation memory of the contexts of one instance. The GPU's context must be current."""

    def __init__(self, memory: CudaMemory, size: int) -> None:
        self._memory = memory
        self._size = size
        self._allocation: Any = memory.device(size, Purpose.CONTEXTS)

    def give_to(self, native: Any) -> None:
        """Set the memory of a context."""
        if hasattr(native, "set_device_memory"):
            native.set_device_memory(int(self._allocation), self._size)
        else:
            native.device_memory = int(self._allocation)

    def free(self) -> None:
        """Free the memory. Safe to call twice."""
        if self._allocation is None:
            return
        self._allocation.free()
        self._allocation = None
        self._memory.forget(self._size, Purpose.CONTEXTS)


def needed_activations(library: Library) -> int | None:
    """Return the activation bytes of the largest profile, or None if the library must allocate them itself."""
    strategy = getattr(library.module, "ExecutionContextAllocationStrategy", None)
    size = getattr(library.engine, "device_memory_size_v2", None)
    if strategy is None or size is None or not hasattr(strategy, "USER_MANAGED"):
        return None
    return max(int(size), ALIGNMENT)


def create_context(library: Library, profile: int, activations: ActivationMemory | None, stream: int) -> ProfileContext:
    """Create the context of one profile.

    Args:
        library: The plan.
        profile: Index of the profile in the library.
        activations: Memory to use; None if the library allocates it.
        stream: Handle of the instance's stream. The caller synchronises it before the context runs.

    Raises:
        EngineRefusedError: The library refuses, mostly because of missing memory.
    """
    if activations is None:
        native = library.engine.create_execution_context()
    else:
        strategy = library.module.ExecutionContextAllocationStrategy.USER_MANAGED
        native = library.engine.create_execution_context(strategy)
    if native is None:
        raise _no_context(library, profile)
    if activations is not None:
        activations.give_to(native)
    if profile and not native.set_optimization_profile_async(profile, stream):
        raise _no_context(library, profile)
    return ProfileContext(native, library)


def measure(library: Library, context: ProfileContext, profile: int, point: int) -> dict[str, int]:
    """Return the bytes of every input and output at a profile's opt (1) or max (2), and unbind the context."""
    native = context.native
    sizes: dict[str, int] = {}
    kept = []
    for spec in library.inputs:
        shape = library.shape_at(spec.name, profile, point)
        context.set_shapes([(spec.name, shape)])
        sizes[spec.name] = size_bytes(shape, spec.dtype.numpy)
        if library.is_on_host(spec.name):
            values = np.array(library.values_at(spec.name, profile, point), spec.dtype.numpy)
            native.set_tensor_address(spec.name, int(values.ctypes.data))
            kept.append(values)
    context.infer_shapes()
    for spec in library.outputs:
        shape = tuple(native.get_tensor_shape(spec.name))
        if all(size >= 0 for size in shape):
            sizes[spec.name] = size_bytes(shape, spec.dtype.numpy)
            continue
        bound = native.get_max_output_size(spec.name)
        sizes[spec.name] = bound if bound > 0 else _UNBOUNDED_OUTPUT
    return sizes


def _no_context(library: Library, profile: int) -> EngineRefusedError:
    return EngineRefusedError(
        "the GPU has no room for another instance",
        where=library.where,
        why=" | ".join(
            part
            for part in (f"no execution context for profile {profile}", *library.take_messages(), describe_occupancy())
            if part
        ),
        remedy="lower serving.instances, narrow the profiles, or use a GPU with more memory",
        reason="OutOfMemory",
    )
