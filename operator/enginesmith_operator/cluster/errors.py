"""What the API server answered, as errors that say how they are handled; the one place that reads its status codes.

ClusterError             unexpected: logged with its sentence, tried again with a growing delay
├── MissingObjectError    404; often the wanted state
├── ConflictError         409 on an update: another client was faster; read again, report nothing
├── ObjectExistsError     409 on a create: it is there
├── RefusedObjectError    400, 403, 422: what we sent or may do is wrong; a person has to read the sentence
├── ClusterUnavailableError   429, 5xx, no answer: wait; `retry_after_seconds` where the server says how long
└── LeaseLostError        this process may not write any more
"""

import json
from collections.abc import Mapping
from typing import Final

from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.text import one_line

__all__ = [
    "ClusterError",
    "ClusterUnavailableError",
    "ConflictError",
    "ExpiredListError",
    "LeaseLostError",
    "MissingObjectError",
    "ObjectExistsError",
    "RefusedObjectError",
    "error_from_response",
    "unreachable_error",
]

_LONGEST_WHY: Final = 1024
_NO_RIGHT: Final = " cannot "
_UID: Final = "metadata.uid"
_MISSING: Final = 404
_CONFLICT: Final = 409
_GONE: Final = 410
_FORBIDDEN: Final = 403
_REFUSED: Final = frozenset({400, 403, 405, 406, 413, 415, 422})


class ClusterError(EnginesmithError):
    """A request to the API server failed."""

    default_reason = "ClusterFailed"


class ExpiredListError(ClusterError):
    """A listing took so long that its next page is not there any more."""

    default_reason = "Expired"


class MissingObjectError(ClusterError):
    """The object is not there, or nothing of its kind can be."""

    default_reason = "NotFound"


class ConflictError(ClusterError):
    """The object changed since it was read."""

    default_reason = "Conflict"


class ObjectExistsError(ClusterError):
    """An object of that name is there."""

    default_reason = "AlreadyExists"


class RefusedObjectError(ClusterError):
    """The server will not take the request, however often it comes."""

    default_reason = "Refused"


class ClusterUnavailableError(ClusterError):
    """No answer, or "later".

    Attributes:
        retry_after_seconds: what the server asks for; None: it does not say.
    """

    default_reason = "ClusterUnavailable"
    retry_after_seconds: float | None = None


class LeaseLostError(ClusterError):
    """A write was stopped, since another replica may lead by now."""

    default_reason = "LeaseLost"


def error_from_response(status: int, body: bytes, headers: Mapping[str, str], *, where: str) -> ClusterError:
    """Return the error of an answer that is no success.

    Args:
        status: HTTP status code.
        body: a Kubernetes Status as JSON, or whatever a proxy wrote.
        headers: of the answer.
        where: verb, kind, namespace and name.
    """
    reason, why, fields = _words(body)
    if status == _MISSING:
        return MissingObjectError("it is not there", where=where, why=why)
    if status == _GONE:
        return ExpiredListError("the listing took too long", where=where, why=why)
    if status == _CONFLICT or _UID in fields:
        # An apply with the uid of an object that was replaced since gets the answer that a uid cannot be changed.
        kind = ObjectExistsError if reason == "AlreadyExists" else ConflictError
        return kind("the object has changed in the API server", where=where, why=why)
    if status in _REFUSED:
        # A missing permission is the administrator's to give; a quota, a policy and all else is in the sentence.
        lacks_right = status == _FORBIDDEN and _NO_RIGHT in why
        remedy = "give the operator's ServiceAccount this permission" if lacks_right else ""
        return RefusedObjectError("the API server refuses it", where=where, why=why, remedy=remedy, reason=reason)
    error = ClusterUnavailableError(f"the API server returns {status}", where=where, why=why, retry=True)
    error.retry_after_seconds = _seconds(headers.get("Retry-After", ""))
    return error


def unreachable_error(error: Exception, *, where: str) -> ClusterUnavailableError:
    """Return the error of a request that got no answer."""
    why = f"{type(error).__name__}: {error}".strip(": ")
    return ClusterUnavailableError("the API server does not respond", where=where, why=why, retry=True)


def _words(body: bytes) -> tuple[str, str, tuple[str, ...]]:
    """Return reason, message and the fields in question of a Kubernetes Status, or the text itself."""
    try:
        status = json.loads(body)
    except ValueError:
        return "", one_line(body.decode(errors="replace"))[:_LONGEST_WHY], ()
    if not isinstance(status, dict):
        return "", "", ()
    causes = (status.get("details") or {}).get("causes") or ()
    message = one_line(str(status.get("message") or ""))[:_LONGEST_WHY]
    return str(status.get("reason") or ""), message, tuple(str(cause.get("field")) for cause in causes)


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdecimal() else None
