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
"""Largest termination message that Kubernetes keeps (core/v1 Container, terminationMessagePath)."""


class BuildOutcome(StrEnum):
    """How a build ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"


class TerminationMessage(Record):
    """Result of one build.

    Attributes:
        engine_key: Key of the engine; None if the request could not be read.
        reason: CamelCase reason of the error; empty on success.
        message: Message of the error, shortened if it does not fit.
        retry: Whether the same attempt may succeed later.
        difference: Largest measured difference over all outputs (ratio); None if none was measured.
        agreement: Smallest agreement of an output on held-out samples (share of answers); None if there are no samples.
        judged_on: Inputs that the engine was verified with; None if it was not verified.
        warning: Limits of the verification of a stored engine, and values that look wrong; None if there are none.
        metric: Value of the user's metric; None if there is no metric.
        size_bytes: Size of the engine's files in bytes; None if no engine was stored.
        latency_seconds: Seconds of one inference at each profile's opt.
        timing_cache: Entries that the build found in the timing cache and added to it; None if there is no timing
            cache.
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
