"""A cancel reaches a builder's process that is deep in a library, and one that ends of it was cancelled."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typing_extensions import override

from enginesmith_contract.errors import CancelledBuildError
from enginesmith_runtime.build.child import run_child
from enginesmith_runtime.build.wire import ChildJob
from enginesmith_runtime.progress import SilentReporter

_PROGRAM = """
import ctypes, threading
from enginesmith_runtime.build.worker import cancelled_by_signal

cancelled = cancelled_by_signal()

def tell():
    cancelled.wait()
    print("cancelled", flush=True)
    import os
    os._exit(0)

threading.Thread(target=tell).start()
print("ready", flush=True)
# As a native builder does: minutes in C, in which no handler of Python's runs.
ctypes.CDLL(None).pause()
"""


def test_a_cancel_is_seen_while_the_main_thread_runs_native_code() -> None:
    with subprocess.Popen([sys.executable, "-c", _PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=600)
    assert (said, process.returncode) == ("cancelled\n", 0)


class _StopsWithTheAbort(SilentReporter):
    """Aborts the builder between two looks at whether to continue, and says from then on that it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self._is_cancelled = False

    @override
    def advance(self, fraction: float, detail: str = "") -> None:
        if self._is_cancelled:
            raise CancelledBuildError("the build was cancelled")
        if (fraction, detail) != (0.0, ""):
            return  # the builder's own words, after which it is asked again
        pid = int(Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()[0])
        os.kill(pid, signal.SIGABRT)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self._is_cancelled = True


def test_a_builder_that_aborts_while_it_is_cancelled_is_no_crash(job: ChildJob, work: Path) -> None:
    with pytest.raises(CancelledBuildError):
        run_child(job.request, lambda: job, work, _StopsWithTheAbort())
