"""One engine out of a job: refitted or built, then held against the references. Runs in the child process.

library and device as asked? ──> refit ──> verify ──> done
│ refused, or it answers wrongly
└──> build ──> verify ──> done
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from enginesmith_contract.backend_options import options_in_key
from enginesmith_contract.backend_traits import traits
from enginesmith_contract.backends import Hardware
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import (
    BuildError,
    BuildOutOfMemoryError,
    CancelledBuildError,
    DeviceFailedError,
    EngineRefusedError,
    InferenceError,
)
from enginesmith_contract.manifest import Manifest, Timings
from enginesmith_contract.store_layout import StoredFile
from enginesmith_contract.text import one_line, shorten
from enginesmith_contract.verification import Verification, VerificationStatus
from enginesmith_runtime.build.device_check import check_device
from enginesmith_runtime.build.kept_layers import with_shortfall
from enginesmith_runtime.build.manifests import compose_manifest
from enginesmith_runtime.build.metric_files import MetricSamples
from enginesmith_runtime.build.phases import PhaseProgress
from enginesmith_runtime.build.timing_caches import FolderTimingCache
from enginesmith_runtime.build.toolchain_check import check_toolchain
from enginesmith_runtime.build.verify import Measurement, judge_measurement, measure, not_run
from enginesmith_runtime.build.wire import ChildJob, ChildResult
from enginesmith_runtime.engines.device import detect_devices, driver_problem, host_hardware
from enginesmith_runtime.engines.interface import Builder, BuildJob, BuiltEngine, Engine, ProgressSink
from enginesmith_runtime.engines.refitting import RefitBase, RefittingBuilder
from enginesmith_runtime.engines.registry import builder, loader
from enginesmith_runtime.progress import Reporter

__all__ = ["make_engine"]

_UNHASHED = "0" * 64
_OUT_OF_MEMORY = "OutOfMemory"
_LONGEST_NOTE = 500


def make_engine(
    job: ChildJob, reporter: Reporter, is_cancelled: Callable[[], bool], build_with: Builder | None = None
) -> ChildResult:
    """Refit an engine where there is one to refit, else build; a refit that fails in any way is no more than a note.

    Args:
        job: what to make.
        reporter: gets the stages `refit`, `build` and `verify`.
        is_cancelled: asked between two steps.
        build_with: of the request's backend, started already; None: a new one.

    Raises:
        BuildError: the wrong library or device, or the builder refused or failed.
        BuildOutOfMemoryError: the builder, or the finished engine, does not fit the memory.
        CancelledBuildError: `is_cancelled` said so.
    """
    request = job.request
    build_with = build_with or builder(request.toolchain.backend)
    check_toolchain(build_with, request.toolchain)
    device = _find_device(build_with, request)
    work = _Work(job, build_with, device, reporter, is_cancelled)
    if job.stored is not None:
        return work.run_again(job.stored)
    if job.refit_base is None or not isinstance(build_with, RefittingBuilder):
        return work.build()
    base = RefitBase(manifest=job.refit_base, plan=Path(job.refit_plan))
    try:
        refitted = work.refit(build_with, base)
    except BuildError as error:
        reporter.end(refitted=False)
        why = error.sentence()
    else:
        if refitted.verification.status is not VerificationStatus.FAILED:
            return refitted
        why = f"its answers differ from the model's: {refitted.verification.reason}"
    shutil.rmtree(job.output)
    Path(job.output).mkdir()
    # A note is part of the manifest, which every server reads.
    said = shorten(one_line(why), _LONGEST_NOTE)
    return work.build(f"built again, because engine {base.manifest.engine_key[:12]} could not be refitted: {said}")


@dataclass(frozen=True)
class _Work:
    """One engine to make, by either way."""

    job: ChildJob
    builder: Builder
    device: Hardware
    reporter: Reporter
    is_cancelled: Callable[[], bool]

    def build(self, *notes: str) -> ChildResult:
        """Build and verify."""
        toolchain = self.job.request.toolchain
        self.reporter.begin("build", f"{toolchain.backend} {toolchain.version}")
        return self._finish(self.builder.build, notes)

    def refit(self, refitter: RefittingBuilder, base: RefitBase) -> ChildResult:
        """Refit and verify."""
        key = base.manifest.engine_key
        self.reporter.begin("refit", f"engine {key[:12]}")
        result = self._finish(lambda job, progress: refitter.refit(job, base, progress), ())
        return result.model_copy(update={"refitted_from": key})

    def run_again(self, stored: Manifest) -> ChildResult:
        """Verify an engine that the store has."""
        self.reporter.begin("verify")
        verification, _ = _verify(self.job, stored, self.builder, self.reporter)
        self.reporter.end(status=verification.status.value)
        return ChildResult(
            files=tuple(one.path for one in stored.files),
            inputs=stored.inputs,
            outputs=stored.outputs,
            runs_on=stored.runs_on,
            inspector=stored.inspector,
            hardware=stored.hardware,
            verification=verification,
            timings=stored.timings,
        )

    def _finish(self, make: Callable[[BuildJob, ProgressSink], BuiltEngine], notes: tuple[str, ...]) -> ChildResult:
        begin = time.perf_counter()
        built = make(_build_job(self.job, self.device), PhaseProgress(self.reporter, self.is_cancelled))
        build_seconds = time.perf_counter() - begin
        cache = {} if built.timing_cache is None else {"cache": built.timing_cache.text()}
        self.reporter.end(bytes=sum(path.stat().st_size for path in built.files), **cache)
        if self.is_cancelled():
            raise CancelledBuildError("the build was cancelled")
        draft = _draft_result(self.job, built, self.device, build_seconds)
        self.reporter.begin("verify")
        begin = time.perf_counter()
        verification, measurement = _verify(self.job, _local_manifest(self.job, draft), self.builder, self.reporter)
        timings = Timings(
            build_seconds=build_seconds,
            builder_seconds=built.builder_seconds,
            timing_cache=built.timing_cache,
            verify_seconds=time.perf_counter() - begin,
            latency_seconds=measurement.latency_seconds if measurement else {},
        )
        self.reporter.end(status=verification.status.value)
        all_notes = (*notes, *built.notes)
        return draft.model_copy(update={"verification": verification, "timings": timings, "notes": all_notes})


def _build_job(job: ChildJob, device: Hardware) -> BuildJob:
    return BuildJob(
        request=job.request,
        preparation=job.preparation,
        model=Path(job.model),
        output=Path(job.output),
        device=device,
        plugins=tuple(map(Path, job.plugins)),
        timing_cache=FolderTimingCache(Path(job.timings)) if job.timings else None,
    )


def _find_device(build_with: Builder, request: BuildRequest) -> Hardware:
    """Return the device to build on; of several GPUs the first, as CUDA does."""
    if not traits(build_with.backend).runs_on_gpu:
        return host_hardware()
    devices = detect_devices()
    if not devices and not build_with.needs_device:
        return host_hardware()
    if not devices:
        raise BuildError(
            "no GPU was found",
            where=f"backend {build_with.backend}",
            why=f"{driver_problem()}, and this backend builds on the GPU itself",
            remedy="see that the node has an NVIDIA driver (nvidia-smi there), and that NVIDIA's device plugin gives "
            "pods the driver's libraries with the device (its container toolkit or CDI), or build with tensorrt-rtx, "
            "which needs no GPU",
            reason="NoDevice",
        )
    device = devices[0]
    if build_with.needs_device:
        check_device(device, request)
    return device


def _draft_result(job: ChildJob, built: BuiltEngine, device: Hardware, build_seconds: float) -> ChildResult:
    request = job.request
    return ChildResult(
        files=tuple(str(path.relative_to(job.output)) for path in built.files),
        inputs=built.inputs,
        outputs=built.outputs,
        runs_on=built.runs_on,
        device_memory_bytes=built.device_memory_bytes,
        inspector=built.inspector,
        hardware=device,
        verification=not_run(request.verification, job.preparation.arithmetic, "the build has not verified it yet"),
        timings=Timings(build_seconds=build_seconds),
    )


def _verify(
    job: ChildJob, manifest: Manifest, build_with: Builder, reporter: Reporter
) -> tuple[Verification, Measurement | None]:
    policy, arithmetic = job.request.verification, job.preparation.arithmetic
    references, first_fall = job.preparation.references, job.preparation.first_fall_for(build_with.backend)
    shortfall = job.preparation.shortfall_for(build_with.backend)

    def not_run_yet(reason: str) -> Verification:
        verdict = not_run(policy, arithmetic, reason, references)
        return with_shortfall(verdict.model_copy(update={"first_fall": first_fall}), shortfall)

    if not references:
        return not_run_yet("the preparation kept no references"), None
    try:
        engine = loader(build_with.backend).load(
            manifest, Path(job.output), options_in_key(job.request.key_inputs.flags)
        )
    except DeviceFailedError:
        raise
    except EngineRefusedError as error:
        if build_with.needs_device or not traits(build_with.backend).runs_on_gpu:
            kind = BuildOutOfMemoryError if error.reason == _OUT_OF_MEMORY else BuildError
            raise kind(
                "the engine that was just built does not load",
                where=error.where,
                why=error.why or error.what,
                remedy=error.remedy,
                reason=error.reason,
            ) from error
        return not_run_yet(str(error)), None
    try:
        measurement = _measure(engine, job, reporter)
    finally:
        engine.close()
    return judge_measurement(measurement, policy, arithmetic, first_fall, shortfall), measurement


def _measure(engine: Engine, job: ChildJob, reporter: Reporter) -> Measurement:
    references = job.preparation.references
    metric = MetricSamples(Path(job.metric), references) if job.metric else None
    try:
        return measure(engine, references, Path(job.references), reporter, job.request.verification, metric)
    except DeviceFailedError:
        raise
    except (InferenceError, EngineRefusedError) as error:
        kind = BuildOutOfMemoryError if error.reason == _OUT_OF_MEMORY else BuildError
        raise kind(
            "the engine does not run on the reference inputs",
            where=error.where,
            why=f"{error.what}: {error.why}" if error.why else error.what,
            remedy=error.remedy,
            reason=error.reason,
        ) from error


def _local_manifest(job: ChildJob, draft: ChildResult) -> Manifest:
    """Return the manifest as a loader needs it; the store computes the real digests, and nothing checks these."""
    files = tuple(
        StoredFile(path=path, digest=_UNHASHED, size_bytes=(Path(job.output) / path).stat().st_size)
        for path in draft.files
    )
    return compose_manifest(job.request, job.preparation, draft, files, created_at="")
