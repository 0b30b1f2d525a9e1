"""The process that touches a native builder: it may abort, hang or be killed, and only the build is lost.

Started by `child` as `python -m enginesmith_runtime.build.worker <job file> <backend>`, before the job is there:
what the backend's library does when it starts needs no job.
"""

import os
import shutil
import signal
import sys
import threading
from pathlib import Path

from enginesmith_contract.backends import Backend
from enginesmith_contract.errors import BuildOutOfMemoryError, CancelledBuildError, EnginesmithError
from enginesmith_runtime.build.make_engine import make_engine
from enginesmith_runtime.build.wire import ChildAnswer, ChildJob, PipeReporter
from enginesmith_runtime.child_processes import ChildFailure, die_with_parent, open_event_stream
from enginesmith_runtime.engines.early_start import EarlyBuilder
from enginesmith_runtime.engines.registry import builder
from enginesmith_runtime.local_files.space import failed_for_room, scratch_full

__all__ = ["cancelled_by_signal", "main"]

_SIGNALS = 64
_WAIT_SECONDS = 0.01


def main(job_file: str, backend: str) -> int:
    """Build and verify; the answer goes to the job's answer file. Returns 0 where there is an answer.

    Args:
        job_file: appears, whole, when all that it names is on the local disk.
        backend: whose library to start meanwhile; empty: none.
    """
    die_with_parent()
    reporter = PipeReporter(open_event_stream())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cancelled = cancelled_by_signal()
    build_with = builder(Backend(backend)) if backend else None
    if isinstance(build_with, EarlyBuilder):
        build_with.start()
    while not Path(job_file).exists():
        if cancelled.wait(_WAIT_SECONDS):
            return 1
    job = ChildJob.from_json(Path(job_file).read_bytes())
    try:
        answer = ChildAnswer(result=make_engine(job, reporter, cancelled.is_set, build_with))
    except (EnginesmithError, MemoryError, OSError, RuntimeError) as error:
        answer = ChildAnswer(failure=ChildFailure.from_error(_failure(error, job)))
    Path(job.answer).write_bytes(answer.to_json())
    return 0


def _failure(error: Exception, job: ChildJob) -> EnginesmithError:
    """Return what to say of an error; raise an error again that is none of Enginesmith's."""
    if isinstance(error, CancelledBuildError):
        return error
    if failed_for_room(error, Path(job.output)):
        # Half an engine; without it there is room for the answer.
        shutil.rmtree(job.output, ignore_errors=True)
        return scratch_full("the builder")
    if isinstance(error, EnginesmithError):
        return error
    if isinstance(error, MemoryError):
        return BuildOutOfMemoryError(
            "the builder could not have the memory that it asked for", remedy="give the build more memory"
        )
    raise error


def cancelled_by_signal() -> threading.Event:
    """Return an event that SIGTERM sets, whatever the main thread is doing; to be called in the main thread.

    Python runs a handler between two steps of the main thread, and that one is in the library for minutes. What runs at
    once, in whichever thread the kernel chose, is Python's own C handler, and it writes to the wake-up descriptor.
    """
    cancelled = threading.Event()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)

    def wait() -> None:
        while signal.SIGTERM not in os.read(reading, _SIGNALS):
            pass
        cancelled.set()

    threading.Thread(target=wait, daemon=True, name="cancel").start()
    return cancelled


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
