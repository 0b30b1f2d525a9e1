"""The interface between a backend and the rest: a Builder makes an engine, an Engine runs it.

    BuildJob ──Builder.build──> BuiltEngine (files) ── store ──> Loader.load ──> Engine ──open_instance──> Instance

A builder runs in a child process of its own (see `enginesmith_runtime.build`), since native builders abort, run out of
memory and cannot be interrupted. An engine is loaded once; each instance runs one inference at a time, and instances
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
    """A tensor in device memory that the caller owns, as a part of a client's CUDA shared memory region.

    As an input it is read where it lies; as a place for an output it is written there. Nothing is copied where the
    address is a multiple of 256.

    Attributes:
        address: in the device's address space.
        shape: of the tensor; of a place for an output it is not read.
        dtype: of the tensor; of a place for an output it is not read.
        nbytes: what may be read or written at the address.
    """

    address: int
    shape: tuple[int, ...]
    dtype: "np.dtype[np.generic]"
    nbytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceMemory:
    """What an engine and its open instances hold, in bytes.

    Attributes:
        weights: of the engine, once; None where the library does not tell.
        contexts: activations of every open instance, together.
        buffers: inputs and outputs of every open instance on the device, together.
        pinned: the same on the host.
        allocations: how often memory was taken since the engine was loaded; a request takes none.
    """

    weights: int | None
    contexts: int
    buffers: int
    pinned: int
    allocations: int


class SharedRegion(Protocol):
    """Device memory of another process, mapped into this one.

    Attributes:
        address: of its first byte, in this process.
        size: in bytes.
    """

    address: int
    size: int

    def close(self) -> None:
        """Unmap it; no inference may still use it. Safe to call twice."""


class ProgressSink(Protocol):
    """Receives progress from a builder; called from any thread."""

    def phase(self, name: str, *, steps: int, parent: str | None = None) -> None:
        """Begin a phase of `steps` steps."""

    def step(self, name: str, step: int) -> bool:
        """Report a finished step. Returns False when the builder must stop as soon as it can."""
        ...

    def finish(self, name: str) -> None:
        """End a phase."""


@dataclass(frozen=True, kw_only=True)
class BuildJob:
    """One build, with every file it reads on the local disk.

    Attributes:
        model: path of the prepared ONNX file; external weights are in the same folder.
        output: an empty folder that receives the engine's files.
        plugins: plugin libraries in loading order, named as they are to be named in the engine.
        timing_cache: of earlier builds for this GPU product and version; None: the backend gets none.
        device: what the device says of itself; product None where there is no GPU.
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
    """What a builder made.

    Attributes:
        files: inside `BuildJob.output`, the one to open first.
        runs_on: compute capabilities in the engine where there is more than one.
        builder_seconds: what the library's builder took, without the start of the library; None: there was no builder.
        timing_cache: what the build found in the timing cache and added to it; None where there is none.
        inspector: the backend's own description of the engine.
        notes: what was done otherwise than one would expect, one sentence each.
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
        needs_device: whether the build itself runs on the GPU; where it does not, the engine may not run here either.
    """

    backend: Backend
    needs_device: bool

    def version(self) -> str:
        """Return the library's full version; it must equal the request's toolchain."""
        ...

    def build(self, job: BuildJob, progress: ProgressSink) -> BuiltEngine:
        """Build the engine.

        Raises:
            enginesmith_contract.errors.BuildError: the parser or the builder refused; every refused node is listed.
            enginesmith_contract.errors.CancelledBuildError: `progress.step` said so.
        """
        ...


_NOWHERE: Final[Mapping[str, DeviceArray]] = {}


def on_host(outputs: Mapping[str, Array | DeviceArray]) -> dict[str, Array]:
    """Return the outputs of an inference that was given no place on the device."""
    return {name: value for name, value in outputs.items() if not isinstance(value, DeviceArray)}


def no_device_memory(backend: str) -> SpecError:
    """Return what a backend without device memory answers to a DeviceArray or a CUDA shared memory region."""
    return SpecError(
        "this engine takes no device memory",
        where=f"backend {backend}",
        why="it does not run on a CUDA device",
        remedy="send the tensors in the request, or in system shared memory",
        reason="NoDeviceMemory",
    )


