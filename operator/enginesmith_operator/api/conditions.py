"""Conditions in the status of both kinds, and the meaning of each type.

InferenceEngine

| type | True means | False means | Unknown or absent means |
|---|---|---|---|
| Ready | every target that served before answers requests | the reason says what is missing | not evaluated yet |
| AllTargets | all targets that should serve answer requests | the first other one gives the reason | no status yet |
| UpToDate | all of them serve the engines of the current spec | the first other one gives the reason | no status yet |
| Planned | every target has a plan | the first target without a plan gives the reason | never planned |
| KeysResolved | source digest and engine keys are known | the model was not fetched yet | never planned |
| Prepared | the model is prepared | the preparation is running, waiting or failed | never planned |
| Built | every wanted engine is stored and verified | builds are running, waiting or failed | never planned |
| Serving | at least one target answers inference requests | no target does | never planned |
| UpdateAvailable | a newer toolchain in the version range is not used | - | no newer toolchain |
| NodesMissing | a target waits for nodes of a node class | - | no target waits for nodes |
| PrecisionFallback | a precision of `precision.fallback` replaces another one | - | the first precision is used |
| SpecInvalid | the spec passed admission but is invalid | - | the spec is valid |
| PolicyViolated | the spec or what serves has something that an EnginePolicy forbids | - | no policy forbids anything |
| Conflict | a required name belongs to another owner, or another client edits managed objects | - | no conflict |
| InternalError | the operator failed on this object; the message has the id of the log entry | - | no internal error |

EngineBuild

| type | True means | False means | Unknown or absent means |
|---|---|---|---|
| Ready | the engine is stored and may serve | the build is running, waiting or failed | not evaluated yet |
| Scheduled | the build's pod is assigned to a node | the pod waits; the reason says for what | no pod yet |
| InternalError | the operator failed on this object; the message has the id of the log entry | - | no internal error |

Ready, AllTargets, UpToDate, Planned, KeysResolved, Prepared, Built, Serving and Scheduled are good when True. The other
conditions report something that needs attention and are absent otherwise. Ready stays True while a new engine is built
or started, and while a standby or a removed target answers instead. A target that never served, or is Refused or
Failed, keeps AllTargets False, and keeps Ready False only if no other target answers. Messages are one line without
times, and stay the same while the same problem recurs. `enginesmith_contract/reasons.yaml` says what each reason means.
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
    "POLICY_VIOLATED",
    "PRECISION_FALLBACK",
    "PREPARED",
    "READY",
    "SCHEDULED",
    "SERVING",
    "SPEC_INVALID",
    "UPDATE_AVAILABLE",
    "UP_TO_DATE",
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
UP_TO_DATE: Final = "UpToDate"
UPDATE_AVAILABLE: Final = "UpdateAvailable"
NODES_MISSING: Final = "NodesMissing"
PRECISION_FALLBACK: Final = "PrecisionFallback"
SPEC_INVALID: Final = "SpecInvalid"
POLICY_VIOLATED: Final = "PolicyViolated"
CONFLICT: Final = "Conflict"
INTERNAL_ERROR: Final = "InternalError"
SCHEDULED: Final = "Scheduled"

MAX_CONDITIONS: Final = 32
MAX_MESSAGE: Final = 4096
"""Maximum length of a condition's message, in characters."""


def _check_timestamp(value: str) -> str:
    """Refuse a time that the API server accepts and Python cannot parse: the year 0, an offset of 99 hours."""
    if datetime.fromisoformat(value).tzinfo is None:
        raise finding_error(Finding("expected a time with its offset from UTC, such as 2026-11-23T12:00:00Z"))
    return value


Timestamp = Annotated[
    str,
    AfterValidator(_check_timestamp),
    WithJsonSchema({"type": "string", "format": "date-time", "maxLength": 64}),
]
"""Time as in RFC 3339, in UTC and whole seconds."""


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class StatusCondition(ApiModel):
    """One observation of an object's state.

    Attributes:
        type: Condition type in CamelCase, such as `Ready`. Each type occurs once.
        status: Whether the condition holds: `True`, `False` or `Unknown`.
        observed_generation: Value of `metadata.generation` that the condition was computed from.
        last_transition_time: Time at which `status` last changed.
        reason: One CamelCase word for programs that says why the condition has this status.
        message: One line of text for people that explains the reason.
    """

    type: Annotated[str, Field(min_length=1, max_length=316)]
    status: ConditionStatus
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    last_transition_time: Timestamp
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    message: Annotated[str, Field(max_length=MAX_MESSAGE)] = ""
