"""The condition Conflict, and its events, where other clients change fields of the engine's objects. Pure.

`controller/shared/foreign_writers.py` finds the changes.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from enginesmith_operator.api.conditions import CONFLICT, ConditionStatus, StatusCondition
from enginesmith_operator.api.engine_status import EngineStatus
from enginesmith_operator.controller.inference_engine.snapshot import EngineSnapshot
from enginesmith_operator.controller.shared.conditions import Observation, find_condition, observed_conditions
from enginesmith_operator.controller.shared.decision import EventNote
from enginesmith_operator.controller.shared.foreign_writers import ForeignChange

__all__ = ["TOLD_SECONDS", "with_foreign_changes"]

TOLD_SECONDS: Final = 600.0
"""How long the status reports a change that was reverted at once."""
_REASON: Final = "ChangedByOthers"


def with_foreign_changes(
    status: EngineStatus, changes: Sequence[ForeignChange], snapshot: EngineSnapshot
) -> tuple[EngineStatus, tuple[EventNote, ...], float | None]:
    """Return the status with recent changes by others, their events, and in how many seconds they expire.

    A change that recurs is one event for as long as the status reports it.
    """
    before = find_condition(snapshot.status.conditions, CONFLICT)
    known = before if before is not None and before.reason == _REASON and _is_true(before) else None
    left = TOLD_SECONDS - _age_seconds(known, snapshot.now) if known is not None else 0.0
    if not changes and (known is None or left <= 0):
        return status, (), None
    message = "; ".join(one.sentence() for one in changes) or (known.message if known is not None else "")
    observed = Observation.of(CONFLICT, True, _REASON, message)
    # A conflict that ended and starts again counts from its new start.
    earlier = [known] if known is not None and left > 0 else []
    generation = snapshot.engine.metadata.generation
    (condition,) = observed_conditions([observed], earlier, generation=generation, now=snapshot.now)
    since = condition.last_transition_time
    events = tuple(EventNote(is_warning=True, reason=_REASON, message=one.sentence(), since=since) for one in changes)
    told = status.model_copy(update={"conditions": (*status.conditions, condition)})
    return told, events, TOLD_SECONDS - _age_seconds(condition, snapshot.now)


def _is_true(condition: StatusCondition) -> bool:
    return condition.status is ConditionStatus.TRUE


def _age_seconds(condition: StatusCondition, now: datetime) -> float:
    return (now - datetime.fromisoformat(condition.last_transition_time)).total_seconds()
