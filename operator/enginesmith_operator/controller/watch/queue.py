"""A queue of keys: each key is queued and processed at most once at a time, and delayed keys wait until they are due.

`KeyedQueue` does the bookkeeping and gets the time from its caller; with `WorkQueue` workers wait for keys. A key that
is added while it is in work runs once more afterwards, so no change is missed and no two passes over one object
overlap.
"""

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

__all__ = ["FIRST_RETRY_SECONDS", "LONGEST_RETRY_SECONDS", "KeyedQueue", "WorkQueue"]

Key = TypeVar("Key", bound=Hashable)

FIRST_RETRY_SECONDS: Final = 0.5
LONGEST_RETRY_SECONDS: Final = 300.0
_DOUBLINGS: Final = 16
_JITTER: Final = 0.2


class KeyedQueue(Generic[Key]):
    """The state of the queue; every time is a number of seconds on one clock."""

    def __init__(self, *, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._ready: deque[Key] = deque()
        self._unhurried: deque[Key] = deque()
        self._waiting: dict[Key, float] = {}
        self._hurried: set[Key] = set()
        self._in_work: set[Key] = set()
        self._dirty: set[Key] = set()
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._pushes = 0
        self._failures: dict[Key, int] = {}

    def __len__(self) -> int:
        """Return how many keys are ready for a worker now."""
        return len(self._waiting)

    @property
    def delayed(self) -> int:
        """Number of keys that are scheduled for later."""
        return len(self._due)

    def add(self, key: Key, now: float, *, hurry: bool = True) -> None:
        """Put a key in, unless it is there; one in work runs again. Without `hurry` all others go first."""
        if key in self._in_work:
            self._dirty.add(key)
            return
        if key in self._waiting and (key in self._hurried or not hurry):
            return
        self._waiting.setdefault(key, now)
        if not hurry:
            self._unhurried.append(key)
            return
        # Its place among the unhurried, if it had one, stays behind as a leftover that `pop` skips.
        self._hurried.add(key)
        self._ready.append(key)

    def add_later(self, key: Key, due: float) -> None:
        """Put a key in at `due`; of two times the earlier one holds."""
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            self._pushes += 1
            heapq.heappush(self._heap, (due, self._pushes, key))

    def next_due(self) -> float | None:
        """Return when the next late key is due, None where there is none."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self, now: float) -> tuple[Key, float] | None:
        """Take a key into work, with the seconds that it has waited; None where nothing is to be done."""
        while (due := self.next_due()) is not None and due <= now:
            key = heapq.heappop(self._heap)[2]
            del self._due[key]
            self.add(key, now)
        for line in (self._ready, self._unhurried):
            while line:
                key = line.popleft()
                since = self._waiting.pop(key, None)
                if since is not None:
                    self._hurried.discard(key)
                    self._in_work.add(key)
                    # The pass that begins now will say itself when it wants to run again.
                    self._due.pop(key, None)
                    return key, now - since
        return None

    def done(self, key: Key, now: float) -> None:
        """End the work on a key; one that was added meanwhile is put in again."""
        self._in_work.discard(key)
        if key in self._dirty:
            self._dirty.discard(key)
            self.add(key, now)

    def succeed(self, key: Key) -> None:
        """Forget a key's failures."""
        self._failures.pop(key, None)

    def fail(self, key: Key, now: float, *, at_least_seconds: float = 0.0) -> float:
        """Count a failure and put the key in after a delay that doubles with each; return the delay."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        plain = min(FIRST_RETRY_SECONDS * 2.0 ** min(failures, _DOUBLINGS), LONGEST_RETRY_SECONDS)
        delay = max(plain * (1 + _JITTER * (2 * self._jitter() - 1)), at_least_seconds)
        self.add_later(key, now + delay)
        return delay


class WorkQueue(Generic[Key]):
    """A `KeyedQueue` on the event loop's clock, with workers. All its methods belong to that loop's thread."""

    def __init__(self, *, clock: Callable[[], float], keys: KeyedQueue[Key] | None = None) -> None:
        self.keys: KeyedQueue[Key] = keys or KeyedQueue()
        self._clock = clock
        self._changed = asyncio.Event()

    def add(self, key: Key, *, hurry: bool = True) -> None:
        """Put a key in now."""
        self.keys.add(key, self._clock(), hurry=hurry)
        self._changed.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Put a key in after a while."""
        self.keys.add_later(key, self._clock() + seconds)
        self._changed.set()

    def retry(self, key: Key, *, at_least_seconds: float = 0.0) -> float:
        """Put a key in after its growing delay; return the delay in seconds."""
        delay = self.keys.fail(key, self._clock(), at_least_seconds=at_least_seconds)
        self._changed.set()
        return delay

    async def take(self) -> tuple[Key, float]:
        """Wait for a key and take it into work, with the seconds that it has waited."""
        while True:
            self._changed.clear()
            found = self.keys.pop(self._clock())
            if found is not None:
                # Others may wait as well, and one event wakes them all only once.
                self._changed.set()
                return found
            await self._wait()

    async def _wait(self) -> None:
        due = self.keys.next_due()
        try:
            await asyncio.wait_for(self._changed.wait(), None if due is None else max(due - self._clock(), 0.001))
        except TimeoutError:
            return

    async def work(self, handle: Callable[[Key, float], Awaitable[None]], *, workers: int) -> None:
        """Let `handle` work on keys, at most `workers` at a time, until this is cancelled.

        An exception of `handle` ends everything: what can fail in a pass is `handle`'s own business.
        """
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._worker(handle))

    async def _worker(self, handle: Callable[[Key, float], Awaitable[None]]) -> None:
        while True:
            key, waited = await self.take()
            try:
                await handle(key, waited)
            finally:
                self.keys.done(key, self._clock())
                self._changed.set()
