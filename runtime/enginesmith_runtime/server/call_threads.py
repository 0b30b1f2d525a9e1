"""Thread pools, one for each kind of call, with a limit on the number of calls.

Each kind has its own threads, so that long calls (open streams, watchers, requests that wait for an instance) never
block a call that is answered at once, such as a health check of a busy server.
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
        threads: Number of threads, which are started when they are needed.
        most: Limit of calls that run or wait for a thread; None for the number of threads.

    Attributes:
        refusal: Error message for a call that arrives when the pool is full.
    """

    def __init__(self, threads: int, *, name: str, refusal: str, most: int | None = None) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self.refusal = refusal
        self._most = threads if most is None else most
        self._calls = 0
        self._lock = threading.Lock()

    @property
    def full(self) -> bool:
        """Whether the number of calls has reached the limit."""
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
