"""One pass over an EngineBuild: gather what was seen, decide, carry it out."""

from dataclasses import replace
from datetime import datetime

from pydantic import ValidationError

from enginesmith_operator.api.conditions import READY
from enginesmith_operator.api.engine_build import BuildFailure, BuildPhase, EngineBuild, EngineBuildStatus
from enginesmith_operator.cluster.client import Api
from enginesmith_operator.cluster.errors import ObjectExistsError, RefusedObjectError
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.engine_build.decide import BuildDecision, decide_build, refused_build
from enginesmith_operator.controller.engine_build.gather import BuildGatherer
from enginesmith_operator.controller.shared.adoption import adopted, may_adopt
from enginesmith_operator.controller.shared.cache import Address, ObjectCache
from enginesmith_operator.controller.shared.conditions import Observation, bounded_line, observed_conditions
from enginesmith_operator.controller.shared.events import write_events
from enginesmith_operator.controller.shared.metrics import Metrics
from enginesmith_operator.controller.shared.pod_facts import JobFacts, read_job
from enginesmith_operator.controller.shared.status_document import read_status, write_status
from enginesmith_operator.controller.watch.intake import Intake
from enginesmith_operator.kinds import JOB
from enginesmith_operator.objects.build_job import build_job
from enginesmith_operator.objects.pod_rules import DEFAULT_RULES, PodRules

__all__ = ["BuildReconciler"]


class BuildReconciler:
    """Creates an EngineBuild's Job, and writes the status from the state of the Job."""

    def __init__(
        self,
        *,
        api: Api,
        cache: ObjectCache,
        intake: Intake,
        metrics: Metrics,
        gatherer: BuildGatherer,
        rules: PodRules = DEFAULT_RULES,
    ) -> None:
        self._api = api
        self._cache = cache
        self._intake = intake
        self._metrics = metrics
        self._gatherer = gatherer
        self._rules = rules

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
            self._gatherer.forget(stored.uid)
            return None
        build = read_build(document)
        if isinstance(build, EngineBuildStatus):
            await self._write_status(document, build)
            return None
        snapshot, question = await self._gatherer.gather(build)
        decision = decide_build(snapshot)
        try:
            if decision.create_job and (found := await self._create_job(build)) is not None:
                decision = decide_build(replace(snapshot, job=found))
        except RefusedObjectError as error:
            await self._write(document, refused_build(snapshot, error.sentence()), snapshot.now)
            raise
        if decision.delete_job:
            await self._api.delete(JOB, key.namespace, key.name, uid=decision.delete_job)
        self._count(build.status, decision.status, build)
        waits = (await self._write(document, decision, snapshot.now), question)
        return min((seconds for seconds in waits if seconds is not None), default=None)

    async def _create_job(self, build: EngineBuild) -> JobFacts | None:
        """Create the Job; return an existing Job of another owner that has its name."""
        namespace, name = build.metadata.namespace or "", build.metadata.name
        desired = build_job(build, self._rules)
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

    async def _write(self, document: Json, decision: BuildDecision, now: datetime) -> float | None:
        await write_events(self._api, document, decision.events, now)
        await self._write_status(document, decision.status)
        return decision.requeue_seconds

    async def _write_status(self, document: Json, status: EngineBuildStatus) -> None:
        written = await write_status(self._api, document, status)
        if written is not None:
            self._intake.take(written, False)

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


def read_build(document: Json) -> EngineBuild | EngineBuildStatus:
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
