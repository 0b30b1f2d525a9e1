"""The child process: `python -m enginesmith_runtime.prepare.worker JOB.json` does one job and reports events.

Standard output is only for events; the output of native libraries goes to standard error. Without a file the process is
the warm process of which jobs are forks; see `warm_start`.
"""

import sys
from pathlib import Path
from typing import Final, assert_never

from pydantic import JsonValue, TypeAdapter

from enginesmith_contract.errors import EnginesmithError
from enginesmith_runtime.child_processes import ChildFailure, die_with_parent, open_event_stream
from enginesmith_runtime.local_files.space import failed_for_room, scratch_full
from enginesmith_runtime.prepare.accuracy.jobs import MeasureJob
from enginesmith_runtime.prepare.jobs import (
    AnyJob,
    BatchJob,
    CastJob,
    Event,
    EventKind,
    InspectJob,
    PreprocessJob,
    ProbeJob,
    RangeJob,
    RehearseJob,
    RoundingJob,
    RunJob,
    SweepJob,
)
from enginesmith_runtime.prepare.quantize.jobs import AutoKeepJob, CalibrateJob, QuantizeJob, SamplesJob
from enginesmith_runtime.prepare.warm_start import wait_for_job
from enginesmith_runtime.prepare.worker_events import Emit

__all__ = ["main"]

# Modules of the jobs that every preparation has.
_WARM: Final = tuple(
    f"enginesmith_runtime.prepare.{module}"
    for module in (
        "fp16.cast",
        "fp16.rehearsal",
        "fp16.sweep",
        "fp16.value_ranges",
        "model_file.check",
        "runs.batch_runs",
        "runs.reference_runs",
    )
)
_Job = AnyJob | AutoKeepJob | CalibrateJob | MeasureJob | QuantizeJob | SamplesJob


def main(path: str) -> int:
    """Do the job in the file at `path`. Return the exit code."""
    die_with_parent()
    emit = _emitter()
    adapter: TypeAdapter[_Job] = TypeAdapter(_Job)
    job = adapter.validate_json(Path(path).read_bytes())
    try:
        _do(job, emit)
    except (EnginesmithError, OSError, RuntimeError) as error:
        _report(error, Path(path).parent, emit)
    return 0


def _report(error: Exception, folder: Path, emit: Emit) -> None:
    said = scratch_full("the preparation") if failed_for_room(error, folder) else error
    if not isinstance(said, EnginesmithError):
        raise said
    emit(EventKind.ERROR, ChildFailure.from_error(said).model_dump(mode="json"))


def _do(job: _Job, emit: Emit) -> None:  # noqa: C901 - one case for each job
    """Do the job, and import only its libraries, because each takes half a second."""
    match job:
        case InspectJob():
            from enginesmith_runtime.prepare.model_file.check import inspect

            inspection = inspect(Path(job.model), Path(job.output), keep=job.keep, preprocess=job.preprocess)
            emit(EventKind.RESULT, inspection.model_dump(mode="json", by_alias=True))
        case RunJob() | ProbeJob():
            from enginesmith_runtime.prepare.runs.reference_runs import probe, run_all

            run_all(job, emit) if isinstance(job, RunJob) else probe(job, emit)
        case PreprocessJob():
            from enginesmith_runtime.prepare.preprocess import verify_preprocess

            verify_preprocess(job)
            emit(EventKind.RESULT, True)
        case BatchJob():
            from enginesmith_runtime.prepare.runs.batch_runs import compare_batches

            compare_batches(job, emit)
        case RangeJob():
            from enginesmith_runtime.prepare.fp16.value_ranges import find_out_of_range
            from enginesmith_runtime.prepare.runs.reference_runs import bound_memory

            bound_memory(job.memory_bytes)
            emit(EventKind.RESULT, dict(find_out_of_range(job)))
        case RehearseJob():
            from enginesmith_runtime.prepare.fp16.rehearsal import rehearse

            emit(EventKind.RESULT, rehearse(job).model_dump(mode="json", by_alias=True))
        case RoundingJob():
            from enginesmith_runtime.prepare.runs.rounding import measure_rounding

            emit(EventKind.RESULT, dict(measure_rounding(job)))
        case SweepJob():
            from enginesmith_runtime.prepare.fp16.sweep import sweep
            from enginesmith_runtime.prepare.runs.reference_runs import bound_memory

            bound_memory(job.memory_bytes)
            emit(EventKind.RESULT, sweep(job).model_dump(mode="json", by_alias=True))
        case CastJob():
            from enginesmith_runtime.prepare.fp16.cast import cast_model

            emit(EventKind.RESULT, cast_model(job).model_dump(mode="json", by_alias=True))
        case AutoKeepJob() | CalibrateJob() | QuantizeJob() | SamplesJob():
            from enginesmith_runtime.prepare.quantize.do_job import do_job

            result = do_job(job, lambda share: emit(EventKind.PROGRESS, share))
            emit(EventKind.RESULT, result.model_dump(mode="json", by_alias=True))
        case MeasureJob():
            from enginesmith_runtime.prepare.accuracy.measure import measure

            emit(EventKind.RESULT, measure(job, emit).model_dump(mode="json", by_alias=True))
        case _:
            assert_never(job)


def _emitter() -> Emit:
    """Return the writer of events."""
    events = open_event_stream()

    def emit(kind: EventKind, data: JsonValue) -> None:
        events.write(Event(kind=kind, data=data).to_json() + b"\n")

    return emit


if __name__ == "__main__":
    die_with_parent()
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else wait_for_job(_WARM)))
