"""A candidate as a process: prints when it leads and when it lost, and releases the Lease on SIGTERM."""

import os
import signal
import sys
import threading

from enginesmith_operator.cluster.connection import connect
from enginesmith_operator.cluster.transport import Transport
from enginesmith_operator.controller.process.leader import Elector


async def _open() -> Transport:
    return Transport(await connect())


def _say(word: str) -> None:
    print(word, flush=True)  # noqa: T201 - the test reads it


def _lost() -> None:
    _say("lost")
    os._exit(1)


def main(namespace: str, identity: str) -> None:
    """Compete until SIGTERM."""
    stopped = threading.Event()
    elector = Elector(
        open_transport=_open,
        namespace=namespace,
        name="test",
        identity=identity,
        on_lead=lambda: _say("leads"),
        on_lost=_lost,
    )
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    elector.start()
    _say("started")
    while not stopped.wait(0.2):
        pass
    elector.stop()
    _say("released")


if __name__ == "__main__":
    main(*sys.argv[1:])
