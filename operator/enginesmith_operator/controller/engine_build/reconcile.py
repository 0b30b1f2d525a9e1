"""One pass over an EngineBuild: gather what was seen, decide, carry it out."""

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime
from typing import Final

from pydantic import ValidationError

from enginesmith_operator.api.conditions import READY
from enginesmith_operator.api.engine_build import BuildFailure, BuildPhase, EngineBuild, EngineBuildStatus
from enginesmith_operator.cluster.client import Api
from enginesmith_operator.cluster.errors import ClusterError, LeaseLostError, ObjectExistsError, RefusedObjectError
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.engine_build.decide import (
    PROGRESS_SECONDS,
    BuildDecision,
    BuildSnapshot,
    decide_build,
    log_wish,
    refused_build,
    unexplained,
)
from enginesmith_operator.controller.shared.adoption import adopted, may_adopt
from enginesmith_operator.controller.shared.cache import Address, ObjectCache
from enginesmith_operator.controller.shared.conditions import Observation, bounded_line, observed_conditions
from enginesmith_operator.controller.shared.events import write_events
from enginesmith_operator.controller.shared.explanations import Explanations
from enginesmith_operator.controller.shared.metrics import Metrics
from enginesmith_operator.controller.shared.pod_facts import JobFacts, PodFacts, read_job, read_pod
from enginesmith_operator.controller.shared.status_document import read_status, write_status
from enginesmith_operator.controller.watch.intake import JOB_NAME, Intake
from enginesmith_operator.kinds import JOB, POD
from enginesmith_operator.objects.build_job import BUILD_CONTAINER, build_job

__all__ = ["BuildReconciler"]

_NO_LONGER_READ: Final = 512


class BuildReconciler:
    """Makes an EngineBuild's Job, and its status of what the Job says."""

    def __init__(
        self,
        *,
        api: Api,
        cache: ObjectCache,
        intake: Intake,
        metrics: Metrics,
        explanations: Explanations,
        wall_clock: Callable[[], datetime],
        allowed_plugins: Collection[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._cache = cache
        self._intake = intake
        self._metrics = metrics
        self._explanations = explanations
        self._wall_clock = wall_clock
        self._allowed_plugins = allowed_plugins
        self._clock = clock
        self._read_at: dict[str, float] = {}

    async def reconcile(self, key: Address) -> float | None:
        """Make one pass; return in how many seconds the next one is wanted, None: when something changes.

        Raises:
            enginesmith_operator.cluster.errors.ClusterError: the server refused, or was not reached.
        """
        stored = self._cache.find(key)
        if stored is None:
            return None
        document = stored.document()
        if "deletionTimestamp" in document["metadata"]:
            self._read_at.pop(stored.uid, None)
            return None
        build = _read_build(document)
        if isinstance(build, EngineBuildStatus):
            return await self._write(document, BuildDecision(status=build))
        snapshot = await self._with_log(self._gather(build))
        waiting = unexplained(snapshot)
        question = await self._explanations.learn(key.namespace, stored.uid, waiting)
        if question is not None:
            snapshot = self._explained(snapshot)
        decision = decide_build(snapshot)
        try:
            if decision.create_job and (found := await self._create_job(build)) is not None:
                decision = decide_build(replace(snapshot, job=found))
        except RefusedObjectError as error:
            await self._write(document, refused_build(snapshot, error.sentence()))
            raise
        if decision.delete_job:
            await self._api.delete(JOB, key.namespace, key.name, uid=decision.delete_job)
        self._count(build.status, decision.status, build)
        waits = (await self._write(document, decision), question)
        return min((seconds for seconds in waits if seconds is not None), default=None)

    def _explained(self, snapshot: BuildSnapshot) -> BuildSnapshot:
        """Add what events say of a Job without a pod, or of a pod that does not begin."""
        owner, job = snapshot.build.metadata.uid or "", snapshot.job
        return replace(
            snapshot,
            job=None if job is None else replace(job, refused=self._explanations.of(owner, job.uid)),
            pods=tuple(replace(pod, mount_failure=self._explanations.of(owner, pod.uid)) for pod in snapshot.pods),
        )

    def _gather(self, build: EngineBuild) -> BuildSnapshot:
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
            now=self._wall_clock(),
        )

    async def _with_log(self, snapshot: BuildSnapshot) -> BuildSnapshot:
        wish = log_wish(snapshot)
        uid = snapshot.build.metadata.uid or ""
        if wish is None:
            self._read_at.pop(uid, None)
            return snapshot
        if not wish.is_final and self._clock() - self._read_at.get(uid, float("-inf")) < PROGRESS_SECONDS:
            return snapshot
        self._read_at[uid] = self._clock()
        namespace = snapshot.build.metadata.namespace or ""
        try:
            log = await self._api.read_log(namespace, wish.pod, BUILD_CONTAINER, lines=wish.lines)
        except LeaseLostError:
            raise
        except ClusterError:
            # A kubelet that does not answer must not keep a status from being written.
            return snapshot
        return replace(snapshot, log=tuple(bounded_line(line, _NO_LONGER_READ) for line in log))

    async def _create_job(self, build: EngineBuild) -> JobFacts | None:
        """Create the Job; return the one that has its name already and is not ours."""
        namespace, name = build.metadata.namespace or "", build.metadata.name
        desired = build_job(build, self._allowed_plugins)
        try:
            made: Json | None = await self._api.create(desired)
        except ObjectExistsError:
            made = await self._api.get(JOB, namespace, name)
            if made is not None and read_job(made).controller_uid != build.metadata.uid:
                if not may_adopt(made, desired):
                    return read_job(made)
                made = await self._api.apply(adopted(made, desired))
        if made is not None:
            self._intake.take(made, False)
        return None

    async def _write(self, document: Json, decision: BuildDecision) -> float | None:
        await write_events(self._api, document, decision.events, self._wall_clock())
        written = await write_status(self._api, document, decision.status)
        if written is not None:
            self._intake.take(written, False)
        return decision.requeue_seconds

    def _count(self, before: EngineBuildStatus, after: EngineBuildStatus, build: EngineBuild) -> None:
        if before.phase is after.phase:
            return
        if after.phase is BuildPhase.SUCCEEDED:
            self._metrics.builds.labels("succeeded").inc()
            if after.duration_seconds is not None:
                backend = build.spec.request.toolchain.backend.value
                self._metrics.build_seconds.labels(backend).observe(after.duration_seconds)
        elif after.phase is BuildPhase.FAILED and after.failure is not None:
            self._metrics.builds.labels(after.failure.reason).inc()


def _read_build(document: Json) -> EngineBuild | EngineBuildStatus:
    """Return the EngineBuild; where its spec cannot be read, the status that says so."""
    try:
        build = EngineBuild.model_validate({**document, "status": {}}, by_name=False)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = bounded_line(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        before = read_status(EngineBuildStatus, document, EngineBuildStatus())
        generation = document["metadata"].get("generation")
        observation = Observation.of(READY, False, "SpecInvalid", message)
        now = datetime.fromisoformat(document["metadata"]["creationTimestamp"])
        return EngineBuildStatus(
            observed_generation=generation,
            phase=BuildPhase.FAILED,
            failure=BuildFailure(reason="SpecInvalid", message=message),
            conditions=observed_conditions((observation,), before.conditions, generation=generation, now=now),
        )
    return build.model_copy(update={"status": read_status(EngineBuildStatus, document, EngineBuildStatus())})
