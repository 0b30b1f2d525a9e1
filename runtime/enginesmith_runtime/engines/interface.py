"""The interface of a backend: a Builder creates an engine, and an Engine runs it.

    BuildJob ──Builder.build──> BuiltEngine (files) ── store ──> Loader.load ──> Engine ──open_instance──> Instance

A builder runs in its own child process (see `enginesmith_runtime.build`), because native builders can abort or run out
of memory and cannot be interrupted. An engine is loaded once; each instance runs one inference at a time, and instances
of one engine run at the same time.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from enginesmith_contract.backends import Backend, Hardware
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import SpecError
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.tensors import TensorSpec
from enginesmith_contract.timing_cache import TimingCacheUse
from enginesmith_runtime.engines.timing_cache import TimingCache

__all__ = [
    "Array",
    "BuildJob",
    "Builder",
    "BuiltEngine",
    "DeviceArray",
    "DeviceMemory",
    "Engine",
    "Instance",
    "Loader",
    "ProgressSink",
    "SharedRegion",
    "no_device_memory",
    "on_host",
]

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceArray:
    """A tensor in device memory of the caller, such as a part of a client's CUDA shared memory region.

    An input is read there, and an output is written there. Nothing is copied if the address is a multiple of 256.

    Attributes:
        address: Address in the device's address space.
        shape: Shape of the tensor. It is ignored for the place of an output.
        dtype: Datatype of the tensor. It is ignored for the place of an output.
        nbytes: Number of bytes that may be read or written at the address.
    """

    address: int
    shape: tuple[int, ...]
    dtype: "np.dtype[np.generic]"
    nbytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceMemory:
    """Memory of an engine and its open instances in bytes.

    Attributes:
        weights: Weights of the engine, which instances share; None if the library does not report it.
        contexts: Activations of all open instances together.
        buffers: Inputs and outputs of all open instances on the device together.
        pinned: Inputs and outputs of all open instances in pinned host memory together.
        allocations: Number of allocations since the engine was loaded. A request allocates nothing.
    """

    weights: int | None
    contexts: int
    buffers: int
    pinned: int
    allocations: int


class SharedRegion(Protocol):
    """Device memory of another process, mapped into this one.

    Attributes:
        address: Address of the first byte in this process.
        size: Size in bytes.
    """

    address: int
    size: int

    def close(self) -> None:
        """Unmap the region. No inference may still use it. Safe to call twice."""


class ProgressSink(Protocol):
    """Receives progress from a builder. Methods may be called from any thread."""

    def phase(self, name: str, *, steps: int, parent: str | None = None) -> None:
        """Begin a phase of `steps` steps."""

    def step(self, name: str, step: int) -> bool:
        """Report a finished step. Return False if the builder must stop as soon as it can."""
        ...

    def finish(self, name: str) -> None:
        """End a phase."""


@dataclass(frozen=True, kw_only=True)
class BuildJob:
    """One build, with every file it reads on the local disk.

    Attributes:
        model: Path of the prepared ONNX file. External weights are in the same folder.
        output: Empty folder that receives the engine's files.
        plugins: Plugin libraries in loading order, with the file names that they have in the engine.
        timing_cache: Timing cache of earlier builds for this GPU product and version; None if there is none.
        device: Hardware that the device reports; `product` is None if there is no GPU.
    """

    request: BuildRequest
    preparation: Preparation
    model: Path
    output: Path
    device: Hardware
    plugins: tuple[Path, ...] = ()
    timing_cache: TimingCache | None = None


@dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """Result of a builder.

    Attributes:
        files: Files in `BuildJob.output`. The first one is the one to open.
        runs_on: Compute capabilities of the engine, if there are several.
        builder_seconds: Seconds of the library's builder without the start of the library; None if there was no
            builder.
        timing_cache: Entries that the build found in the timing cache and added to it; None if there is no timing
            cache.
        inspector: Description of the engine by the backend.
        notes: Deviations of the build that a user should know, one sentence each.
    """

    files: tuple[Path, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    runs_on: tuple[str, ...] = ()
    device_memory_bytes: int | None = None
    builder_seconds: float | None = None
    timing_cache: TimingCacheUse | None = None
    inspector: Mapping[str, JsonValue] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Builder(Protocol):
    """Turns a prepared ONNX model into an engine.

    Attributes:
        needs_device: Whether the build itself runs on the GPU. If it does not, the engine may not run on this machine.
    """

    backend: Backend
    needs_device: bool

    def version(self) -> str:
        """Return the library's full version. It must be equal to that of the request's toolchain."""
        ...

    def build(self, job: BuildJob, progress: ProgressSink) -> BuiltEngine:
        """Build the engine.

        Raises:
            enginesmith_contract.errors.BuildError: The parser or the builder refused. Every refused node is listed.
            enginesmith_contract.errors.CancelledBuildError: `progress.step` returned False.
        """
        ...


_NOWHERE: Final[Mapping[str, DeviceArray]] = {}


def on_host(outputs: Mapping[str, Array | DeviceArray]) -> dict[str, Array]:
    """Return the outputs of an inference without output places on the device."""
    return {name: value for name, value in outputs.items() if not isinstance(value, DeviceArray)}


def no_device_memory(backend: str) -> SpecError:
    """Return the error of a backend without device memory for a DeviceArray or a CUDA shared memory region."""
    return SpecError(
        "this engine takes no device memory",
        where=f"backend {backend}",
        why="it does not run on a CUDA device",
        remedy="send the tensors in the request, or in system shared memory",
        reason="NoDeviceMemory",
    )


class Instance(ABC):
    """One execution context for one inference at a time. Not thread-safe. A context manager that frees device memory.

    Attributes:
        outputs_last: Whether arrays that `infer` returns stay valid as long as the caller keeps them.
    """

    outputs_last: bool = False

    @abstractmethod
    def infer(
        self,
        inputs: Mapping[str, Array | DeviceArray],
        *,
        profile: int,
        outputs: Sequence[str],
        into: Mapping[str, DeviceArray] = _NOWHERE,
    ) -> dict[str, Array | DeviceArray]:
        """Run one inference.

        Args:
            inputs: One C-contiguous array for each input of the manifest, within the ranges of `profile`. BYTES are
                object arrays of `bytes`. Arrays are read until the call returns and are never written or kept. An array
                from `staging` with the same name and shape is read in place.
            profile: Index into the manifest's profiles.
            outputs: Names of the requested outputs, in order.
            into: Places on the device for some of `outputs`. The others are returned as host arrays.

        Returns:
            The outputs in that order: those in `into` as DeviceArray with their actual shape, the others as arrays.
            Without `outputs_last`, arrays may be memory of the instance and are valid until its next inference.

        Raises:
            enginesmith_contract.errors.DeviceFailedError: The device has failed, and the process must end.
            enginesmith_contract.errors.InferenceError: This inference failed; the instance continues. Reasons include
                `OutOfMemory`, `RequestTooLarge` (for the instance's buffers) and `OutputTooLarge` (for its place in
                `into`).
            enginesmith_contract.errors.SpecError: The backend does not accept an element (BYTES that are not text), or
                `NoDeviceMemory` for a DeviceArray and a backend without device memory.
        """

    @abstractmethod
    def staging(self, name: str, shape: tuple[int, ...]) -> Array:
        """Return an array in the instance's memory for an input, so that `infer` need not copy it.

        It is valid until the instance's next inference ends. Initially it contains the values that were last written
        there.

        Args:
            name: Name of an input.
            shape: Shape of the input in this request.

        Raises:
            enginesmith_contract.errors.InferenceError: `RequestTooLarge` if the instance's buffers are too small.
        """

    def works_in_place(self, name: str) -> bool:
        """Whether this input or output may be in memory that another process can change during the run."""
        del name
        return False

    def infer_in_place(
        self,
        inputs: Mapping[str, Array | DeviceArray],
        *,
        profile: int,
        outputs: Sequence[str],
        places: Mapping[str, Array],
    ) -> dict[str, Array | DeviceArray]:
        """Run one inference like `infer`, and write outputs to arrays of the caller if that saves a copy.

        Args:
            inputs: Inputs as for `infer`. Another process may change those for which `works_in_place` is True.
            profile: Index as for `infer`.
            outputs: Names as for `infer`.
            places: C-contiguous, aligned arrays by output name, each with the shape of the output.

        Returns:
            The outputs as for `infer`. An output that was written to its place is that array itself.
        """
        del places
        return self.infer(inputs, profile=profile, outputs=outputs)

    @abstractmethod
    def close(self) -> None:
        """Free the instance's memory on the device. Safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Engine(ABC):
    """A loaded engine: weights on the device, shared by its instances."""

    manifest: Manifest

    @property
    def device_memory(self) -> DeviceMemory | None:
        """Device memory in use now; None if the backend has no device memory."""
        return None

    @abstractmethod
    def open_instance(self) -> Instance:
        """Return a new execution context that is warmed up.

        Raises:
            enginesmith_contract.errors.EngineRefusedError: The device has not enough memory for it (`OutOfMemory`).
        """

    def open_shared_memory(self, ipc_handle: bytes, size: int, device_id: int) -> SharedRegion:
        """Map another process's device memory into this one.

        Args:
            ipc_handle: The 64 bytes of a cudaIpcMemHandle_t.
            size: Size in bytes, as reported by its owner.
            device_id: CUDA index of the device with the memory.

        Raises:
            enginesmith_contract.errors.SpecError: The backend has no device memory (`NoDeviceMemory`), or the handle
                cannot be opened here (`SharedMemoryRefused`).
        """
        del ipc_handle, size, device_id
        raise no_device_memory(str(self.manifest.toolchain.backend))

    @abstractmethod
    def close(self) -> None:
        """Free the engine. All instances must be closed first."""


class Loader(Protocol):
    """Loads engines of one backend."""

    backend: Backend

    def version(self) -> str:
        """Return the library's full version. The manifest of an engine must have the same version."""
        ...

    def load(self, manifest: Manifest, files: Path, options: Mapping[str, str], *, instances: int = 1) -> Engine:
        """Load the engine with its files in the folder `files`. The caller has checked manifest and digests.

        Args:
            manifest: Manifest of the engine.
            files: Folder with the engine's files.
            options: Options of the backend.
            instances: Number of instances that run at the same time and share the CPUs.

        Raises:
            enginesmith_contract.errors.EngineRefusedError: The library refuses the engine. Its error is in the message.
        """
        ...
