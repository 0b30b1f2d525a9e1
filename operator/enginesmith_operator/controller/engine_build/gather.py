"""Makes the snapshot of one EngineBuild from the cache, events and logs. Reads only."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from enginesmith_operator.api.engine_build import EngineBuild
from enginesmith_operator.cluster.client import Api
from enginesmith_operator.cluster.errors import ClusterError, LeaseLostError
from enginesmith_operator.controller.engine_build.snapshot import EARLY_PROGRESS_SECONDS, BuildSnapshot
from enginesmith_operator.controller.engine_build.steps import last_step
from enginesmith_operator.controller.engine_build.turns import BuildTurns
from enginesmith_operator.controller.shared.cache import Address, ObjectCache
from enginesmith_operator.controller.shared.conditions import bounded_line
from enginesmith_operator.controller.shared.explanations import Explanations
from enginesmith_operator.controller.shared.gpu_use import GpuUse
from enginesmith_operator.controller.shared.pod_facts import JobFacts, PodFacts, read_job, read_pod
from enginesmith_operator.controller.shared.policies import PolicyReader
from enginesmith_operator.controller.watch.intake import JOB_NAME
from enginesmith_operator.kinds import JOB, POD
from enginesmith_operator.objects.metric_steps import METRIC_CONTAINER

__all__ = ["BuildGatherer", "LogRequest", "wanted_log"]

_PROGRESS_LINES: Final = 10
"""Number of log lines that are read for the stage, because the library also writes lines after it."""
_NO_LONGER_READ: Final = 512


@dataclass(frozen=True, kw_only=True)
class LogRequest:
    """A log that helps to decide. `is_final`: the reason of a failure, and no progress."""

    pod: str
    container: str
    lines: int
    is_final: bool


class BuildGatherer:
    """Makes snapshots."""

    def __init__(
        self,
        *,
        api: Api,
        cache: ObjectCache,
        explanations: Explanations,
        gpus: GpuUse | None = None,
        wall_clock: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._cache = cache
        self._explanations = explanations
        self._wall_clock = wall_clock
        self._clock = clock
        self._read_at: dict[str, float] = {}
        policies = PolicyReader(cache)
        self._turns = BuildTurns(cache, policies, gpus or GpuUse(cache, policies))

    def forget(self, uid: str) -> None:
        """Forget a build that is deleted."""
        self._read_at.pop(uid, None)

    async def gather(self, build: EngineBuild) -> tuple[BuildSnapshot, float | None]:
        """Return what a pass over `build` needs, and in how many seconds events may say more; None: never."""
        snapshot = await self._with_log(self._seen(build))
        owner = build.metadata.uid or ""
        question = await self._explanations.learn(build.metadata.namespace or "", owner, snapshot.unexplained)
        return (snapshot if question is None else self._explained(snapshot)), question

    def _seen(self, build: EngineBuild) -> BuildSnapshot:
        name, namespace = build.metadata.name, build.metadata.namespace or ""
        found = self._cache.find(Address(JOB.kind, namespace, name))
        job: JobFacts | None = read_job(found.document()) if found is not None else None
        pods: list[PodFacts] = []
        if job is not None:
            labelled = self._cache.labelled(namespace, JOB_NAME, name)
            pods = [
                read_pod(one.document())
                for one in labelled
                if one.address.kind == POD.kind and one.controller is not None and one.controller.uid == job.uid
            ]
        return BuildSnapshot(
            build=build,
            job=job,
            pods=tuple(sorted(pods, key=lambda pod: (pod.created_at, pod.name))),
            held_back=self._turns.held_back(namespace, name) if job is None else None,
            now=self._wall_clock(),
        )

    async def _with_log(self, snapshot: BuildSnapshot) -> BuildSnapshot:
        wanted = wanted_log(snapshot)
        uid = snapshot.build.metadata.uid or ""
        if wanted is None:
            self._read_at.pop(uid, None)
            return snapshot
        if not wanted.is_final and self._clock() - self._read_at.get(uid, float("-inf")) < EARLY_PROGRESS_SECONDS:
            return snapshot
        self._read_at[uid] = self._clock()
        namespace = snapshot.build.metadata.namespace or ""
        try:
            log = await self._api.read_log(namespace, wanted.pod, wanted.container, lines=wanted.lines)
        except LeaseLostError:
            raise
        except ClusterError:
            # A kubelet that does not answer must not keep a status from being written.
            return snapshot
        return replace(snapshot, log=tuple(bounded_line(line, _NO_LONGER_READ) for line in log))

    def _explained(self, snapshot: BuildSnapshot) -> BuildSnapshot:
        """Add what events say of a Job without a pod, or of a pod that does not begin."""
        owner, job = snapshot.build.metadata.uid or "", snapshot.job
        return replace(
            snapshot,
            job=None if job is None else replace(job, refused=self._explanations.of(owner, job.uid)),
            pods=tuple(replace(pod, mount_failure=self._explanations.of(owner, pod.uid)) for pod in snapshot.pods),
        )


def wanted_log(snapshot: BuildSnapshot) -> LogRequest | None:
    """Return which log helps to decide this snapshot: one line of progress, or the last ones of a failure."""
    if snapshot.has_ended or snapshot.job is None or not snapshot.is_job_ours:
        return None
    container = snapshot.container
    if container is None:
        return None
    pod = snapshot.pods[-1]
    if container.running_since:
        # A metric's log is in no form that progress can be read from.
        is_ours = container.name != METRIC_CONTAINER
        asked = LogRequest(pod=pod.name, container=container.name, lines=_PROGRESS_LINES, is_final=False)
        return asked if is_ours else None
    is_over = snapshot.job.failure or pod.kept_alive_since(last_step(snapshot.build))
    if is_over and container.latest_ending is not None:
        return LogRequest(pod=pod.name, container=container.name, lines=20, is_final=True)
    return None
