"""The backend for TensorRT 10.x and 11.x, which builds an engine on the GPU that will run it.

It shares most of its code with TensorRT for RTX (the other modules of this package). Only TensorRT has the driver check
(without a driver the library aborts the process), the timing cache (a rebuild takes seconds instead of two minutes),
refitting (which is even faster) and the inspector.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from enginesmith_contract.errors import BuildError, BuildOutOfMemoryError, CancelledBuildError, EngineRefusedError
from enginesmith_runtime.engines.cuda.driver import require_driver
from enginesmith_runtime.engines.interface import BuildJob, BuiltEngine, ProgressSink
from enginesmith_runtime.engines.nvinfer.build import ENGINE_FILE, Plan, build_plan, install_plugins
from enginesmith_runtime.engines.nvinfer.early_start import StartedBuilder, start_builder
from enginesmith_runtime.engines.nvinfer.inspect import INSPECTOR_FILE, Inspection, inspect_plan
from enginesmith_runtime.engines.nvinfer.library import TENSORRT_LIBRARY
from enginesmith_runtime.engines.nvinfer.loader import NvInferLoader
from enginesmith_runtime.engines.nvinfer.messages import create_logger
from enginesmith_runtime.engines.nvinfer.refit import refit_plan
from enginesmith_runtime.engines.refitting import RefitBase
from enginesmith_runtime.local_files.space import say_bytes

if TYPE_CHECKING:
    from enginesmith_runtime.engines.cuda.device import Gpu

__all__ = ["TensorRtBuilder", "create_builder", "create_loader", "require_room"]

_OLDEST_MAJOR = 10
_REFIT = "refit"


def create_builder() -> "TensorRtBuilder":
    """Return the backend's builder."""
    return TensorRtBuilder()


def create_loader() -> NvInferLoader:
    """Return the backend's loader."""
    return NvInferLoader(TENSORRT_LIBRARY)


class TensorRtBuilder:
    """Builds a plan on the first visible GPU."""

    backend = TENSORRT_LIBRARY.backend
    needs_device = True

    def __init__(self) -> None:
        self._started: StartedBuilder | None = None

    def start(self) -> None:
        """Create the library's builder, which takes seconds and does not need a job."""
        self._started = start_builder(self._load)

    def version(self) -> str:
        """Return the installed version."""
        return TENSORRT_LIBRARY.version()

    def build(self, job: BuildJob, progress: ProgressSink) -> BuiltEngine:
        """Build a plan with tactics that are timed on this GPU.

        Raises:
            BuildError: There is no driver, or the parser or the builder refuses.
            BuildOutOfMemoryError: The builder ran out of memory, or a context of the engine does not fit this GPU.
            CancelledBuildError: `progress` cancelled the build.
        """
        module = self._load()
        plan = build_plan(module, job, progress, timing_cache=job.timing_cache, started=self._started)
        return _describe(module, job, plan, {"networkLayers": plan.layers})

    def refit(self, job: BuildJob, base: RefitBase, progress: ProgressSink) -> BuiltEngine:
        """Replace the weights in another engine's plan with those of the job's model.

        Raises:
            BuildError: There is no driver, or the library refuses (`RefitRefused`).
            CancelledBuildError: `progress` cancelled the build.
        """
        module = self._load()
        progress.phase(_REFIT, steps=1)
        target = job.output / ENGINE_FILE
        log = create_logger(module)
        plugins = install_plugins(module, log, job)
        with _opened_gpu():
            refit_plan(module, log, base.plan, job.model, target)
        if not progress.step(_REFIT, 0):
            raise CancelledBuildError("the build was cancelled")
        progress.finish(_REFIT)
        known = base.manifest
        plan = Plan(files=(target, *plugins), inputs=known.inputs, outputs=known.outputs, layers={})
        layers = {name: value for name, value in known.inspector.items() if name == "networkLayers"}
        return _describe(module, job, plan, layers)

    def _load(self) -> Any:
        _check_major(self.version())
        require_driver(BuildError)
        return TENSORRT_LIBRARY.load()


def _describe(module: Any, job: BuildJob, plan: Plan, network: Mapping[str, JsonValue]) -> BuiltEngine:
    report = job.output / INSPECTOR_FILE
    host_code = job.request.options.version_compatible
    with _opened_gpu() as gpu:
        memory = gpu.driver.mem_get_info
        inspection = inspect_plan(module, plan.files[0], report, host_code=host_code, device_memory=memory)
    require_room(job, inspection)
    return BuiltEngine(
        files=(*plan.files, report),
        inputs=plan.inputs,
        outputs=plan.outputs,
        device_memory_bytes=max(inspection.context_bytes, default=None),
        builder_seconds=plan.builder_seconds,
        timing_cache=plan.timing_cache,
        inspector={**network, **inspection.summary},
        notes=plan.notes,
    )


def require_room(job: BuildJob, inspection: Inspection) -> None:
    """Return if a context of each profile fits the free memory of the device, one at a time.

    Raises:
        BuildOutOfMemoryError: `ProfileTooLarge` with the profile, the memory that it needs and the free memory.
    """
    for index, wanted in enumerate(inspection.context_bytes):
        if wanted <= inspection.memory.free:
            continue
        free, total = map(say_bytes, inspection.memory)
        profiles = job.preparation.profiles
        name = profiles[index].name if index < len(profiles) else str(index)
        raise BuildOutOfMemoryError(
            "the GPU has no room for an execution context",
            where=f"profile {name}",
            why=f"it takes {say_bytes(wanted)}, {free} of {total} are free",
            remedy="lower the profile's max, or use a GPU with more memory",
            reason="ProfileTooLarge",
        )


@contextmanager
def _opened_gpu() -> "Iterator[Gpu]":
    """Yield the GPU with its context current, which deserialisation needs."""
    from enginesmith_runtime.engines.cuda.device import open_device

    try:
        gpu = open_device()
    except EngineRefusedError as error:
        raise BuildError(
            error.what, where=error.where, why=error.why, remedy=error.remedy, reason=error.reason
        ) from error
    try:
        with gpu.current():
            yield gpu
    finally:
        gpu.release()


def _check_major(version: str) -> None:
    if int(version.split(".", maxsplit=1)[0]) >= _OLDEST_MAJOR:
        return
    raise BuildError(
        "this version of TensorRT cannot build here",
        where=f"TensorRT {version}",
        why="strongly typed networks need TensorRT 10",
        remedy="use TensorRT 10 or newer",
        reason="BuilderUnsupported",
    )
