"""The instances of one model and the queue before them.

Each instance has a thread that takes the oldest job, so nobody overtakes and nothing waits while an instance is idle.
A job whose client has gone or whose deadline has passed is never run. The queue is bounded: what cannot be run soon is
refused at once, while the client still has time to go elsewhere.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence

from enginesmith_runtime.engines.interface import Instance
from enginesmith_runtime.server.protocol.errors import Code, ProtocolError
from enginesmith_runtime.server.transport.interface import CallContext

__all__ = ["InstancePool", "Job"]


class Job(ABC):
    """One inference that waits for an instance. Exactly one of `run` and `refuse` is called, once."""

    def __init__(self, context: CallContext) -> None:
        self.context = context
        self.queued_ns = time.perf_counter_ns()

    @abstractmethod
    def run(self, instance: Instance) -> None:
        """Run on the instance's thread; must not raise."""

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
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._running = 0
        self._closed = False
        self._threads = tuple(
            threading.Thread(target=self._work, args=(instance,), name=f"{name}-{index}", daemon=True)
            for index, instance in enumerate(self._instances)
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
        """Queue a job.

        Raises:
            ProtocolError: RESOURCE_EXHAUSTED where the queue is full, UNAVAILABLE once the pool is closed.
        """
        with self._changed:
            if self._closed:
                raise ProtocolError(Code.UNAVAILABLE, "the server is shutting down; send the request to another one")
            # Idle instances take a job each before anything counts as waiting.
            idle = self.size - self._running
            if len(self._waiting) - idle >= self.queue_limit:
                raise ProtocolError(
                    Code.RESOURCE_EXHAUSTED,
                    f"the queue is full: {self.size} inferences run and {self.queue_limit} requests wait; try again "
                    "later or on another replica",
                )
            self._waiting.append(job)
            self._changed.notify()
        job.context.on_cancel(lambda: self._withdraw(job))

    def close(self) -> None:
        """Refuse what waits, let what runs end, free the instances; safe to call twice."""
        with self._changed:
            self._closed = True
            refused = tuple(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        for job in refused:
            job.refuse(ProtocolError(Code.UNAVAILABLE, "the server shut down before the request ran"))
        for thread in self._threads:
            thread.join()
        for instance in self._instances:
            instance.close()

    def _withdraw(self, job: Job) -> None:
        with self._changed:
            try:
                self._waiting.remove(job)
            except ValueError:  # it runs or has run
                return
        job.refuse(ProtocolError(Code.CANCELLED, "the client cancelled the request"))

    def _work(self, instance: Instance) -> None:
        while (job := self._take()) is not None:
            error = _reason_to_drop(job.context)
            if error is None:
                job.run(instance)
            else:
                job.refuse(error)
            # The last reference to a large request must not live until the next one comes.
            del job
            with self._changed:
                self._running -= 1

    def _take(self) -> Job | None:
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            self._running += 1
            return self._waiting.popleft()


def _reason_to_drop(context: CallContext) -> ProtocolError | None:
    if context.cancelled:
        return ProtocolError(Code.CANCELLED, "the client cancelled the request")
    if context.deadline is not None and time.monotonic() >= context.deadline:
        return ProtocolError(Code.DEADLINE_EXCEEDED, "the deadline passed while the request waited; it was not run")
    return None
