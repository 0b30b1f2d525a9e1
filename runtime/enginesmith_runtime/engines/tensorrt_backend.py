"""TensorRT 10.x and 11.x: builds on the GPU that the engine is for, and runs there.

Nearly all of it is shared with TensorRT for RTX (the `nvinfer_*` modules). Its own are the driver check, without which
the library aborts the process, the timing cache, which turns a two-minute rebuild into seconds, and the inspector.
"""

from typing import Any

from enginesmith_contract.backends import Backend
from enginesmith_contract.errors import BuildError, EngineRefusedError
from enginesmith_runtime.engines.cuda_driver import require_driver
from enginesmith_runtime.engines.interface import BuildJob, BuiltEngine, ProgressSink
from enginesmith_runtime.engines.nvinfer_build import Plan, build_plan
from enginesmith_runtime.engines.nvinfer_inspect import INSPECTOR_FILE, Inspection, inspect_plan
from enginesmith_runtime.engines.nvinfer_library import TENSORRT_LIBRARY
from enginesmith_runtime.engines.nvinfer_loader import NvInferLoader

__all__ = ["TensorRtBuilder", "create_builder", "create_loader"]

_OLDEST_MAJOR = 10


def create_builder() -> "TensorRtBuilder":
    """Return the backend's builder."""
    return TensorRtBuilder()


def create_loader() -> NvInferLoader:
    """Return the backend's loader."""
    return NvInferLoader(TENSORRT_LIBRARY)


class TensorRtBuilder:
    """Builds a plan on the first visible GPU."""

    backend = Backend.TENSORRT
    needs_device = True

    def version(self) -> str:
        """Return the installed version."""
        return TENSORRT_LIBRARY.version()

    def build(self, job: BuildJob, progress: ProgressSink) -> BuiltEngine:
        """Build a plan, measuring tactics on this GPU.

        Raises:
            BuildError: there is no driver, or the parser or the builder refuses.
            CancelledBuildError: the sink said so.
        """
        _check_major(self.version())
        require_driver(BuildError)
        module = TENSORRT_LIBRARY.load()
        plan = build_plan(module, job, progress, keeps_timing_cache=True)
        report = job.output / INSPECTOR_FILE
        inspection = _inspect(module, job, plan)
        return BuiltEngine(
            files=(*plan.files, report),
            inputs=plan.inputs,
            outputs=plan.outputs,
            device_memory_bytes=inspection.device_memory_bytes,
            inspector={"networkLayers": plan.layers, **inspection.summary},
            timing_cache=plan.timing_cache,
        )


def _inspect(module: Any, job: BuildJob, plan: Plan) -> Inspection:  # noqa: ANN401 - the library has no types
    # Deserialising needs a current CUDA context.
    from enginesmith_runtime.engines.nvinfer_execution import open_device  # noqa: PLC0415 - needs a driver

    try:
        gpu = open_device()
    except EngineRefusedError as error:
        raise BuildError(
            error.what, where=error.where, why=error.why, remedy=error.remedy, reason=error.reason
        ) from error
    try:
        with gpu.current():
            host_code = job.request.options.version_compatible
            return inspect_plan(module, plan.files[0], job.output / INSPECTOR_FILE, host_code=host_code)
    finally:
        gpu.release()


def _check_major(version: str) -> None:
    if int(version.split(".", maxsplit=1)[0]) >= _OLDEST_MAJOR:
        return
    raise BuildError(
        "this version of TensorRT cannot build here",
        where=f"TensorRT {version}",
        why="strongly typed networks came with TensorRT 10",
        remedy="use TensorRT 10 or newer",
        reason="BuilderUnsupported",
    )
