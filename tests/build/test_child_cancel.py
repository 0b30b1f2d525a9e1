"""SIGTERM reaches a builder's process while its main thread is deep in a library."""

import signal
import subprocess
import sys

_PROGRAM = """
import ctypes, threading
from enginesmith_runtime.build.child import cancelled_by_signal

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
        said, _ = process.communicate(timeout=30)
    assert (said, process.returncode) == ("cancelled\n", 0)
