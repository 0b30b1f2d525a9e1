"""Signals, heard by a thread of their own: a handler in the main thread could meet the lock that it interrupted.

They come through Python's wake-up pipe, which is written whichever thread the kernel picks; blocking them and waiting
in one thread would not do, for libraries start threads of their own while they are imported.
"""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final

from enginesmith_contract.errors import DeviceFailedError
from enginesmith_contract.exit_codes import ExitCode

__all__ = ["Stopping"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Stopping:
    """Why and how fast the process ends. Create it in the main thread, once.

    Attributes:
        begun: the process shall end.
        hurried: without waiting for anything.
        failure: what the process dies of; None where it was asked to stop.
    """

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.hurried = threading.Event()
        self.failure: DeviceFailedError | None = None
        self._clean_up: Callable[[], None] | None = None
        heard, hears = os.pipe()
        os.set_blocking(hears, False)
        signal.set_wakeup_fd(hears, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, _ignore)
        # The command that became this process blocked the signals until a handler was installed.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        threading.Thread(target=self._listen, args=(heard,), name="signals", daemon=True).start()

    def end_at_once_after(self, clean_up: Callable[[], None] | None) -> None:
        """While this is set, a signal ends the process right after `clean_up`: no client is served yet."""
        self._clean_up = clean_up

    def lose_device(self, error: DeviceFailedError) -> None:
        """End because the device is broken: nothing that runs will succeed. The first error is the one to report."""
        self.failure = self.failure or error
        self.hurried.set()
        self.begun.set()

    def _listen(self, heard: int) -> None:
        while True:
            number = os.read(heard, 1)[0]
            if number in _SIGNALS:  # SIGCHLD and others pass by
                self._stop(signal.Signals(number))

    def _stop(self, number: signal.Signals) -> None:
        if self._clean_up is not None:
            self._clean_up()
            os._exit(ExitCode.OK)
        # On Ctrl-C nothing removes this server from a load balancer first.
        if self.begun.is_set() or number is signal.SIGINT:
            self.hurried.set()
        self.begun.set()


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Let the signal interrupt nothing; the pipe has it."""
