"""The instances of one model and the queue before them.

A request runs on the thread that brought it, where the transport lets it, at once or when an instance is free: a
hand-over to another thread and back costs as much as a small model. Quick requests that arrive together run as one
inference. Others run on the pool's own threads, one for each instance. The queue is one for both. A free instance
takes the first job and those that can be joined with it (see `batching`). A job whose client has gone or whose deadline
has passed is never run. The queue is bounded: what cannot be run soon is refused at once, while the client still has
time to go elsewhere.
"""

import logging
import math
import threading
import time
from collections.abc import Sequence
from typing import Final

from enginesmith_contract.serve_request import BatchingOptions
from enginesmith_runtime.engines.interface import Instance
from enginesmith_runtime.server.batching import Batch, Batcher
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.job import Job
from enginesmith_runtime.server.transport.interface import CallContext
from enginesmith_runtime.server.waiting_queue import WaitingQueue

__all__ = ["InstancePool", "Job"]

_log = logging.getLogger(__name__)

_SHUTTING_DOWN: Final = "the server is shutting down; send the request to another one"

_NS: Final = 1e-9

_Jobs = Sequence[Job]


class InstancePool:
    """A queue before `instances`.

    Attributes:
        queue_limit: jobs that may wait; those that run are not counted.
    """

    def __init__(
        self,
        instances: Sequence[Instance],
        *,
        queue_limit: int,
        name: str,
        batching: BatchingOptions | None = None,
    ) -> None:
        self.queue_limit = queue_limit
        self._instances = tuple(instances)
        self._idle = list(instances)
        self._waiting = WaitingQueue()
        self._batcher = Batcher(batching or BatchingOptions())
        self._running = 0
        # Until when one of the threads sleeps; None: all wait for a word.
        self._alarm_ns: int | None = None
        self._lock = lock = threading.RLock()
        self._changed = threading.Condition(lock)
        # On `time.monotonic()`'s clock: when the next of those that wait will have waited too long.
        self._expires = math.inf
        self._earlier = threading.Condition(lock)
        self._refusal: ProtocolError | None = None
        self._threads = (
            threading.Thread(target=self._expire, name=f"{name}-late", daemon=True),
            *(threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True) for index in range(self.size)),
        )
        for thread in self._threads:
            thread.start()

    @property
    def size(self) -> int:
        """How many inferences run at once."""
        return len(self._instances)

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many jobs run."""
        return self._running

    def submit(self, job: Job) -> None:
        """Run a job here and now or with those that arrived with it, or queue it.

        Raises:
            ProtocolError: RESOURCE_EXHAUSTED where the queue is full; what `refuse_all` was told.
        """
        quick = job.is_quick and job.join_key is not None and job.context.may_run_here
        if quick and job.context.gather(self._run_gathered, job):
            return
        alone = not job.is_quick and job.is_short and job.context.may_run_here and job.context.comes_alone()
        if not alone or not job.context.gather(self._run_alone, job):
            self._submit(job)

    def _run_alone(self, jobs: _Jobs) -> None:
        """Run a short job on the thread that brought it, unless others came with it."""
        for job in jobs:
            try:
                self._submit(job, here=len(jobs) == 1)
            except ProtocolError as error:
                job.refuse(error)

    def _run_gathered(self, jobs: _Jobs) -> None:
        """Run quick jobs that arrived together, joined as far as they can be, on the thread that brought them."""
        for batch in self._batcher.cut(jobs):
            instance = None
            with self._lock:
                if self._refusal is None and len(self._waiting) < len(self._idle):
                    for job in batch:
                        self._batcher.arrive(job)
                    instance = self._begin(batch)
            if instance is not None:
                self._run(batch, instance)
                continue
            for job in batch:
                try:
                    self._submit(job)
                except ProtocolError as error:
                    job.refuse(error)

    def _submit(self, job: Job, *, here: bool = False) -> None:
        context = job.context
        here = here or (context.may_run_here and (context.may_block or job.is_quick))
        with self._lock:
            if self._refusal is not None:
                # A new one each time: an exception collects the traceback of each caller that raises it.
                raise ProtocolError(self._refusal.code, self._refusal.message, reason=self._refusal.reason)
            self._batcher.arrive(job)
            # Idle instances take a job each before anything counts as waiting.
            ahead = len(self._waiting) - len(self._idle)
            jobs: _Jobs = ()
            if ahead < 0 and here and (job.is_quick or not self._batcher.delays):
                jobs = (job,)
            else:
                self._enqueue(job, ahead)
                if self._idle:
                    jobs = self._take_with(job) if here else ()
                    if not jobs:
                        self._wake_thread()
            instance = self._begin(jobs) if jobs else None
        if instance is None:
            context.on_cancel(lambda: self._withdraw(job))
        else:
            self._run(jobs, instance)

    def refuse_all(self, error: ProtocolError) -> None:
        """Refuse what waits and whatever comes from now on; what runs may end. The first error given stays."""
        with self._changed:
            self._refusal = self._refusal or error
            refused = self._waiting.clear()
            self._changed.notify_all()
            self._earlier.notify_all()
        for job in refused:
            job.refuse(error)

    def close(self, timeout_seconds: float) -> None:
        """Refuse what waits, give what runs the time to end, free the instances."""
        self.refuse_all(ProtocolError(Code.UNAVAILABLE, _SHUTTING_DOWN, reason="ShuttingDown"))
        with self._changed:
            ended = self._changed.wait_for(lambda: len(self._idle) == self.size, timeout_seconds)
        if not ended:
            # Freeing an instance under a running inference would crash the process instead of ending it.
            _log.warning(
                "%d inferences still run after %s s; their memory goes with the process", self.running, timeout_seconds
            )
            return
        for thread in self._threads:
            thread.join()
        for instance in self._instances:
            instance.close()

    def _enqueue(self, job: Job, ahead: int) -> None:
        if ahead >= self.queue_limit:
            raise ProtocolError(
                Code.RESOURCE_EXHAUSTED,
                f"the queue is full: {self.size} inferences run and {self.queue_limit} requests wait; try again later "
                "or on another replica, or raise serving.maxQueued",
                reason="QueueFull",
            )
        self._waiting.add(job)
        deadline = job.context.deadline
        if deadline is not None and deadline < self._expires:
            self._expires = deadline
            self._earlier.notify()

    def _expire(self) -> None:
        """Refuse those whose deadline passes while they wait, however long the instances are busy."""
        while True:
            with self._earlier:
                if self._refusal is None:
                    self._earlier.wait(None if self._expires == math.inf else self._expires - time.monotonic())
                if self._refusal is not None:
                    return
                late = [job for job in self._waiting if _is_late(job.context)]
                for job in late:
                    self._waiting.remove(job)
                deadlines = (job.context.deadline for job in self._waiting)
                self._expires = min((one for one in deadlines if one is not None), default=math.inf)
            for job in late:
                job.refuse(_too_late())

    def _withdraw(self, job: Job) -> None:
        with self._changed:
            if not self._waiting.remove(job):  # it runs or has run
                return
        job.refuse(ProtocolError(Code.CANCELLED, "the client cancelled the request"))

    def _choose(self) -> Batch:
        return self._batcher.choose(self._waiting, len(self._idle))

    def _take_with(self, job: Job) -> _Jobs:
        """Return the next batch, removed from the queue, where it shall run now and `job` is in it."""
        batch = self._choose()
        if batch.wait_until_ns or job not in batch.jobs:
            return ()
        self._waiting.take(batch.jobs)
        return batch.jobs

    def _wake_thread(self) -> None:
        """Let one of the pool's threads see what waits, unless one sleeps until it has to look anyway."""
        if self._alarm_ns is None or self._choose().wait_until_ns < self._alarm_ns:
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                jobs = self._wait_for_batch()
                if not jobs:
                    return
                instance = self._begin(jobs)
            self._start(jobs, instance)
            # The last reference to a large request must not live until the next one comes.
            del jobs

    def _wait_for_batch(self) -> _Jobs:
        """Return the next batch, removed from the queue, as soon as it shall run; nothing where the pool ends."""
        while self._refusal is None:
            if not self._waiting or not self._idle:
                self._changed.wait()
                continue
            batch = self._choose()
            if not batch.wait_until_ns:
                self._waiting.take(batch.jobs)
                return batch.jobs
            self._alarm_ns = batch.wait_until_ns
            self._changed.wait(max(0, batch.wait_until_ns - time.perf_counter_ns()) * _NS)
            self._alarm_ns = None
        return ()

    def _begin(self, jobs: _Jobs) -> Instance:
        self._running += len(jobs)
        self._batcher.begin(jobs)
        instance = self._idle.pop()
        if self._idle and self._waiting:
            # What a batch left behind may run on another instance.
            self._wake_thread()
        return instance

    def _start(self, jobs: _Jobs, instance: Instance) -> None:
        """Run a batch on the thread that brought its first job, or else on this one."""
        context = jobs[0].context
        if context.may_run_here and context.may_block:
            context.run_here(lambda: self._run(jobs, instance))
        else:
            self._run(jobs, instance)

    def _run(self, jobs: _Jobs, instance: Instance) -> None:
        live = [job for job in jobs if not _drop(job)]
        if len(live) > 1:
            live[0].run_joined(live[1:], instance)
        elif live:
            live[0].run(instance)
        self._free(jobs, instance)

    def _free(self, ended: _Jobs, instance: Instance) -> None:
        """Give the instance to what waits."""
        with self._lock:
            self._running -= len(ended)
            self._batcher.end(ended)
            self._idle.append(instance)
            if self._refusal:
                self._changed.notify_all()
                return
            if not self._waiting:
                return
            first = self._waiting.first.context
            batch = self._choose() if first.may_run_here and first.may_block else None
            if batch is None or batch.wait_until_ns:
                self._wake_thread()
                return
            self._waiting.take(batch.jobs)
            instance = self._begin(batch.jobs)
        self._start(batch.jobs, instance)


def _is_late(context: CallContext) -> bool:
    return context.deadline is not None and time.monotonic() >= context.deadline


def _too_late() -> ProtocolError:
    return ProtocolError(Code.DEADLINE_EXCEEDED, "the deadline passed while the request waited; it was not run")


def _drop(job: Job) -> bool:
    """Refuse a job whose client has gone or whose deadline has passed."""
    if _is_late(job.context):
        job.refuse(_too_late())
        return True
    if job.context.cancelled:
        job.refuse(ProtocolError(Code.CANCELLED, "the client cancelled the request"))
        return True
    return False
