"""One pass over an InferenceEngine: gather what was seen, decide, carry it out."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic import ValidationError

from enginesmith_contract.errors import SpecError
from enginesmith_operator.api.conditions import READY, SPEC_INVALID, ConditionStatus
from enginesmith_operator.api.engine_status import EngineStatus
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.cluster.client import Api
from enginesmith_operator.cluster.errors import ObjectExistsError, RefusedObjectError
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.inference_engine.decide import (
    EngineDecision,
    decide_engine,
    resolve_engine,
    wanted_keys,
)
from enginesmith_operator.controller.inference_engine.gather import Gatherer
from enginesmith_operator.controller.inference_engine.snapshot import EngineSnapshot
from enginesmith_operator.controller.inference_engine.status import (
    not_up_to_date,
    obstacle_events,
    with_conflict,
    with_refusal,
)
from enginesmith_operator.controller.shared.adoption import adopted, may_adopt, orphan_names
from enginesmith_operator.controller.shared.cache import Address, ObjectCache
from enginesmith_operator.controller.shared.conditions import Observation, bounded_line, find_condition
from enginesmith_operator.controller.shared.events import write_events
from enginesmith_operator.controller.shared.explanations import Explanations
from enginesmith_operator.controller.shared.status_document import read_status, write_status
from enginesmith_operator.controller.shared.waiting import unexplained_job, unexplained_pod
from enginesmith_operator.controller.watch.intake import Intake
from enginesmith_operator.kinds import ENGINE_BUILD, resource_of
from enginesmith_operator.objects.labels import ENGINE

__all__ = ["EngineReconciler", "read_engine"]

# No watch reports that an object of another owner was deleted: of most kinds the operator watches only its own.
_NAME_TAKEN_SECONDS: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class _Taken:
    """An object that has a name of the operator and does not belong to it."""

    name: str
    is_leftover: bool


class EngineReconciler:
    """Creates the objects that an InferenceEngine asks for, and writes its status."""

    def __init__(
        self,
        *,
        api: Api,
        cache: ObjectCache,
        intake: Intake,
        gatherer: Gatherer,
        explanations: Explanations,
        wall_clock: Callable[[], datetime],
    ) -> None:
        self._api = api
        self._cache = cache
        self._intake = intake
        self._gatherer = gatherer
        self._explanations = explanations
        self._wall_clock = wall_clock
        self._ready: dict[Address, str] = {}

    async def reconcile(self, key: Address) -> float | None:
        """Make one pass; return in how many seconds the next one is wanted, None: when something changes.

        Raises:
            enginesmith_operator.cluster.errors.ClusterError: the server refused, or was not reached.
        """
        stored = self._cache.find(key)
        if stored is None:
            self._ready.pop(key, None)
            return None
        document = stored.document()
        if "deletionTimestamp" in document["metadata"]:
            # The garbage collector deletes what the engine owns; an object that is made now becomes an orphan.
            return None
        engine = read_engine(document)
        if isinstance(engine, SpecError):
            now = self._wall_clock()
            before = read_status(EngineStatus, document, EngineStatus())
            await self._say(document, before, _invalid_status(before, document, engine, now), now)
            return None
        snapshot = self._gatherer.gather(document, engine)
        uid, waiting = document["metadata"]["uid"], unexplained(snapshot)
        question = await self._explanations.learn(key.namespace, uid, waiting)
        if question is not None:
            # The result is in the facts of its Job or pod.
            snapshot = self._gatherer.gather(document, engine)
        resolution = resolve_engine(snapshot)
        snapshot = self._gatherer.with_others(snapshot, wanted_keys(resolution))
        decision = decide_engine(snapshot, resolution)
        self._gatherer.promise(snapshot, decision.gpus)
        try:
            taken = await self._act(document, decision)
        except RefusedObjectError as error:
            refused = with_refusal(decision.status, error.sentence(), snapshot)
            await self._say(document, snapshot.status, refused, snapshot.now)
            raise
        await write_events(self._api, document, decision.events, snapshot.now)
        foreign = tuple(one.name for one in taken if not one.is_leftover)
        if foreign:
            # Also objects that are not needed yet, so that all conflicts are named at once.
            named = [one.document() for one in self._cache.labelled(key.namespace, ENGINE, key.name)]
            foreign = tuple(dict.fromkeys((*foreign, *orphan_names(named, key.name))))
        status = with_conflict(decision.status, foreign, snapshot)
        await self._say(document, snapshot.status, status, snapshot.now)
        waits = (decision.requeue_seconds, question, _NAME_TAKEN_SECONDS if taken else None)
        return min((seconds for seconds in waits if seconds is not None), default=None)

    def ready_counts(self) -> Counter[str]:
        """Return the number of engines by the status of their Ready condition; the metrics' thread also calls this."""
        return Counter(list(self._ready.values()))

    async def _act(self, document: Json, decision: EngineDecision) -> tuple[_Taken, ...]:
        """Do the writes; return the names of the operator's objects that objects of other owners have."""
        for deletion in decision.deletes:
            address = deletion.address
            await self._api.delete(resource_of(address.kind), address.namespace, address.name, uid=deletion.uid)
        created = [await self._create(one, document) for one in decision.creates]
        applied = [await self._apply(one, document) for one in decision.applies]
        return tuple(one for one in (*created, *applied) if one is not None)

    async def _create(self, desired: Json, engine: Json) -> _Taken | None:
        """Create an object that never changes; report it where an object of another owner has its name."""
        metadata = desired["metadata"]
        try:
            made: Json | None = await self._api.create(desired)
        except ObjectExistsError:
            made = await self._api.get(resource_of(desired["kind"]), metadata["namespace"], metadata["name"])
            if made is not None and not _is_owned(made, engine):
                if not may_adopt(made, desired):
                    return _taken(made, engine)
                made = await self._api.apply(adopted(made, desired))
        if made is not None:
            self._intake.take(made, False)
        return None

    async def _apply(self, desired: Json, engine: Json) -> _Taken | None:
        """Apply an object after a check that its name is free; report it where an object of another owner has it."""
        metadata = desired["metadata"]
        address = Address(desired["kind"], metadata["namespace"], metadata["name"])
        known = self._cache.find(address)
        live = known.document() if known is not None else None
        if live is None:
            live = await self._api.get(resource_of(address.kind), address.namespace, address.name)
        if live is not None:
            is_ours = address.kind == ENGINE_BUILD.kind or _is_owned(live, engine) or may_adopt(live, desired)
            if not is_ours:
                return _taken(live, engine)
            # With the uid, the apply fails if another object took the name meanwhile.
            desired = {**desired, "metadata": {**metadata, "uid": live["metadata"]["uid"]}}
        self._intake.take(await self._api.apply(desired), False)
        return None

    async def _say(self, document: Json, before: EngineStatus, status: EngineStatus, now: datetime) -> None:
        """Write the status, and an event if it newly says that the engine cannot be reconciled."""
        await write_events(self._api, document, obstacle_events(before, status), now)
        await self._write_status(document, status)

    async def _write_status(self, document: Json, status: EngineStatus) -> None:
        metadata = document["metadata"]
        ready = find_condition(status.conditions, READY)
        address = Address(document["kind"], metadata["namespace"], metadata["name"])
        self._ready[address] = ready.status.value if ready is not None else ConditionStatus.UNKNOWN.value
        written = await write_status(self._api, document, status)
        if written is not None:
            self._intake.take(written, False)


