"""One inference as the queue sees it."""

import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence

from enginesmith_runtime.engines.interface import Instance
from enginesmith_runtime.server.errors import ProtocolError
from enginesmith_runtime.server.transport.interface import CallContext

__all__ = ["Job"]


class Job(ABC):
    """One inference. Exactly one of `run`, `run_joined` and `refuse` answers it, once.

    Attributes:
        join_key: jobs with equal keys may run as one inference; None: alone.
        rows: what the job adds to the first dimension.
        most_rows: of a batch that the job is in.
        priority: lower runs first.
    """

    join_key: Hashable = None
    rows: int = 1
    most_rows: int = 1
    priority: int = 0

    def __init__(self, context: CallContext) -> None:
        self.context = context
        self.queued_ns = time.perf_counter_ns()

    @property
    def is_quick(self) -> bool:
        """Whether the run is so short that an event loop may do it itself."""
        return False

    @property
    def is_short(self) -> bool:
        """Whether an event loop may do the run itself while no other call is there."""
        return False

    @property
    def joining_pays(self) -> bool | None:
        """Whether runs with others take clearly less time than runs one after another; None: not known."""
        return True

    @abstractmethod
    def run(self, instance: Instance) -> None:
        """Run, on whichever thread has the instance; must not raise."""

    def run_joined(self, others: "Sequence[Job]", instance: Instance) -> None:
        """Run this job and others of the same `join_key` as one inference; must not raise."""
        for job in (self, *others):
            job.run(instance)

    @abstractmethod
    def refuse(self, error: ProtocolError) -> None:
        """The job will not run; called from any thread."""
