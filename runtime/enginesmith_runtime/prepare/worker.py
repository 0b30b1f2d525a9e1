"""The child's side: `python -m enginesmith_runtime.prepare.worker JOB.json` does one job and answers with events.

Standard output belongs to the events alone: native libraries that print are sent to standard error.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import assert_never

from pydantic import JsonValue, TypeAdapter

from enginesmith_contract.errors import EnginesmithError
from enginesmith_runtime.local_files.space import failed_for_room, scratch_full
from enginesmith_runtime.prepare.jobs import (
    AnyJob,
    BatchJob,
    CastJob,
    Event,
    EventKind,
    InspectJob,
    ProbeJob,
    RangeJob,
    RehearseJob,
    RunJob,
)
from enginesmith_runtime.prepare.worker_events import Emit

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main(path: str) -> int:
    """Do the job that the file at `path` describes; returns the exit code."""
    _die_with_parent()
    emit = _emitter()
    adapter: TypeAdapter[AnyJob] = TypeAdapter(AnyJob)
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
    parts = ("what", "where", "why", "remedy", "reason", "retry")
    words: dict[str, JsonValue] = {part: str(getattr(said, part)) for part in parts}
    emit(EventKind.ERROR, {"class": type(said).__name__, **words})


def _do(job: AnyJob, emit: Emit) -> None:
    """Import the libraries of this job alone: each costs half a second."""
    match job:
        case InspectJob():
            from enginesmith_runtime.prepare.check import inspect

            inspection = inspect(Path(job.model), Path(job.output), keep=job.keep)
            emit(EventKind.RESULT, inspection.model_dump(mode="json", by_alias=True))
        case RunJob():
            from enginesmith_runtime.prepare.reference_runs import run_all

            run_all(job, emit)
        case ProbeJob():
            from enginesmith_runtime.prepare.reference_runs import probe

            probe(job, emit)
        case BatchJob():
            from enginesmith_runtime.prepare.batch_runs import compare_batches

            compare_batches(job, emit)
        case RangeJob():
            from enginesmith_runtime.prepare.value_ranges import find_out_of_range

            emit(EventKind.RESULT, dict(find_out_of_range(job)))
        case RehearseJob():
            from enginesmith_runtime.prepare.rehearsal import rehearse

            emit(EventKind.RESULT, rehearse(job).model_dump(mode="json", by_alias=True))
        case CastJob():
            from enginesmith_runtime.prepare.cast import cast_model

            emit(EventKind.RESULT, cast_model(job).model_dump(mode="json", by_alias=True))
        case _:
            assert_never(job)


def _emitter() -> Emit:
    """Return the writer of events, and send everything else that prints to standard error."""
    events = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def emit(kind: EventKind, data: JsonValue) -> None:
        events.write(Event(kind=kind, data=data).to_json() + b"\n")

    return emit


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, so that no orphan holds gigabytes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
