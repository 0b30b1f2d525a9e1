"""Conditions as both kinds' statuses hold them, and what each type means.

InferenceEngine

| type | True means | False means | Unknown or absent means |
|---|---|---|---|
| Ready | a target serves, and every other that can does too | the reason says what is missing | not looked at yet |
| AllTargets | every target that is to serve does, as wanted | the reason of the first that does not | no status yet |
| Planned | every target has a plan | at least one has none; the reason of the first is shown | never planned |
| KeysResolved | source digest and keys are known | pending: the model was not fetched yet | never planned |
| Prepared | the model is prepared | the preparation runs, waits or failed | never planned |
| Built | every wanted engine is stored and verified | builds run, wait or failed | never planned |
| Serving | at least one target answers inferences | none does | never planned |
| UpdateAvailable | a newer toolchain is in range and not used | - | nothing newer |
| NodesMissing | a target waits for nodes of a node class | - | nodes are there |
| SpecInvalid | what admission let through is wrong | - | the spec can be read |
| Conflict | an object with a name of ours belongs to somebody else, or somebody else changes ours | - | there is none |
| InternalError | the operator failed at this object; the log has the id that the message names | - | it did not |

EngineBuild

| type | True means | False means | Unknown or absent means |
|---|---|---|---|
| Ready | the engine is in the store and may serve | the build runs, waits or failed | not looked at yet |
| Scheduled | the build's pod has a node | it waits; the reason says for what | no pod yet |
| InternalError | the operator failed at this object; the log has the id that the message names | - | it did not |

Ready, AllTargets, Planned, KeysResolved, Prepared, Built, Serving and Scheduled are good when True; the others tell
something and are absent otherwise. A target that is Refused or Failed keeps AllTargets False, and Ready only where no
other target serves. Messages are one line, hold no time, and stay as they are while the same thing recurs.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, Field, WithJsonSchema

from enginesmith_operator.api.base import ApiModel, Finding, finding_error

__all__ = [
    "ALL_TARGETS",
    "BUILT",
    "CONFLICT",
    "INTERNAL_ERROR",
    "KEYS_RESOLVED",
    "MAX_CONDITIONS",
    "MAX_MESSAGE",
    "NODES_MISSING",
    "PLANNED",
    "PREPARED",
    "READY",
    "SCHEDULED",
    "SERVING",
    "SPEC_INVALID",
    "UPDATE_AVAILABLE",
    "ConditionStatus",
    "StatusCondition",
    "Timestamp",
]

READY: Final = "Ready"
ALL_TARGETS: Final = "AllTargets"
PLANNED: Final = "Planned"
KEYS_RESOLVED: Final = "KeysResolved"
PREPARED: Final = "Prepared"
BUILT: Final = "Built"
SERVING: Final = "Serving"
UPDATE_AVAILABLE: Final = "UpdateAvailable"
NODES_MISSING: Final = "NodesMissing"
SPEC_INVALID: Final = "SpecInvalid"
CONFLICT: Final = "Conflict"
INTERNAL_ERROR: Final = "InternalError"
SCHEDULED: Final = "Scheduled"

MAX_CONDITIONS: Final = 32
MAX_MESSAGE: Final = 4096
"""Letters of one condition's message."""


def _check_timestamp(value: str) -> str:
    """Refuse a moment that the API server lets through and Python cannot read: the year 0, an offset of 99 hours."""
    if datetime.fromisoformat(value).tzinfo is None:
        raise finding_error(Finding("expected a moment with its offset from UTC, such as 2026-11-23T12:00:00Z"))
    return value


Timestamp = Annotated[
    str,
    AfterValidator(_check_timestamp),
    WithJsonSchema({"type": "string", "format": "date-time", "maxLength": 64}),
]
"""RFC 3339, UTC, whole seconds."""


class ConditionStatus(StrEnum):
    """Whether what the type names holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class StatusCondition(ApiModel):
    """One observation; see `kubectl explain` of the kind for the types.

    Attributes:
        type: what is observed, in CamelCase; one of each.
        status: whether it holds.
        observed_generation: of the object that was looked at.
        last_transition_time: when `status` last changed.
        reason: one CamelCase word for programs.
        message: one line for people.
    """

    type: Annotated[str, Field(min_length=1, max_length=316)]
    status: ConditionStatus
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    last_transition_time: Timestamp
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    message: Annotated[str, Field(max_length=MAX_MESSAGE)] = ""
