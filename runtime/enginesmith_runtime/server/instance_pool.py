"""The instances of one model and their queue.

If the transport allows it, a request runs on the thread that received it, at once or when an instance is free, because
a hand-over to another thread and back costs as much as a small model. Quick requests that arrive together run as one
inference. Other requests run on the pool's own threads, one for each instance. Both use the same queue. A free instance
takes the first job and the jobs that can be joined with it (see `batching`). A job whose client has gone or whose
deadline has passed is never run. The queue is bounded: a request that cannot run soon is refused at once, so that the
client has time to try another replica.
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
    """Runs jobs on `instances`, with a queue for jobs that must wait.

    Attributes:
        queue_limit: Number of jobs that may wait. Running jobs are not counted.
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
        # Time until which one of the threads sleeps; None if all threads wait to be notified.
        self._alarm_ns: int | None = None
        self._lock = lock = threading.RLock()
        self._changed = threading.Condition(lock)
        # Earliest deadline of the waiting jobs, on the clock of `time.monotonic()`.
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
        """Number of inferences that can run at the same time."""
        return len(self._instances)

    @property
    def waiting(self) -> int:
        """Number of waiting jobs."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Number of running jobs."""
        return self._running

    def submit(self, job: Job) -> None:
        """Run a job on this thread, alone or with jobs that arrived with it, or queue it.

        Raises:
            ProtocolError: RESOURCE_EXHAUSTED if the queue is full, or the error of `refuse_all`.
        """
        quick = job.is_quick and job.join_key is not None and job.context.may_run_here
        if quick and job.context.gather(self._run_gathered, job):
            return
        alone = not job.is_quick and job.is_short and job.context.may_run_here and job.context.comes_alone()
        if not alone or not job.context.gather(self._run_alone, job):
            self._submit(job)

    def _run_alone(self, jobs: _Jobs) -> None:
        """Run a short job on the thread that received it, unless other jobs arrived with it."""
        for job in jobs:
            try:
                self._submit(job, here=len(jobs) == 1)
            except ProtocolError as error:
                job.refuse(error)

    def _run_gathered(self, jobs: _Jobs) -> None:
        """Run quick jobs that arrived together on the thread that received them, joined as far as possible."""
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
                # Create a new exception each time, because an exception collects the traceback of each caller that
                # raises it.
                raise ProtocolError(self._refusal.code, self._refusal.message, reason=self._refusal.reason)
            self._batcher.arrive(job)
            # A job counts as waiting only if no instance is idle.
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
        """Refuse all waiting and future jobs. Running jobs may end. The error of the first call is kept."""
        with self._changed:
            self._refusal = self._refusal or error
            refused = self._waiting.clear()
            self._changed.notify_all()
            self._earlier.notify_all()
        for job in refused:
            job.refuse(error)

    def close(self, timeout_seconds: float) -> None:
        """Refuse the waiting jobs, wait for the running ones, and free the instances."""
        self.refuse_all(ProtocolError(Code.UNAVAILABLE, _SHUTTING_DOWN, reason="ShuttingDown"))
        with self._changed:
            ended = self._changed.wait_for(lambda: len(self._idle) == self.size, timeout_seconds)
        if not ended:
            # Freeing an instance during an inference would crash the process.
            _log.warning(
                "%d inferences still run after %s s; the process frees their memory", self.running, timeout_seconds
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
        """Refuse jobs whose deadline passes while they wait, even if all instances stay busy."""
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
            if not self._waiting.remove(job):  # it is running or has ended
                return
        job.refuse(ProtocolError(Code.CANCELLED, "the client cancelled the request"))

    def _choose(self) -> Batch:
        return self._batcher.choose(self._waiting, len(self._idle))

    def _take_with(self, job: Job) -> _Jobs:
        """Remove the next batch from the queue and return it if it runs now and contains `job`."""
        batch = self._choose()
        if batch.wait_until_ns or job not in batch.jobs:
            return ()
        self._waiting.take(batch.jobs)
        return batch.jobs

    def _wake_thread(self) -> None:
        """Wake one of the pool's threads, unless one is already sleeping until the next batch is due."""
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
            # Release the last reference to a large request now, and not when the next request arrives.
            del jobs

    def _wait_for_batch(self) -> _Jobs:
        """Wait for the next batch, remove it from the queue and return it. Return nothing if the pool closes."""
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
            # Another instance may run the jobs that are not in this batch.
            self._wake_thread()
        return instance

    def _start(self, jobs: _Jobs, instance: Instance) -> None:
        """Run a batch on the thread that received its first job, or on this thread."""
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
        """Mark the instance as free and let waiting jobs use it."""
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
