"""The process that touches a native builder: it may abort, hang or be killed, and only the build is lost.

Started by `child_process` as `python -m enginesmith_runtime.build.child <job file> <progress descriptor>`.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from enginesmith_contract.backends import Backend, Hardware
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import (
    BuildError,
    BuildOutOfMemoryError,
    CancelledBuildError,
    EngineRefusedError,
    EnginesmithError,
    InferenceError,
)
from enginesmith_contract.manifest import Manifest, Timings
from enginesmith_contract.preparation import ReferenceSet
from enginesmith_contract.store_layout import StoredFile
from enginesmith_contract.verification import Verification
from enginesmith_runtime.build.manifests import compose_manifest
from enginesmith_runtime.build.phases import PhaseProgress
from enginesmith_runtime.build.verify import Measurement, judge_differences, measure, not_run
from enginesmith_runtime.build.wire import ChildAnswer, ChildFailure, ChildJob, ChildResult, PipeReporter
from enginesmith_runtime.engines.device import detect_devices, host_hardware
from enginesmith_runtime.engines.interface import Builder, BuildJob, BuiltEngine, Engine
from enginesmith_runtime.engines.registry import builder, loader

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_UNHASHED = "0" * 64


def main(job_file: str, descriptor: int) -> int:
    """Build and verify; the answer goes to the job's answer file. Returns 0 where there is an answer."""
    job = ChildJob.from_json(Path(job_file).read_bytes())
    _die_with_parent(job.parent)
    cancelled = threading.Event()

    def cancel(_number: int, _frame: FrameType | None) -> None:
        cancelled.set()

    signal.signal(signal.SIGTERM, cancel)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        answer = ChildAnswer(result=_build(job, PipeReporter(descriptor), cancelled))
    except EnginesmithError as error:
        answer = ChildAnswer(failure=ChildFailure.from_error(error))
    except MemoryError:
        starved = BuildOutOfMemoryError(
            "the builder could not have the memory that it asked for", remedy="give the build more memory"
        )
        answer = ChildAnswer(failure=ChildFailure.from_error(starved))
    Path(job.answer).write_bytes(answer.to_json())
    return 0


def _build(job: ChildJob, reporter: PipeReporter, cancelled: threading.Event) -> ChildResult:
    request = job.request
    backend = request.toolchain.backend
    build_with = builder(backend)
    _check_version(build_with, request)
    device = _find_device(build_with, request)
    reporter.begin("build", f"{backend} {request.toolchain.version}")
    begin = time.perf_counter()
    built = build_with.build(
        BuildJob(
            request=request,
            preparation=job.preparation,
            model=Path(job.model),
            output=Path(job.output),
            device=device,
            timing_cache=Path(job.timing_cache).read_bytes() if job.timing_cache else None,
        ),
        PhaseProgress(reporter, cancelled.is_set),
    )
    build_seconds = time.perf_counter() - begin
    reporter.end(bytes=sum(path.stat().st_size for path in built.files))
    if cancelled.is_set():
        raise CancelledBuildError("the build was cancelled")
    if built.timing_cache is not None:
        Path(job.merged_timing_cache).write_bytes(built.timing_cache)
    draft = _draft_result(job, built, device, build_seconds)
    reporter.begin("verify")
    begin = time.perf_counter()
    verification, measurement = _verify(job, draft, build_with, reporter)
    timings = Timings(
        build_seconds=build_seconds,
        verify_seconds=time.perf_counter() - begin,
        latency_seconds=measurement.latency_seconds if measurement else {},
    )
    reporter.end(status=verification.status.value)
    return draft.model_copy(update={"verification": verification, "timings": timings})


def _check_version(build_with: Builder, request: BuildRequest) -> None:
    installed = build_with.version()
    if installed == request.toolchain.version:
        return
    raise BuildError(
        "the installed library is not the one that the request names",
        where=f"toolchain {request.toolchain.name}",
        why=f"{build_with.backend} {installed} is installed, {request.toolchain.version} was asked for",
        remedy="build in the image of that toolchain, or ask for the installed version",
        reason="ToolchainDiffers",
    )


def _find_device(build_with: Builder, request: BuildRequest) -> Hardware:
    """Return the device to build on; of several GPUs the first, as CUDA does."""
    if build_with.backend is Backend.ONNXRUNTIME:
        return host_hardware()
    devices = detect_devices()
    if not devices and not build_with.needs_device:
        return host_hardware()
    if not devices:
        raise BuildError(
            "no GPU was found",
            where=f"backend {build_with.backend}",
            why="the NVIDIA driver is not installed or does not answer, and this backend builds on the GPU itself",
            remedy="build on a node with the GPU, or use the backend tensorrt-rtx, which builds on any CPU",
            reason="NoDevice",
        )
    device, wanted = devices[0], request.hardware
    fits = wanted.product in {None, device.product} and wanted.mig_profile == device.mig_profile
    if build_with.needs_device and not fits:
        raise BuildError(
            "this is not the GPU that the engine is for",
            where=f"device {device.product}",
            why=f"the request names {wanted.product} (MIG profile {wanted.mig_profile or 'none'}), this is "
            f"{device.product} (MIG profile {device.mig_profile or 'none'})",
            remedy="run the build on a node with that GPU",
            reason="WrongDevice",
        )
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
        verification=not_run(request.verification, job.preparation.precision, "the build has not verified it yet"),
        timings=Timings(build_seconds=build_seconds),
    )


def _verify(
    job: ChildJob, draft: ChildResult, build_with: Builder, reporter: PipeReporter
) -> tuple[Verification, Measurement | None]:
    policy, precision = job.request.verification, job.preparation.precision
    if not job.preparation.references:
        return not_run(policy, precision, "the preparation kept no references"), None
    manifest = _local_manifest(job, draft)
    try:
        engine = loader(build_with.backend).load(manifest, Path(job.output), {})
    except EngineRefusedError as error:
        if build_with.needs_device or build_with.backend is Backend.ONNXRUNTIME:
            raise BuildError(
                "the engine that was just built does not load",
                where=error.where,
                why=error.why or error.what,
                remedy=error.remedy,
                reason=error.reason,
            ) from error
        return not_run(policy, precision, str(error)), None
    try:
        measurement = _measure(engine, job.preparation.references, Path(job.references), reporter)
    finally:
        engine.close()
    return judge_differences(measurement.differences, policy, precision), measurement


def _measure(engine: Engine, references: tuple[ReferenceSet, ...], folder: Path, reporter: PipeReporter) -> Measurement:
    try:
        return measure(engine, references, folder, reporter)
    except InferenceError as error:
        kind = BuildOutOfMemoryError if error.reason == "OutOfMemory" else BuildError
        raise kind(
            "the engine does not run on the reference inputs", why=error.why, remedy=error.remedy, reason=error.reason
        ) from error


def _local_manifest(job: ChildJob, draft: ChildResult) -> Manifest:
    """Return the manifest as a loader needs it; the digests are the store's to compute, and nobody checks these."""
    files = tuple(
        StoredFile(path=path, digest=_UNHASHED, size_bytes=(Path(job.output) / path).stat().st_size)
        for path in draft.files
    )
    return compose_manifest(job.request, job.preparation, draft, files, created_at="")


def _die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process when its parent dies, so that no orphan holds a GPU."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the call.
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
