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
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from enginesmith_contract.backends import Backend, Hardware
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.tensors import TensorSpec

__all__ = ["Array", "BuildJob", "Builder", "BuiltEngine", "Engine", "Instance", "Loader", "ProgressSink"]

Array = npt.NDArray[np.generic]


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
        model: path of the prepared ONNX file; external weights lie beside it.
        output: an empty folder that receives the engine's files.
        timing_cache: bytes of an earlier build's timing cache for this GPU product and version; None: none.
        device: what the device says of itself; product None where there is no GPU.
    """

    request: BuildRequest
    preparation: Preparation
    model: Path
    output: Path
    device: Hardware
    timing_cache: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """What a builder made.

    Attributes:
        files: inside `BuildJob.output`, the one to open first.
        timing_cache: the merged cache to store, None where the backend has none.
        runs_on: compute capabilities in the engine where there is more than one.
        inspector: the backend's own description of the engine.
    """

    files: tuple[Path, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    runs_on: tuple[str, ...] = ()
    device_memory_bytes: int | None = None
    inspector: Mapping[str, JsonValue] = field(default_factory=dict)
    timing_cache: bytes | None = None


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


class Instance(ABC):
    """One execution context. Not thread-safe: one inference at a time. A context manager that frees the device."""

    @abstractmethod
    def infer(self, inputs: Mapping[str, Array], *, profile: int, outputs: Sequence[str]) -> dict[str, Array]:
        """Run one inference.

        Args:
            inputs: one C-contiguous array for each input of the manifest, within `profile`'s ranges; BYTES are object
                arrays of `bytes`. Read until the call returns, never written and never kept.
            profile: index into the manifest's profiles.
            outputs: names of the outputs wanted, in order.

        Returns:
            The outputs in that order. The arrays belong to the caller.

        Raises:
            enginesmith_contract.errors.EngineRefusedError: the device is broken; the process must end.
            enginesmith_contract.errors.InferenceError: this one failed; the instance goes on.
            enginesmith_contract.errors.SpecError: an element that the backend cannot take (BYTES that are no text).
        """

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

    @abstractmethod
    def open_instance(self) -> Instance:
        """Return a new execution context."""

    @abstractmethod
    def close(self) -> None:
        """Free the engine; every instance is closed first."""


class Loader(Protocol):
    """Loads engines of one backend."""

    backend: Backend

    def version(self) -> str:
        """Return the library's full version, as the manifest of an engine that it can load must say."""
        ...

    def load(self, manifest: Manifest, files: Path, options: Mapping[str, str]) -> Engine:
        """Load the engine whose files lie in the folder `files`; manifest and digests were checked before.

        Raises:
            enginesmith_contract.errors.EngineRefusedError: the library refuses it; its own words are in the message.
        """
        ...
