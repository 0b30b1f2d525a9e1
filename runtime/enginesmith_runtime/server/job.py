"""The interface between one inference and the queue."""

import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence

from enginesmith_runtime.engines.interface import Instance
from enginesmith_runtime.server.errors import ProtocolError
from enginesmith_runtime.server.transport.compiling import mypyc_attr
from enginesmith_runtime.server.transport.interface import CallContext

__all__ = ["Job"]


@mypyc_attr(allow_interpreted_subclasses=True)
class Job(ABC):
    """One inference. Exactly one of `run`, `run_joined` and `refuse` answers it, once.

    Attributes:
        join_key: Jobs with equal keys may run as one inference. A job with None runs alone.
        rows: Number of rows that the job adds to the first dimension.
        most_rows: Largest number of rows of a batch that contains the job.
        priority: Priority level; a lower number runs first.
    """

    join_key: Hashable

    def __init__(self, context: CallContext) -> None:
        self.context = context
        self.join_key = None
        self.rows = self.most_rows = 1
        self.priority = 0
        self.queued_ns = time.perf_counter_ns()

    @property
    def is_quick(self) -> bool:
        """Whether the run is short enough for the thread of an event loop."""
        return False

    @property
    def is_short(self) -> bool:
        """Whether the thread of an event loop may do the run while there is no other call."""
        return False

    @property
    def joining_pays(self) -> bool | None:
        """Whether joined runs are clearly faster than runs one after another; None if it is not known."""
        return True

    @abstractmethod
    def run(self, instance: Instance) -> None:
        """Run the job on the thread that has the instance. It must not raise."""

    def run_joined(self, others: "Sequence[Job]", instance: Instance) -> None:
        """Run this job and others with the same `join_key` as one inference. It must not raise."""
        for job in (self, *others):
            job.run(instance)

    @abstractmethod
    def refuse(self, error: ProtocolError) -> None:
        """Answer the job with an error, because it will not run. Called from any thread."""
