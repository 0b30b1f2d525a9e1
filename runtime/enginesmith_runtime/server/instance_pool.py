"""The instances of one model and the queue before them.

A request runs on the thread that brought it, where the transport lets it, at once or when an instance is free: a
hand-over to another thread and back costs as much as a small model. Others run on the pool's own threads, one for each
instance. The queue is one for both, oldest first. A job whose client has gone or whose deadline has passed is never
run. The queue is bounded: what cannot be run soon is refused at once, while the client still has time to go elsewhere.
"""

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Final

from enginesmith_runtime.engines.interface import Instance
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.transport.interface import CallContext

__all__ = ["InstancePool", "Job"]

_log = logging.getLogger(__name__)

_SHUTTING_DOWN: Final = "the server is shutting down; send the request to another one"


class Job(ABC):
    """One inference. Exactly one of `run` and `refuse` is called, once."""

    def __init__(self, context: CallContext) -> None:
        self.context = context
        self.queued_ns = time.perf_counter_ns()

    @abstractmethod
    def run(self, instance: Instance) -> None:
        """Run, on whichever thread has the instance; must not raise."""

    @abstractmethod
    def refuse(self, error: ProtocolError) -> None:
        """The job will not run; called from any thread."""


class InstancePool:
    """A first-in, first-out queue before `instances`.

    Attributes:
        queue_limit: jobs that may wait; those that run are not counted.
    """

    def __init__(self, instances: Sequence[Instance], *, queue_limit: int, name: str) -> None:
        self.queue_limit = queue_limit
        self._instances = tuple(instances)
        self._idle = list(instances)
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._refusal: ProtocolError | None = None
        self._threads = tuple(
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True) for index in range(self.size)
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
        return self.size - len(self._idle)

    def submit(self, job: Job) -> None:
        """Run a job here and now, or queue it.

        Raises:
            ProtocolError: RESOURCE_EXHAUSTED where the queue is full; what `refuse_all` was told.
        """
        with self._changed:
            if self._refusal is not None:
                # A new one each time: an exception collects the traceback of each caller that raises it.
                raise ProtocolError(self._refusal.code, self._refusal.message, reason=self._refusal.reason)
            # Idle instances take a job each before anything counts as waiting.
            ahead = len(self._waiting) - len(self._idle)
            instance = self._idle.pop() if ahead < 0 and job.context.may_run_here else None
            if instance is None:
                self._enqueue(job, ahead)
        if instance is None:
            job.context.on_cancel(lambda: self._withdraw(job))
        else:
            self._run(job, instance)

    def refuse_all(self, error: ProtocolError) -> None:
        """Refuse what waits and whatever comes from now on; what runs may end. The first error given stays."""
        with self._changed:
            self._refusal = self._refusal or error
            refused = tuple(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        for job in refused:
            job.refuse(error)

    def close(self, timeout_seconds: float) -> None:
        """Refuse what waits, give what runs the time to end, free the instances."""
        self.refuse_all(ProtocolError(Code.UNAVAILABLE, _SHUTTING_DOWN, reason="ShuttingDown"))
        with self._changed:
            ended = self._changed.wait_for(lambda: not self.running, timeout_seconds)
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
        self._waiting.append(job)
        self._changed.notify()

    def _withdraw(self, job: Job) -> None:
        with self._changed:
            try:
                self._waiting.remove(job)
            except ValueError:  # it runs or has run
                return
        job.refuse(ProtocolError(Code.CANCELLED, "the client cancelled the request"))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._refusal or (self._waiting and self._idle))
                if self._refusal:
                    return
                job, instance = self._waiting.popleft(), self._idle.pop()
            if job.context.may_run_here:
                self._hand_over(job, instance)
            else:
                self._run(job, instance)
            # The last reference to a large request must not live until the next one comes.
            del job

    def _run(self, job: Job, instance: Instance) -> None:
        error = _reason_to_drop(job.context)
        if error is None:
            job.run(instance)
        else:
            job.refuse(error)
        self._free(instance)

    def _free(self, instance: Instance) -> None:
        """Give the instance to the oldest job that waits."""
        with self._changed:
            following = self._waiting[0] if self._waiting else None
            if following is None or not following.context.may_run_here:
                self._idle.append(instance)
                if self._refusal:
                    self._changed.notify_all()
                elif following is not None:
                    self._changed.notify()
                return
            self._waiting.popleft()
        self._hand_over(following, instance)

    def _hand_over(self, job: Job, instance: Instance) -> None:
        job.context.run_here(lambda: self._run(job, instance))


def _reason_to_drop(context: CallContext) -> ProtocolError | None:
    if context.deadline is not None and time.monotonic() >= context.deadline:
        return ProtocolError(Code.DEADLINE_EXCEEDED, "the deadline passed while the request waited; it was not run")
    if context.cancelled:
        return ProtocolError(Code.CANCELLED, "the client cancelled the request")
    return None
