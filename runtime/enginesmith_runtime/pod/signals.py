"""Translates SIGINT and SIGTERM to an error, so that children are stopped and scratch folders are removed."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from enginesmith_contract.errors import CancelledBuildError

__all__ = ["signals_cancel"]


@contextmanager
def signals_cancel() -> Iterator[None]:
    """Raise CancelledBuildError in the main thread if either signal arrives. Call it only in the main thread."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, _cancel) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _cancel(number: int, _frame: FrameType | None) -> NoReturn:
    # A second signal must not interrupt the cleanup after the first.
    signal.signal(number, signal.SIG_IGN)
    raise CancelledBuildError("the work was stopped", why=signal.Signals(number).name)