def read_engine(document: Json) -> InferenceEngine | SpecError:
    """Return the InferenceEngine, or what is wrong in a document that admission let through."""
    try:
        return InferenceEngine.model_validate({**document, "status": None}, by_name=False)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return SpecError(f"{first['msg']}{more}", where=".".join(str(step) for step in first["loc"]))


def _invalid_status(before: EngineStatus, document: Json, error: SpecError, now: datetime) -> EngineStatus:
    """Return the previous status with the error added; what serves continues and is not changed."""
    generation = document["metadata"].get("generation")
    message = bounded_line(error.sentence())
    invalid = Observation.of(SPEC_INVALID, True, "SpecInvalid", message)
    status = before.model_copy(update={"observed_generation": generation})
    return not_up_to_date(status, "SpecInvalid", message, before, now, also=(invalid,))


def unexplained(snapshot: EngineSnapshot) -> tuple[str, ...]:
    """Return the uids of objects that wait without a reason: Jobs without a pod, pods that do not start."""
    prepared = [
        uid
        for name, job in snapshot.preparation_jobs.items()
        for pods in (snapshot.preparation_pods.get(name, ()),)
        for uid in (unexplained_job(job, pods), unexplained_pod(pods))
    ]
    return (*prepared, *(unexplained_pod(pods) for pods in snapshot.pods.values()))


def _is_owned(document: Json, engine: Json) -> bool:
    uid = engine["metadata"]["uid"]
    return any(owner["uid"] == uid for owner in document["metadata"].get("ownerReferences") or ())


def _taken(document: Json, engine: Json) -> _Taken:
    """Return which object has the operator's name; one of an earlier engine of that name is about to be deleted."""
    address = (engine["kind"], engine["metadata"]["name"])
    owners = document["metadata"].get("ownerReferences") or ()
    return _Taken(
        name=f"{document['kind']} {document['metadata']['name']}",
        is_leftover=any((owner["kind"], owner["name"]) == address for owner in owners),
    )