class Instance(ABC):
    """One execution context. Not thread-safe: one inference at a time. A context manager that frees the device.

    Attributes:
        outputs_last: whether arrays that `infer` returns hold as long as the caller keeps them.
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
            inputs: one C-contiguous array for each input of the manifest, within `profile`'s ranges; BYTES are object
                arrays of `bytes`. Read until the call returns, never written and never kept. What `staging` gave for
                the same name and shape is read in place.
            profile: index into the manifest's profiles.
            outputs: names of the outputs wanted, in order.
            into: where on the device to leave some of `outputs`; the others come back as arrays of the host.

        Returns:
            The outputs in that order: those named in `into` as DeviceArray of their true shape, the others as arrays.
            These may be the instance's own memory, without `outputs_last`: they hold until its next inference.

        Raises:
            enginesmith_contract.errors.DeviceFailedError: the device is broken; the process must end.
            enginesmith_contract.errors.InferenceError: this one failed; the instance continues. Reasons among others:
                `OutOfMemory`, `RequestTooLarge` (than the instance's buffers), `OutputTooLarge` (for its place in
                `into`).
            enginesmith_contract.errors.SpecError: an element that the backend cannot take (BYTES that are no text), or
                `NoDeviceMemory`: a DeviceArray where the backend runs on none.
        """

    @abstractmethod
    def staging(self, name: str, shape: tuple[int, ...]) -> Array:
        """Return an array of the instance's own memory to write an input into, so that `infer` need not copy it.

        It is valid until the instance's next inference ends; its values are what was last written there.

        Args:
            name: of an input.
            shape: of this request.

        Raises:
            enginesmith_contract.errors.InferenceError: `RequestTooLarge`: the instance's buffers hold less.
        """

    def works_in_place(self, name: str) -> bool:
        """Whether an input may lie, and an output may be left, in memory that another process can change meanwhile."""
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
        """Run one inference as `infer` does, and leave outputs in arrays of the caller where that saves a copy.

        Args:
            inputs: as for `infer`; another process may change those that `works_in_place` names.
            profile: as for `infer`.
            outputs: as for `infer`.
            places: C-contiguous, aligned arrays by the outputs' names, each with the shape that the output will have.

        Returns:
            As `infer`; an output that was left in its place is that array itself.
        """
        del places
        return self.infer(inputs, profile=profile, outputs=outputs)

    @abstractmethod
    def close(self) -> None:
        """Free what the instance holds on the device; safe to call twice."""

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
        """What is held on the device at this moment; None where the backend has no device memory of its own."""
        return None

    @abstractmethod
    def open_instance(self) -> Instance:
        """Return a new execution context, warm.

        Raises:
            enginesmith_contract.errors.EngineRefusedError: the device has no room for it (`OutOfMemory`).
        """

    def open_shared_memory(self, ipc_handle: bytes, size: int, device_id: int) -> SharedRegion:
        """Map another process's device memory into this one.

        Args:
            ipc_handle: the 64 bytes of a cudaIpcMemHandle_t.
            size: in bytes, as its owner says.
            device_id: CUDA's index of the device that holds it.

        Raises:
            enginesmith_contract.errors.SpecError: the backend has no device memory (`NoDeviceMemory`), or the handle
                cannot be opened here (`SharedMemoryRefused`).
        """
        del ipc_handle, size, device_id
        raise no_device_memory(str(self.manifest.toolchain.backend))

    @abstractmethod
    def close(self) -> None:
        """Free the engine; every instance is closed first."""


class Loader(Protocol):
    """Loads engines of one backend."""

    backend: Backend

    def version(self) -> str:
        """Return the library's full version, as the manifest of an engine that it can load must say."""
        ...

    def load(self, manifest: Manifest, files: Path, options: Mapping[str, str], *, instances: int = 1) -> Engine:
        """Load the engine whose files lie in the folder `files`; manifest and digests were checked before.

        Args:
            manifest: of the engine.
            files: has the engine's files.
            options: of the backend.
            instances: that will run at once, which share the CPUs.

        Raises:
            enginesmith_contract.errors.EngineRefusedError: the library refuses it; its own words are in the message.
        """
        ...
