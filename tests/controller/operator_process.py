"""The operator as a process of a test: as `python -m enginesmith_operator.controller`, with an end that can be chosen.

    operator_process.py CONFIG NAMESPACE IDENTITY [before:N | after:N]

`after:N` kills the process with SIGKILL when its Nth write has succeeded, `before:N` when N - 1 have and another one is
about to be sent. A write that fails changes nothing and does not count: an event that is there already is one.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from typing_extensions import override

from enginesmith_operator.cluster.client import Write, WriteObserver
from enginesmith_operator.controller.logs import configure_logging
from enginesmith_operator.controller.run import Process, run_operator
from enginesmith_operator.controller.settings import load_settings


class KillingObserver(WriteObserver):
    """Prints each write, and ends the process at one of them."""

    def __init__(self, moment: str, number: int) -> None:
        self._moment = moment
        self._number = number
        self._succeeded = 0

    @override
    def before_write(self, write: Write) -> None:
        self._reach("before", self._succeeded + 1)

    @override
    def after_write(self, write: Write, *, succeeded: bool) -> None:
        print(f"{write.verb} {write.kind} {write.name} {succeeded}", flush=True)  # noqa: T201 - for a failed test
        self._succeeded += succeeded
        self._reach("after", self._succeeded)

    def _reach(self, moment: str, number: int) -> None:
        if (moment, number) == (self._moment, self._number):
            os.kill(os.getpid(), signal.SIGKILL)


def main(config: str, namespace: str, identity: str, fault: str = "never:0") -> None:
    """Run the operator until it is told to stop, or kills itself."""
    moment, _, number = fault.partition(":")
    configure_logging(verbose=False)
    observer = KillingObserver(moment, int(number))
    process = Process(namespace=namespace, identity=identity, observer=observer)
    asyncio.run(run_operator(load_settings(Path(config)), process))


if __name__ == "__main__":
    main(*sys.argv[1:])
