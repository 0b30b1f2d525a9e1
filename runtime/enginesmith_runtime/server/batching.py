"""Which of the waiting jobs run as one inference, and whether it pays to wait for more.

A free instance takes the first job of the queue and those behind it that can be joined with it, up to the largest batch
that a profile takes. It waits for more only while `max_queue_delay` allows it and others are likely: clients whose
requests run on another instance, and those whose answers have just been sent.
"""

import math
import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from enginesmith_contract.serve_request import BatchingOptions
from enginesmith_runtime.server.job import Job
from enginesmith_runtime.server.waiting_queue import WaitingQueue

__all__ = ["Batch", "Batcher"]

_NS: Final = 1_000_000_000

_KEPT_KINDS: Final = 64
"""Of requests that can be joined with each other, beyond which those that run at the moment are remembered alone."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a free instance would run.

    Attributes:
        jobs: at least one.
        wait_until_ns: on `time.perf_counter_ns()`'s clock; until then others may join. 0: run it now.
    """

    jobs: Sequence[Job]
    wait_until_ns: int = 0


@dataclass(slots=True)
class _Clients:
    """The rows of those that send what can be joined with each other.

    Attributes:
        running: in an inference.
        returning: answered a moment ago, until the next ones come in their place.
        ended_ns: when the last of them were answered.
        held_ns: since when a free instance waits for more; 0: none does.
    """

    running: int = 0
    returning: int = 0
    ended_ns: int = 0
    held_ns: int = 0


class Batcher:
    """Chooses batches for one model. Not safe from several threads; the pool calls it under its lock."""

    def __init__(self, options: BatchingOptions) -> None:
        self._delay_ns = int(options.max_queue_delay_seconds * _NS) if options.enabled else 0
        self._preferred = frozenset(options.preferred_batch_sizes)
        self._clients: dict[Hashable, _Clients] = {}

    @property
    def delays(self) -> bool:
        """Whether a job may have to wait while an instance is free."""
        return self._delay_ns > 0

    def arrive(self, job: Job) -> None:
        """Note that a client has sent a request."""
        if not self._clients:
            return
        clients = self._clients.get(job.join_key)
        if clients is not None:
            clients.returning = max(0, clients.returning - job.rows)

    def begin(self, jobs: Sequence[Job]) -> None:
        """Note that a batch runs."""
        if not self._delay_ns or jobs[0].join_key is None:
            return
        if len(self._clients) > _KEPT_KINDS:
            self._clients = {key: one for key, one in self._clients.items() if one.running}
        clients = self._clients.setdefault(jobs[0].join_key, _Clients())
        clients.running += _rows(jobs)
        clients.held_ns = 0

    def end(self, jobs: Sequence[Job]) -> None:
        """Note that a batch was answered."""
        clients = self._clients.get(jobs[0].join_key)
        if clients is None:
            return
        now, rows = time.perf_counter_ns(), _rows(jobs)
        clients.running -= rows
        clients.returning = self._still_returning(clients, now) + rows
        clients.ended_ns = now

    def choose(self, waiting: WaitingQueue, idle: int = 1) -> Batch:
        """Return what to run next of a queue that is not empty; `idle`: instances that are free for it."""
        first = waiting.first
        if first.join_key is None:
            return Batch((first,))
        jobs, preferred = self._gather(waiting, first)
        if preferred:
            return Batch(jobs[:preferred])
        if idle > 1 and len(jobs) > 1:
            pays = first.joining_pays
            if pays is False or (pays is None and len(jobs) <= idle):
                # Each free instance takes its part: together they are faster.
                return Batch(jobs[: math.ceil(len(jobs) / idle)])
        clients = self._clients.get(first.join_key)
        if clients is None:
            return Batch(jobs)
        rows, now = _rows(jobs), time.perf_counter_ns()
        returning = self._still_returning(clients, clients.held_ns or now)
        reachable = min(rows + returning + clients.running, first.most_rows)
        sizes = self._preferred or (reachable,)
        worth_it = any(rows < size <= reachable for size in sizes)
        if not worth_it:
            return Batch(jobs)
        clients.held_ns = clients.held_ns or now
        until = clients.held_ns + self._delay_ns
        return Batch(jobs, until if now < until else 0)

    def cut(self, jobs: Sequence[Job]) -> Iterator[Sequence[Job]]:
        """Yield jobs that came together as batches that run at once."""
        if len(jobs) == 1:
            yield jobs
            return
        while jobs:
            batch, preferred = self._gather(jobs, jobs[0])
            batch = batch[: preferred or len(batch)]
            yield batch
            taken = set(batch)
            jobs = [job for job in jobs if job not in taken] if len(batch) < len(jobs) else ()

    def _gather(self, waiting: Iterable[Job], first: Job) -> tuple[list[Job], int]:
        """Return the jobs that fit together, and how many of them make the largest preferred size; 0: none do."""
        jobs: list[Job] = []
        rows = preferred = 0
        for job in waiting:
            if job.join_key != first.join_key:
                continue
            if jobs and rows + job.rows > first.most_rows:
                break
            jobs.append(job)
            rows += job.rows
            if rows in self._preferred:
                preferred = len(jobs)
        return jobs, preferred

    def _still_returning(self, clients: _Clients, now: int) -> int:
        return clients.returning if now < clients.ended_ns + self._delay_ns else 0


def _rows(jobs: Sequence[Job]) -> int:
    return sum([job.rows for job in jobs])
