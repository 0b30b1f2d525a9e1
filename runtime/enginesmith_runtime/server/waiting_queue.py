"""The jobs that wait for an instance, in the order in which they run.

Jobs are ordered by priority. Within a priority, connections take turns, so that a client with a single request does not
wait for hundreds of requests of another client. The jobs of one connection keep their order.
"""

from bisect import insort
from collections.abc import Hashable, Iterator, Sequence

from enginesmith_runtime.server.job import Job

__all__ = ["WaitingQueue"]

_Entry = tuple[int, int, int, Job, Hashable]
"""Priority, turn, arrival number, job and its connection."""


class WaitingQueue:
    """An ordered list of jobs; not safe from several threads."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._arrived = 0
        # For each priority and waiting connection: the turn of its last job, and the number of its waiting jobs.
        self._sources: dict[tuple[int, Hashable], tuple[int, int]] = {}
        # For each priority: the turn of the job that ran last.
        self._turns: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Job]:
        return (entry[3] for entry in self._entries)

    @property
    def first(self) -> Job:
        """Return the job that runs next."""
        return self._entries[0][3]

    def add(self, job: Job) -> None:
        """Insert a job at its position."""
        priority, source = job.priority, job.context.source
        last, waiting = self._sources.get((priority, source), (-1, 0))
        turn = max(self._turns.get(priority, 0), last + 1)
        self._sources[priority, source] = (turn, waiting + 1)
        self._arrived += 1
        insort(self._entries, (priority, turn, self._arrived, job, source))

    def take(self, jobs: Sequence[Job]) -> None:
        """Remove jobs that are about to run. They must be in queue order."""
        left = iter(jobs)
        wanted = next(left, None)
        kept: list[_Entry] = []
        for index, entry in enumerate(self._entries):
            if entry[3] is not wanted:
                kept.append(entry)
                continue
            self._turns[entry[0]] = max(self._turns.get(entry[0], 0), entry[1])
            self._forget(entry)
            wanted = next(left, None)
            if wanted is None:
                self._entries[: index + 1] = kept
                return

    def remove(self, job: Job) -> bool:
        """Remove a job that will not run; False if it does not wait."""
        for index, entry in enumerate(self._entries):
            if entry[3] is job:
                del self._entries[index]
                self._forget(entry)
                return True
        return False

    def clear(self) -> tuple[Job, ...]:
        """Remove and return all of them."""
        jobs = tuple(self)
        self._entries.clear()
        self._sources.clear()
        return jobs

    def _forget(self, entry: _Entry) -> None:
        source = (entry[0], entry[4])
        last, waiting = self._sources[source]
        if waiting == 1:
            del self._sources[source]
        else:
            self._sources[source] = (last, waiting - 1)
