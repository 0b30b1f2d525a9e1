"""Ctrl-C and SIGTERM: both unwind the command as KeyboardInterrupt, so that every `finally` runs.

Python delivers a signal between two of its own instructions, and a native library may hold the main thread for many
seconds. So a thread of our own hears the signal too; where the command has not ended by itself within the grace, it
removes the scratch folders and ends the process. Both are of the whole process, as signals are: hence the module's
two variables.
"""

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

__all__ = ["Stop", "removed_at_the_latest", "stop_signals_raise"]

_GRACE_SECONDS: Final = 0.5
# SIGHUP: the terminal was closed.
_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHELL_SIGNAL_BASE: Final = 128
_scratch_folders: Final[set[Path]] = set()


class Stop:
    """Which signal stopped the command."""

    def __init__(self) -> None:
        self.signal = signal.SIGINT

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells expect."""
        return _SHELL_SIGNAL_BASE + self.signal

    def interrupt(self, number: int, _frame: FrameType | None) -> NoReturn:
        """Handle the signal: unwind the main thread."""
        self.signal = signal.Signals(number)
        raise KeyboardInterrupt


@contextmanager
def removed_at_the_latest(folder: Path) -> Iterator[Path]:
    """Remove `folder` at the end of the context, or before a forced end of the process."""
    _scratch_folders.add(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _scratch_folders.discard(folder)


@contextmanager
def stop_signals_raise() -> Iterator[Stop]:
    """Turn stopping signals into KeyboardInterrupt, and into the process's end where that cannot be delivered."""
    if threading.current_thread() is not threading.main_thread():
        yield Stop()
        return
    stop = Stop()
    heard, hears = os.pipe()
    os.set_blocking(hears, False)
    previous_wakeup = signal.set_wakeup_fd(hears, warn_on_full_buffer=False)
    previous = {number: signal.signal(number, stop.interrupt) for number in _STOPPING}
    ended = threading.Event()
    threading.Thread(target=_watch, args=(heard, ended), name="stop-watch", daemon=True).start()
    try:
        yield stop
    finally:
        ended.set()
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_wakeup)
        # The watching thread reads the end of the pipe, and ends.
        os.close(hears)


def _watch(heard: int, ended: threading.Event) -> None:
    try:
        number = _stopping_signal(heard)
        if number is None or ended.wait(_GRACE_SECONDS):
            return
        for folder in tuple(_scratch_folders):
            shutil.rmtree(folder, ignore_errors=True)
        sys.stderr.write("\nenginesmith: stopped\n")
        sys.stderr.flush()
        os._exit(_SHELL_SIGNAL_BASE + number)
    finally:
        os.close(heard)


def _stopping_signal(heard: int) -> int | None:
    """Return the first stopping signal's number, None when the pipe ends; other signals (SIGCHLD) pass by."""
    while data := os.read(heard, 1):
        if data[0] in _STOPPING:
            return data[0]
    return None
