"""The operator as a process of a test: as `python -m enginesmith_operator.controller`, killed at its writes.

    operator_process.py CONFIG NAMESPACE never
    operator_process.py CONFIG NAMESPACE every    killed before its first write, started, killed after it, started, ...

So each write that is left to do is met twice: by an operator that dies when it is about to send it, and by one that
dies when it has succeeded. A write that fails changes nothing and does not count: an event that is there already is
one. All have one identity, since a killed one keeps its Lease for 15 seconds from everybody else.

Each write is a line on stdout: what became of it or of the operator (done, failed, killed-before, killed-after), verb,
kind, name. A start is a line, too.
"""

import asyncio
import os
import signal
import sys
from itertools import count
from pathlib import Path

from typing_extensions import override

from enginesmith_operator.cluster.client import Write, WriteObserver
from enginesmith_operator.controller.process.logs import configure_logging
from enginesmith_operator.controller.process.run import Process, run_operator
from enginesmith_operator.controller.shared.settings import OperatorSettings, load_settings

_IDENTITY = "operator-under-test"


class KillingObserver(WriteObserver):
    """Prints each write, and ends the process before or after the first one.

    Args:
        namespace: of the writes that count; what is left of other tests may want some, too.
        moment: before, after or never.
    """

    def __init__(self, namespace: str, moment: str) -> None:
        self._namespace = namespace
        self._moment = moment

    @override
    def before_write(self, write: Write) -> None:
        if write.namespace == self._namespace and self._moment == "before":
            _die("killed-before", write)

    @override
    def after_write(self, write: Write, *, succeeded: bool) -> None:
        if write.namespace != self._namespace:
            return
        if succeeded and self._moment == "after":
            _die("killed-after", write)
        _say("done" if succeeded else "failed", write)


def _die(moment: str, write: Write) -> None:
    _say(moment, write)
    os.kill(os.getpid(), signal.SIGKILL)


def _say(word: str, write: Write) -> None:
    print(word, write.verb, write.kind, write.name, flush=True)  # noqa: T201 - read by the test


def _run(settings: OperatorSettings, namespace: str, moment: str) -> None:
    process = Process(namespace=namespace, identity=_IDENTITY, observer=KillingObserver(namespace, moment))
    asyncio.run(run_operator(settings, process))


def main(config: str, namespace: str, kills: str) -> None:
    """Run operators, one after another, until one of them ends otherwise than by its own kill."""
    configure_logging(verbose=False)
    settings = load_settings(Path(config))
    for number in count():
        print("start", number, flush=True)  # noqa: T201 - read by the test
        # A child of a process that has imported everything starts in no time.
        child = os.fork()
        if not child:
            _run(settings, namespace, "never" if kills == "never" else ("before", "after")[number % 2])
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            sys.exit(f"the operator ended by itself: {status}")


if __name__ == "__main__":
    main(*sys.argv[1:])
