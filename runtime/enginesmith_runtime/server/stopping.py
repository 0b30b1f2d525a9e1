"""Handles signals in a separate thread. A handler in the main thread could deadlock on a lock that it interrupted.

Signals arrive through Python's wake-up pipe, which works for every thread that the kernel chooses. Blocking signals and
waiting in one thread would fail, because libraries start threads while they are imported.
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
        begun: Set when the process must end.
        hurried: Set when the process must end without waiting.
        failure: Device failure that ends the process; None if a signal ended it.
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
        """Let a signal end the process right after `clean_up`, because no client is served yet; None: reset."""
        self._clean_up = clean_up

    def lose_device(self, error: DeviceFailedError) -> None:
        """End the process because the device has failed. The first error is reported."""
        self.failure = self.failure or error
        self.hurried.set()
        self.begun.set()

    def _listen(self, heard: int) -> None:
        while True:
            number = os.read(heard, 1)[0]
            if number in _SIGNALS:  # ignore SIGCHLD and other signals
                self._stop(signal.Signals(number))

    def _stop(self, number: signal.Signals) -> None:
        if self._clean_up is not None:
            self._clean_up()
            os._exit(ExitCode.OK)
        # With Ctrl-C there is no load balancer that must remove this server first.
        if self.begun.is_set() or number is signal.SIGINT:
            self.hurried.set()
        self.begun.set()


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing. The signal is read from the pipe."""
