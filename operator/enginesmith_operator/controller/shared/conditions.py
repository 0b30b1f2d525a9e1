"""Conditions with their times: a time changes only where the status does, and lists come in one order."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from enginesmith_contract.text import one_line
from enginesmith_operator.api.conditions import MAX_MESSAGE, ConditionStatus, StatusCondition

__all__ = ["Observation", "bounded_line", "find_condition", "observed_conditions", "timestamp"]

_CUT: Final = "..."


@dataclass(frozen=True, kw_only=True)
class Observation:
    """A condition as a pass sees it, without its times."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""

    @classmethod
    def of(cls, kind: str, holds: bool, reason: str, message: str = "") -> "Observation":  # noqa: FBT001 - reads as the condition does
        """Return an observation that is certain."""
        status = ConditionStatus.TRUE if holds else ConditionStatus.FALSE
        return cls(type=kind, status=status, reason=reason, message=bounded_line(message))


def observed_conditions(
    observations: Iterable[Observation], before: Iterable[StatusCondition], *, generation: int | None, now: datetime
) -> tuple[StatusCondition, ...]:
    """Return the conditions of a status, in the order of the observations; what is not observed any more is left out.

    Args:
        observations: one of each type.
        before: of the status that is there.
        generation: of the spec that was looked at.
        now: for those whose status changed.
    """
    known = {one.type: one for one in before}
    return tuple(
        StatusCondition(
            type=one.type,
            status=one.status,
            observed_generation=generation,
            last_transition_time=_transition(one, known.get(one.type), now),
            reason=one.reason,
            message=one.message,
        )
        for one in observations
    )


def find_condition(conditions: Iterable[StatusCondition], kind: str) -> StatusCondition | None:
    """Return the condition of a type."""
    return next((one for one in conditions if one.type == kind), None)


def timestamp(moment: datetime) -> str:
    """Return a moment as statuses write it: UTC, whole seconds."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def bounded_line(text: str, limit: int = MAX_MESSAGE) -> str:
    """Return a text as one line of at most `limit` characters."""
    line = one_line(text)
    return line if len(line) <= limit else line[: limit - len(_CUT)] + _CUT


def _transition(one: Observation, before: StatusCondition | None, now: datetime) -> str:
    if before is not None and before.status is one.status:
        return before.last_transition_time
    return timestamp(now)
