"""Writes a build's last word where kubelet picks it up, whatever the build died of.

Kubernetes cuts a longer file at 4,096 bytes, which would leave half a JSON document; so the message is shortened here,
at a character's end, until the whole document fits.
"""

from pathlib import Path
from typing import Final

from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.termination import MAX_TERMINATION_BYTES, BuildOutcome, TerminationMessage

__all__ = ["encode_termination", "failure_message", "success_message", "write_termination"]

_ELLIPSIS: Final = "…"
_MAX_PROFILES: Final = 16


def success_message(manifest: Manifest) -> TerminationMessage:
    """Return what there is to say of a stored engine."""
    differences = [one.difference for one in manifest.verification.differences]
    latency = sorted(manifest.timings.latency_seconds.items())[:_MAX_PROFILES]
    return TerminationMessage(
        outcome=BuildOutcome.SUCCEEDED,
        exit_code=ExitCode.OK,
        engine_key=manifest.engine_key,
        engine_digest=manifest.engine_digest,
        message="; ".join(part for part in (manifest.verification.reason, *manifest.notes) if part),
        build_seconds=manifest.timings.build_seconds,
        verification=manifest.verification.status,
        difference=max(differences, default=None),
        size_bytes=sum(file.size_bytes for file in manifest.files),
        latency_seconds=dict(latency),
    )


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


def encode_termination(message: TerminationMessage, limit: int = MAX_TERMINATION_BYTES) -> bytes:
    """Return the message as JSON of at most `limit` bytes; its text, and then its details, give way.

    Args:
        message: what to say. Characters that UTF-8 cannot hold (lone surrogates) are replaced.
        limit: in bytes, at least 512.
    """
    whole = _clean(message)
    document = whole.to_json()
    if len(document) <= limit:
        return document
    text = whole.message
    # Halving finds the longest beginning that fits; a character takes one to six bytes of JSON.
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if len(_with_text(whole, text[:middle]).to_json()) <= limit:
            low = middle
        else:
            high = middle - 1
    document = _with_text(whole, text[:low]).to_json()
    if len(document) <= limit:
        return document
    return _bare(whole).to_json()


def write_termination(message: TerminationMessage, path: Path | None) -> None:
    """Write the message to `path`; None, or a place that cannot be written, is no reason to fail a build."""
    if path is None:
        return
    try:
        path.write_bytes(encode_termination(message))
    except OSError:
        return


def _clean(message: TerminationMessage) -> TerminationMessage:
    return message.model_copy(update={"message": message.message.encode(errors="replace").decode()})


def _with_text(message: TerminationMessage, text: str) -> TerminationMessage:
    return message.model_copy(update={"message": text + _ELLIPSIS})


def _bare(message: TerminationMessage) -> TerminationMessage:
    """Return the message without what has no bounded length: a profile's name may be as long as it likes."""
    return message.model_copy(
        update={
            "message": "",
            "latency_seconds": {},
            "reason": message.reason[:64],
            "engine_key": message.engine_key and message.engine_key[:64],
        }
    )
