"""The backend for TensorRT for RTX, which builds on any CPU and runs on RTX-class GPUs.

The engine has kernels for several compute capabilities and is completed at its first run. So a build needs no GPU and
no driver, and takes a fraction of a second. Only the run needs the device.
"""

from typing import Any

from enginesmith_contract.errors import BuildError
from enginesmith_runtime.engines.interface import BuildJob, BuiltEngine, ProgressSink
from enginesmith_runtime.engines.nvinfer.build import build_plan
from enginesmith_runtime.engines.nvinfer.library import RTX_LIBRARY
from enginesmith_runtime.engines.nvinfer.loader import NvInferLoader

__all__ = ["TensorRtRtxBuilder", "create_builder", "create_loader"]


def create_builder() -> "TensorRtRtxBuilder":
    """Return the backend's builder."""
    return TensorRtRtxBuilder()


def create_loader() -> NvInferLoader:
    """Return the backend's loader."""
    return NvInferLoader(RTX_LIBRARY)


class TensorRtRtxBuilder:
    """Builds a plan on the CPU."""

    backend = RTX_LIBRARY.backend
    needs_device = False

    def version(self) -> str:
        """Return the installed version."""
        return RTX_LIBRARY.version()

    def build(self, job: BuildJob, progress: ProgressSink) -> BuiltEngine:
        """Build a plan for the request's compute capability, or for the library's default set.

        Raises:
            BuildError: The parser or the builder refuses, or the library does not have the target or an option.
            CancelledBuildError: `progress` cancelled the build.
        """
        module = RTX_LIBRARY.load()
        _refuse_options(job)
        wanted = job.request.hardware.compute_capability
        target = None if wanted is None else _find_target(module, wanted)

        def adjust(config: Any) -> None:
            if target is not None:
                config.num_compute_capabilities = 1
                config.set_compute_capability(target, 0)

        plan = build_plan(module, job, progress, adjust=adjust)
        return BuiltEngine(
            files=plan.files,
            inputs=plan.inputs,
            outputs=plan.outputs,
            runs_on=() if wanted is None else (wanted,),
            builder_seconds=plan.builder_seconds,
            inspector={"networkLayers": plan.layers},
            notes=plan.notes,
        )


def _refuse_options(job: BuildJob) -> None:
    """Refuse options that this library would ignore with a warning, or that need a driver."""
    options = job.request.options
    asked = {
        "build.hardwareCompatibility": options.hardware_compatibility != "none",
        "build.versionCompatible": options.version_compatible,
        "build.plugins": bool(options.plugins),
    }
    for option, is_asked in asked.items():
        if is_asked:
            raise BuildError(
                "TensorRT for RTX does not have this option",
                where=option,
                remedy="leave it out, or use the backend tensorrt",
                reason="OptionUnsupported",
            )


def _find_target(module: Any, capability: str) -> Any:
    targets = {
        _capability(name): member for name, member in module.ComputeCapability.__members__.items() if name[:2] == "SM"
    }
    target = targets.get(capability)
    if target is not None:
        return target
    raise BuildError(
        "TensorRT for RTX does not build for this GPU",
        where=f"compute capability {capability}",
        why=f"it builds for {', '.join(targets)}",
        remedy="use the backend tensorrt for this GPU",
        reason="ComputeCapabilityUnsupported",
    )


def _capability(name: str) -> str:
    """Return "12.0" for "SM120"."""
    digits = name.removeprefix("SM")
    return f"{digits[:-1]}.{digits[-1]}"
