"""Everything that a pass over one EngineBuild looks at, as one value."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from enginesmith_operator.api.engine_build import BuildPhase, EngineBuild
from enginesmith_operator.controller.engine_build.steps import current_step
from enginesmith_operator.controller.shared.pod_facts import ContainerFacts, JobFacts, PodFacts
from enginesmith_operator.controller.shared.waiting import unexplained_job, unexplained_pod
from enginesmith_operator.objects.build_job import BUILD_CONTAINER
from enginesmith_operator.planning.rollout_state import Obstacle

__all__ = ["EARLY_PROGRESS_SECONDS", "PROGRESS_SECONDS", "BuildSnapshot"]

PROGRESS_SECONDS: Final = 10.0
"""How often the progress of a build is read."""
EARLY_PROGRESS_SECONDS: Final = 2.0
"""The same in the first minute, in which the stages last seconds."""


@dataclass(frozen=True, kw_only=True)
class BuildSnapshot:
    """What a pass over one EngineBuild looks at.

    Attributes:
        build: with the status that it had; a fresh one where that could not be read.
        job: with the build's name, also if another owner has it.
        pods: of the Job, the oldest first.
        log: last lines of the container's log; empty where none was asked for.
        held_back: why policies do not let the build begin yet; None: they do.
    """

    build: EngineBuild
    job: JobFacts | None
    pods: tuple[PodFacts, ...] = ()
    log: tuple[str, ...] = ()
    held_back: Obstacle | None = None
    now: datetime

    @property
    def is_job_ours(self) -> bool:
        """Return whether the Job belongs to this very build."""
        return self.job is not None and self.job.controller_uid == self.build.metadata.uid

    @property
    def container(self) -> ContainerFacts | None:
        """Return the step of the newest pod that runs, failed or ended last."""
        return current_step(self.pods[-1]) if self.pods else None

    @property
    def builder(self) -> ContainerFacts | None:
        """Return the builder in the newest pod."""
        return self.pods[-1].container(BUILD_CONTAINER) if self.pods else None

    @property
    def is_between_steps(self) -> bool:
        """Whether a step of the newest pod has ended, and the next one only has to start."""
        step = self.container
        if step is None or step.name == BUILD_CONTAINER or self.pods[-1].stuck:
            return False
        return not step.running_since and step.latest_ending is None

    @property
    def has_ended(self) -> bool:
        """Whether the status says how the build ended. A status that says only that it ended was damaged."""
        status = self.build.status
        match status.phase:
            case BuildPhase.SUCCEEDED:
                return status.result is not None
            case BuildPhase.FAILED:
                return status.failure is not None
            case BuildPhase.PENDING | BuildPhase.BUILDING:
                return False

    @property
    def first_start(self) -> str | None:
        """Return when the first builder of the pods began."""
        starts = [
            start
            for pod in self.pods
            if (container := pod.container(BUILD_CONTAINER)) is not None
            for start in (container.running_since, container.latest_ending and container.latest_ending.started_at)
            if start
        ]
        return min(starts, default=None)

    @property
    def unexplained(self) -> tuple[str, ...]:
        """Return the uids of objects that wait without a reason: a Job without a pod, a pod that does not start."""
        if self.has_ended or self.job is None or not self.is_job_ours:
            return ()
        return unexplained_job(self.job, self.pods), unexplained_pod(self.pods)
