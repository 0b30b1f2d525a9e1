"""A builder's termination message, which kubelet copies into the pod's status: at most 4,096 bytes of valid JSON."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from pydantic import field_validator

from enginesmith_contract.record import Record
from enginesmith_contract.text import encodable
from enginesmith_contract.timing_cache import TimingCacheUse
from enginesmith_contract.verification import VerificationStatus

__all__ = ["MAX_TERMINATION_BYTES", "BuildOutcome", "TerminationMessage"]

MAX_TERMINATION_BYTES: Final = 4096
"""What Kubernetes keeps of a termination message (core/v1 Container, terminationMessagePath)."""


class BuildOutcome(StrEnum):
    """How a build ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"


class TerminationMessage(Record):
    """The end of one build.

    Attributes:
        engine_key: None where the request could not be read.
        reason: the error's CamelCase reason; empty on success.
        message: the error's sentence, cut where it would not fit.
        retry: whether the same attempt may succeed later.
        difference: the largest measured difference over all outputs (ratio); None where none was measured.
        agreement: the smallest of any output on held-out samples (share of answers); None where there are none.
        judged_on: what the engine was verified with; None where it was not.
        warning: what the verification of a stored engine does not show, and what looks wrong; None: nothing.
        metric: value of the user's metric; None where there is none.
        size_bytes: of the engine's files; None where none was stored.
        latency_seconds: of one inference at each profile's opt.
        timing_cache: what the build found in the timing cache and added to it; None where there is none.
    """

    outcome: BuildOutcome
    exit_code: int
    engine_key: str | None = None
    engine_digest: str | None = None
    reason: str = ""
    message: str = ""
    retry: bool = False
    build_seconds: float | None = None
    verification: VerificationStatus | None = None
    difference: float | None = None
    agreement: float | None = None
    judged_on: str | None = None
    warning: str | None = None
    metric: float | None = None
    size_bytes: int | None = None
    latency_seconds: Mapping[str, float] = {}
    timing_cache: TimingCacheUse | None = None

    @field_validator("message", "warning")
    @classmethod
    def _make_encodable(cls, text: str | None) -> str | None:
        return None if text is None else encodable(text)
