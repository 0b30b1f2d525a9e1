"""Creates the builder's configuration from the request's options. Flags are found by name, because versions differ."""

from typing import Any, Final

from enginesmith_contract.backends import Precision
from enginesmith_contract.errors import BuildError
from enginesmith_runtime.engines.interface import BuildJob
from enginesmith_runtime.local_files.cpus import count_usable_cpus

__all__ = ["configure", "default_workspace_bytes", "set_flag"]

_GIB: Final = 1 << 30
_MOST_THREADS: Final = 8

_HARDWARE_LEVELS: Final = {"ampere-plus": "AMPERE_PLUS", "same-compute-capability": "SAME_COMPUTE_CAPABILITY"}


def default_workspace_bytes(model_bytes: int) -> int:
    """Return 1 GiB, and 2 GiB for models of a gibibyte and more.

    The default of the library is the whole device, but other processes on the device also need memory.
    """
    return 2 * _GIB if model_bytes >= _GIB else _GIB


def configure(module: Any, builder: Any, job: BuildJob) -> Any:
    """Return a builder configuration for the job, without profiles, timing cache or progress.

    Raises:
        BuildError: `OptionUnsupported` if this version of the library does not have a requested option.
    """
    options = job.request.options
    # The library's own default is one thread.
    builder.max_threads = min(_MOST_THREADS, count_usable_cpus())
    config = builder.create_builder_config()
    workspace = options.workspace_bytes or default_workspace_bytes(job.preparation.facts.size_bytes)
    config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, workspace)
    config.builder_optimization_level = options.optimization_level
    # The inspector reports layers and precisions only if the plan contains this detail.
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    # The library enables TF32 by default. In Enginesmith, FP32 means FP32, and TF32 is a separate precision.
    if job.preparation.precision.default is not Precision.TF32:
        config.clear_flag(module.BuilderFlag.TF32)
    if options.hardware_compatibility != "none":
        _set_hardware_level(module, config, options.hardware_compatibility)
    if options.version_compatible:
        set_flag(module, config, "VERSION_COMPATIBLE", "build.versionCompatible")
    if options.weight_streaming:
        set_flag(module, config, "WEIGHT_STREAMING", "build.weightStreaming")
    if options.refittable:
        set_flag(module, config, "REFIT", "build.refittable")
    return config


def set_flag(module: Any, config: Any, name: str, option: str) -> None:
    """Set a BuilderFlag by name. `option` is the name of the user's option, for errors.

    Raises:
        BuildError: `OptionUnsupported`.
    """
    flag = getattr(module.BuilderFlag, name, None)
    if flag is None:
        raise _unsupported(module, option, f"it has no BuilderFlag.{name}")
    config.set_flag(flag)


def _set_hardware_level(module: Any, config: Any, level: str) -> None:
    native = getattr(module.HardwareCompatibilityLevel, _HARDWARE_LEVELS.get(level, ""), None)
    if native is None:
        raise _unsupported(module, "build.hardwareCompatibility", f"it has no level {level!r}")
    config.hardware_compatibility_level = native


def _unsupported(module: Any, option: str, why: str) -> BuildError:
    return BuildError(
        f"{module.__name__} {module.__version__} does not have this option",
        where=option,
        why=why,
        remedy="leave the option out, or choose a toolchain that has it",
        reason="OptionUnsupported",
    )
