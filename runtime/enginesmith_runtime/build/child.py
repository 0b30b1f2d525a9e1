"""The process that touches a native builder: it may abort, hang or be killed, and only the build is lost.

Started by `child_process` as `python -m enginesmith_runtime.build.child <job file> <progress descriptor>`.
"""

import ctypes
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

from enginesmith_contract.errors import BuildOutOfMemoryError, CancelledBuildError, EnginesmithError
from enginesmith_runtime.build.make_engine import make_engine
from enginesmith_runtime.build.wire import ChildAnswer, ChildFailure, ChildJob, PipeReporter
from enginesmith_runtime.local_files.space import failed_for_room, scratch_full

__all__ = ["cancelled_by_signal", "main"]

_PR_SET_PDEATHSIG = 1
_SIGNALS = 64


def main(job_file: str, descriptor: int) -> int:
    """Build and verify; the answer goes to the job's answer file. Returns 0 where there is an answer."""
    job = ChildJob.from_json(Path(job_file).read_bytes())
    _die_with_parent(job.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cancelled = cancelled_by_signal()
    try:
        answer = ChildAnswer(result=make_engine(job, PipeReporter(descriptor), cancelled.is_set))
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
