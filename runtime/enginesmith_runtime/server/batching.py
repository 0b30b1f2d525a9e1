"""Chooses which waiting jobs run as one inference, and whether to wait for more jobs.

A free instance takes the first job of the queue and all later jobs that can be joined with it, up to the largest batch
of a profile. It waits for more jobs only while `max_queue_delay` allows it and more are likely: from clients whose
requests run on another instance or whose responses were just sent.
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
"""Most groups of joinable requests that are remembered. Beyond it, groups without a running request are forgotten."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The batch that a free instance runs next.

    Attributes:
        jobs: Jobs of the batch, at least one.
        wait_until_ns: Time on the clock of `time.perf_counter_ns()` until which other jobs may join; 0 to run now.
    """

    jobs: Sequence[Job]
    wait_until_ns: int = 0


@dataclass(slots=True)
class _Clients:
    """Rows of the clients whose requests can be joined with each other.

    Attributes:
        running: Rows in a running inference.
        returning: Rows that were just answered, until the next requests of these clients arrive.
        ended_ns: Time of the last response.
        held_ns: Time since which a free instance has waited for more jobs; 0 if none waits.
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
        """Return the next batch of a queue that is not empty. `idle` is the number of free instances."""
        first = waiting.first
        if first.join_key is None:
            return Batch((first,))
        jobs, preferred = self._gather(waiting, first)
        if preferred:
            return Batch(jobs[:preferred])
        if idle > 1 and len(jobs) > 1:
            pays = first.joining_pays
            if pays is False or (pays is None and len(jobs) <= idle):
                # Each free instance takes a share of the jobs, because together they are faster.
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
        """Divide jobs that arrived together into batches that run now."""
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
        """Return the jobs that fit together, and how many of them form the largest preferred size (0 if none do)."""
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
