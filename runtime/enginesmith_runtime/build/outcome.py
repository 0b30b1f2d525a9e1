"""What a build's termination message says, of success and of failure."""

from typing import Final

from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.termination import BuildOutcome, TerminationMessage
from enginesmith_contract.text import shorten
from enginesmith_contract.verification import Verification
from enginesmith_runtime.pod.termination import encode_termination

__all__ = ["encode_outcome", "failure_message", "success_message"]

_MAX_PROFILES: Final = 16
_LONGEST_WARNING: Final = 1000


def success_message(manifest: Manifest) -> TerminationMessage:
    """Return what there is to say of a stored engine."""
    verification = manifest.verification
    differences = [one.difference for one in verification.differences]
    verdict = verification.metric_verdict
    said = (verification.reason, verdict.sentence() if verdict else "", *(verification.alarms or ()), *manifest.notes)
    latency = sorted(manifest.timings.latency_seconds.items())[:_MAX_PROFILES]
    return TerminationMessage(
        outcome=BuildOutcome.SUCCEEDED,
        exit_code=ExitCode.OK,
        engine_key=manifest.engine_key,
        engine_digest=manifest.engine_digest,
        message="; ".join(part for part in said if part),
        build_seconds=manifest.timings.build_seconds,
        verification=verification.status,
        difference=max(differences, default=None),
        agreement=verification.least_agreement,
        judged_on=verification.judged_on,
        warning=shorten(_warning(verification), _LONGEST_WARNING) or None,
        metric=None if verdict is None else verdict.value,
        size_bytes=sum(file.size_bytes for file in manifest.files),
        latency_seconds=dict(latency),
        timing_cache=manifest.timings.timing_cache,
    )


def _warning(verification: Verification) -> str:
    """Return what a pass does not show, and measures that look wrong."""
    alarms = (f"alarm: {alarm}" for alarm in verification.alarms or ())
    return "; ".join(part for part in (verification.reason, *alarms) if part)


def failure_message(error: EnginesmithError, request: BuildRequest | None) -> TerminationMessage:
    """Return what there is to say of a failure; `request` is None where it could not be read."""
    return TerminationMessage(
        outcome=BuildOutcome.FAILED,
        exit_code=error.exit_code,
        engine_key=None if request is None else request.engine_key,
        reason=error.reason,
        message=str(error),
        retry=error.retry,
    )


def encode_outcome(message: TerminationMessage) -> bytes:
    """Return the message as a termination message: its text is shortened first, then its details are left out."""
    return encode_termination(message, (_shorter_text, _without_details))


def _shorter_text(message: TerminationMessage, characters: int) -> TerminationMessage:
    return message.model_copy(update={"message": shorten(message.message, characters)})


def _without_details(message: TerminationMessage, characters: int) -> TerminationMessage:
    """Leave out what has no bounded length: a profile's name may be as long as it likes."""
    if characters >= len(message.to_json()):
        return message
    return message.model_copy(
        update={
            "message": "",
            "warning": None,
            "latency_seconds": {},
            "reason": message.reason[:64],
            "engine_key": message.engine_key and message.engine_key[:64],
        }
    )
