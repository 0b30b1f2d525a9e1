"""An exception that no code expected, as a condition and an event with the id under which the log has its traceback.

The id is a hash of the exception's type and place, so the same fault is reported once and writes nothing more.
"""

import logging
import traceback
from datetime import datetime
from hashlib import sha256
from pathlib import PurePath
from typing import Final, NamedTuple

from enginesmith_operator.api.conditions import INTERNAL_ERROR, READY, UP_TO_DATE
from enginesmith_operator.api.engine_build import EngineBuildStatus
from enginesmith_operator.api.engine_status import EngineStatus
from enginesmith_operator.cluster.client import Api
from enginesmith_operator.cluster.errors import ClusterError
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.shared.cache import Address, ObjectCache
from enginesmith_operator.controller.shared.conditions import Observation, find_condition, observed_conditions
from enginesmith_operator.controller.shared.decision import EventNote
from enginesmith_operator.controller.shared.events import write_events
from enginesmith_operator.controller.shared.status_document import read_status, write_status
from enginesmith_operator.controller.watch.intake import Intake
from enginesmith_operator.kinds import ENGINE_BUILD

__all__ = ["Fault", "FaultReporter", "fault_of", "status_with_fault"]

_LOGGER: Final = logging.getLogger(__name__)
_DIGITS: Final = 8
_PACKAGE: Final = "enginesmith_"

Status = EngineStatus | EngineBuildStatus


class Fault(NamedTuple):
    """An exception that no code expected.

    Attributes:
        id: eight hexadecimal digits, the same for the same exception at the same place.
        message: one line for people, the same while the fault recurs.
    """

    id: str
    message: str


def fault_of(error: Exception) -> Fault:
    """Return the message for an exception. The values in its own text may differ each time, so they stay in the log."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _PACKAGE in frame.filename] or list(frames)
    place = f"{PurePath(own[-1].filename).name}:{own[-1].lineno}" if own else "an unknown place"
    kind = type(error).__name__
    digest = sha256(f"{kind}\n{place}".encode()).hexdigest()[:_DIGITS]
    message = (
        f"the operator failed with {kind} at {place} (id {digest}); serving pods continue, and the operator tries "
        "again; report the traceback with this id from its log"
    )
    return Fault(digest, message)


def status_with_fault(before: Status, fault: Fault, *, generation: int | None, now: datetime) -> Status:
    """Return the previous status with the fault. `observedGeneration` stays, because the spec was not reconciled."""
    kinds = (READY, UP_TO_DATE) if isinstance(before, EngineStatus) else (READY,)
    told = [Observation.of(kind, False, INTERNAL_ERROR, fault.message) for kind in kinds]
    told.append(Observation.of(INTERNAL_ERROR, True, INTERNAL_ERROR, fault.message))
    *first, last = observed_conditions(told, before.conditions, generation=generation, now=now)
    kept = [one for one in before.conditions if one.type not in {*kinds, INTERNAL_ERROR}]
    return before.model_copy(update={"conditions": (*first, *kept, last)})


class FaultReporter:
    """Writes faults into the objects in which they occurred."""

    def __init__(self, *, api: Api, cache: ObjectCache, intake: Intake) -> None:
        self._api = api
        self._cache = cache
        self._intake = intake

    async def report(self, key: Address, fault: Fault, now: datetime) -> None:
        """Write event and condition. Errors are only logged, because the failed pass runs again anyway."""
        stored = self._cache.find(key)
        if stored is None:
            return
        try:
            await self._write(stored.document(), fault, now)
        except ClusterError as error:
            _LOGGER.warning("fault %s could not be written into %s: %s", fault.id, key.name, error)
        except Exception:
            # The report must not end the worker: the fault itself is in the log already.
            _LOGGER.exception("fault %s could not be written into %s", fault.id, key.name)

    async def _write(self, document: Json, fault: Fault, now: datetime) -> None:
        empty: Status = EngineBuildStatus() if document["kind"] == ENGINE_BUILD.kind else EngineStatus()
        before = read_status(type(empty), document, empty)
        status = status_with_fault(before, fault, generation=document["metadata"].get("generation"), now=now)
        was = find_condition(before.conditions, INTERNAL_ERROR)
        if was is None or was.message != fault.message:
            note = EventNote(is_warning=True, reason=INTERNAL_ERROR, message=fault.message)
            await write_events(self._api, document, (note,), now)
        written = await write_status(self._api, document, status)
        if written is not None:
            self._intake.take(written, False)
