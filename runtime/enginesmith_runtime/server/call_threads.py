"""The threads of one kind of calls, with a bound on how many of them there are at once.

A kind has threads of its own, so that calls which stay (open streams, watchers, requests that wait for an instance)
never keep a call out that is answered at once. Health is asked when a server is busiest.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from typing_extensions import override

__all__ = ["CallThreads"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class CallThreads(ThreadPoolExecutor):
    """A pool for the calls of one kind.

    Args:
        threads: of the pool, started as they are needed.
        most: calls that run or wait for a thread; None: as many as there are threads.

    Attributes:
        refusal: the message that a call gets if it comes when the pool is full.
    """

    def __init__(self, threads: int, *, name: str, refusal: str, most: int | None = None) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self.refusal = refusal
        self._most = threads if most is None else most
        self._calls = 0
        self._lock = threading.Lock()

    @property
    def full(self) -> bool:
        """Whether there are as many calls as there may be."""
        return self._calls >= self._most

    @override
    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> "Future[_T]":
        with self._lock:
            self._calls += 1
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(self._end)
        return future

    def _end(self, _future: "Future[Any]") -> None:
        with self._lock:
            self._calls -= 1
