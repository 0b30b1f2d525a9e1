"""The build for TensorRT and TensorRT for RTX: parse, configure, build, write.

plugins ─> parse (takes seconds, finds unsupported nodes) ─> configuration, profiles ─> build (minutes) ─> engine.plan
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import JsonValue

from enginesmith_contract.errors import BuildError, BuildOutOfMemoryError, CancelledBuildError
from enginesmith_contract.tensors import TensorSpec
from enginesmith_contract.timing_cache import TimingCacheUse
from enginesmith_runtime.engines.interface import BuildJob, ProgressSink
from enginesmith_runtime.engines.nvinfer.config import configure
from enginesmith_runtime.engines.nvinfer.early_start import StartedBuilder
from enginesmith_runtime.engines.nvinfer.messages import MessageLog, Translation, create_logger, list_reasons, translate
from enginesmith_runtime.engines.nvinfer.network import add_profiles, describe_tensors, parse_network
from enginesmith_runtime.engines.nvinfer.plugins import PLUGIN_FOLDER, load_plugins
from enginesmith_runtime.engines.nvinfer.progress import create_monitor
from enginesmith_runtime.engines.nvinfer.timing_cache import timing_cache_in_use
from enginesmith_runtime.engines.occupancy import describe_occupancy
from enginesmith_runtime.engines.onnx_dimensions import without_false_names
from enginesmith_runtime.engines.timing_cache import TimingCache

__all__ = ["ENGINE_FILE", "Plan", "build_plan", "install_plugins"]

ENGINE_FILE: Final = "engine.plan"

_PHASE: Final = "build"
_STEPS: Final = 3

Configure = Callable[[Any], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A serialised engine on disk.

    Attributes:
        files: The plan, followed by plugin libraries in loading order.
        layers: Number of layers of the network by type, before fusion.
        builder_seconds: Seconds of the builder without the start of the library; None if there was no builder.
        timing_cache: Entries that the build found in the timing cache and added to it; None if there is no timing
            cache.
        notes: Deviations of the build that a user should know.
    """

    files: tuple[Path, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layers: dict[str, JsonValue]
    builder_seconds: float | None = None
    timing_cache: TimingCacheUse | None = None
    notes: tuple[str, ...] = ()


def build_plan(
    module: Any,
    job: BuildJob,
    progress: ProgressSink,
    *,
    adjust: Configure | None = None,
    timing_cache: TimingCache | None = None,
    started: StartedBuilder | None = None,
) -> Plan:
    """Build a plan.

    Args:
        module: The library.
        job: The build.
        progress: Receives the progress of the library's phases. Its `step` returns False to cancel the build.
        adjust: Function that changes the configuration before the build, for options of only one library.
        timing_cache: Timing cache that the build reads and extends; None to disable the library's caches.
        started: Builder that was created earlier; None to create one.

    Raises:
        BuildError: The parser or the builder refuses. Its error is in the message.
        CancelledBuildError: `progress` cancelled the build.
    """
    log = create_logger(module) if started is None else started.log
    progress.phase(_PHASE, steps=_STEPS)
    plugins = install_plugins(module, log, job)
    builder = _create_builder(module, log, job) if started is None else started.builder
    facts = job.preparation.facts
    parsed = parse_network(module, builder, log, without_false_names(job.model, facts.inputs))
    _stop_if_cancelled(progress, 0)
    network = parsed.network
    config = configure(module, builder, job)
    if job.request.options.version_compatible:
        _carry_plugins(config, parsed.parser)
    add_profiles(builder, config, network, job.preparation.profiles, log)
    if adjust is not None:
        adjust(config)
    monitor = create_monitor(module, progress, _PHASE)
    config.progress_monitor = monitor
    inputs = describe_tensors(network, facts.inputs, are_inputs=True)
    outputs = describe_tensors(network, facts.outputs, are_inputs=False)
    layers = _count_layers(network)
    notes: list[str] = []
    with timing_cache_in_use(config, timing_cache, log, notes) if timing_cache else nullcontext() as cache:
        begun = time.perf_counter()
        plan = builder.build_serialized_network(network, config)
        builder_seconds = time.perf_counter() - begun
    if monitor.cancelled:
        raise CancelledBuildError("the build was cancelled")
    if plan is None:
        raise _translate_failure(log, job)
    _stop_if_cancelled(progress, 1)
    engine = job.output / ENGINE_FILE
    engine.write_bytes(memoryview(plan))
    progress.step(_PHASE, 2)
    progress.finish(_PHASE)
    return Plan(
        files=(engine, *plugins),
        inputs=inputs,
        outputs=outputs,
        layers=layers,
        builder_seconds=builder_seconds,
        timing_cache=None if cache is None else cache.use,
        notes=tuple(notes),
    )


def install_plugins(module: Any, log: Any, job: BuildJob) -> tuple[Path, ...]:
    """Load the job's plugin libraries, and copy them next to the plan, which does not load without them.

    Raises:
        BuildError: `PluginDiffers` or `PluginRefused`.
    """
    load_plugins(module, log, job.plugins, BuildError, digests=job.request.key_inputs.plugins)
    if not job.plugins:
        return ()
    folder = job.output / PLUGIN_FOLDER
    folder.mkdir()
    return tuple(shutil.copyfile(library, folder / library.name) for library in job.plugins)


def _create_builder(module: Any, log: Any, job: BuildJob) -> Any:
    try:
        return module.Builder(log)
    except (TypeError, RuntimeError) as error:  # pybind raises these if a constructor returns nothing
        raise _translate_failure(log, job) from error


def _carry_plugins(config: Any, parser: Any) -> None:
    """Include TensorRT's own plugins in a version-compatible plan, because a newer runtime has other versions."""
    libraries = parser.get_used_vc_plugin_libraries()
    if libraries:
        config.plugins_to_serialize = libraries


def _stop_if_cancelled(progress: ProgressSink, step: int) -> None:
    if not progress.step(_PHASE, step):
        raise CancelledBuildError("the build was cancelled")


def _count_layers(network: Any) -> dict[str, JsonValue]:
    layers = (network.get_layer(index) for index in range(network.num_layers))
    return dict(sorted(Counter(layer.type.name for layer in layers).items()))


def _translate_failure(log: MessageLog, job: BuildJob) -> BuildError:
    known = translate(log.errors, Translation("BuilderFailed", "check the model and its profiles"))
    kind = BuildOutOfMemoryError if known.reason == "OutOfMemory" else BuildError
    return kind(
        "the builder failed",
        where=job.model.name,
        why="\n".join((*(list_reasons(log.errors) or ["it gave no reason"]), *_occupied(known.reason))),
        remedy=known.remedy,
        reason=known.reason,
    )


def _occupied(reason: str) -> tuple[str, ...]:
    said = describe_occupancy() if reason in {"OutOfMemory", "DeviceBusy"} else ""
    return (said,) if said else ()
