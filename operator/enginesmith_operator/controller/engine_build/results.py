"""Reads a builder's termination message (a result, or why it failed) and its progress from the log. Pure."""

import json
from typing import Final

from pydantic import ValidationError

from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.termination import BuildOutcome, TerminationMessage
from enginesmith_operator.api.engine_build import BuildFailure, BuildResult
from enginesmith_operator.controller.engine_build.steps import LONGEST_LOG, current_step, metric_failure
from enginesmith_operator.controller.shared.conditions import bounded_line
from enginesmith_operator.controller.shared.pod_facts import Ending, JobFacts, PodFacts

__all__ = [
    "DEADLINE",
    "KEPT_ALIVE",
    "LONGEST_REASON",
    "last_failure",
    "read_failure",
    "read_progress",
    "read_result",
    "success_text",
]

KEPT_ALIVE: Final = "KeptAlive"
"""Reason of a Job whose pod is kept alive by a sidecar after its builder failed: Kubernetes has no name for it."""
DEADLINE: Final = "DeadlineExceeded"
"""Reason of a Job that exceeded its deadline."""
LONGEST_REASON: Final = 128
_LONGEST_PROGRESS: Final = 256
_LONGEST_WARNING: Final = 1024
_OUT_OF_MEMORY: Final = (
    "OutOfMemory",
    "the builder was killed because it ran out of memory; raise spec.build.resources.limits.memory",
)


def read_progress(log: tuple[str, ...]) -> str:
    """Return a stage as text from the builder's last JSON line."""
    for line in reversed(log):
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        if isinstance(fields, dict) and fields.get("stage"):
            detail = fields.get("detail")
            words = str(fields["stage"]) + (f" ({detail})" if detail else "")
            return bounded_line(words, _LONGEST_PROGRESS)
    return ""


def read_result(pods: tuple[PodFacts, ...]) -> BuildResult | None:
    """Return the report of the newest attempt that succeeded; None: none succeeded, or its report was lost."""
    for pod in reversed(pods):
        container = current_step(pod)
        message = _last_word(container.ending if container else None)
        if message is not None and message.outcome is BuildOutcome.SUCCEEDED and message.engine_digest:
            return BuildResult(
                engine_digest=message.engine_digest,
                size_bytes=message.size_bytes,
                verification=message.verification,
                difference=message.difference,
                agreement=message.agreement,
                judged_on=message.judged_on,
                warning=bounded_line(message.warning, _LONGEST_WARNING) if message.warning else None,
                metric=message.metric,
                latency_seconds=dict(message.latency_seconds),
                build_seconds=message.build_seconds,
                timing_cache=message.timing_cache,
            )
    return None


def last_failure(pods: tuple[PodFacts, ...]) -> tuple[str, str] | None:
    """Return reason and sentence of the newest attempt that ended; None: none did, or it did not fail.

    For a Job that still runs or tries again: the message of a pending EngineBuild. `read_failure` is for a failed Job.
    """
    for pod in reversed(pods):
        container = current_step(pod)
        ending = container.latest_ending if container else None
        if container is None or ending is None:
            continue
        failed = metric_failure(container, ())
        if failed is not None:
            return failed.reason, failed.message
        word = _last_word(ending)
        if ending.out_of_memory:
            return _OUT_OF_MEMORY
        if word is not None:
            return (word.reason, word.message) if word.reason else None
        if ending.not_started:
            return "ContainerCannotStart", _start_text(ending)
        if ending.exit_code != ExitCode.OK:
            return "BuildFailed", _exit_text(ending.exit_code)
    return None


def _last_word(ending: Ending | None) -> TerminationMessage | None:
    if ending is None or not ending.message:
        return None
    try:
        return TerminationMessage.from_json(ending.message)
    except ValidationError:
        # Written by another release, or by the program that killed the process.
        return None


def success_text(result: BuildResult) -> str:
    """Return a result as a sentence."""
    parts = [f"engine {result.engine_digest[:12]} is stored"]
    if result.build_seconds is not None:
        parts.append(f"built in {result.build_seconds:.0f} s")
    if result.timing_cache is not None:
        parts.append(result.timing_cache.text())
    if result.difference is not None:
        parts.append(f"largest difference {result.difference:.2g}")
    if result.agreement is not None:
        parts.append(f"smallest agreement {result.agreement:.3g}")
    if result.metric is not None:
        parts.append(f"metric {result.metric:.6g}")
    if result.judged_on is not None:
        parts.append(f"judged on {result.judged_on}")
    return ", ".join(parts)


def read_failure(pods: tuple[PodFacts, ...], job: JobFacts, log: tuple[str, ...]) -> BuildFailure:
    """Return why a failed Job failed, as an EngineBuild stores it.

    `last_failure` is for attempts while the Job still tries again; a cause that one of them knows belongs in both.
    """
    container = current_step(pods[-1]) if pods else None
    ending = container.latest_ending if container else None
    log_tail = "\n".join(log)[-LONGEST_LOG:]
    word = _last_word(ending)
    if ending is not None and ending.out_of_memory:
        reason, message = _OUT_OF_MEMORY
        return BuildFailure(reason=reason, message=message, exit_code=ending.exit_code, retry=False, log_tail=log_tail)
    if word is not None and word.reason:
        return BuildFailure(
            reason=word.reason[:LONGEST_REASON],
            message=bounded_line(word.message),
            exit_code=word.exit_code,
            retry=word.retry,
            log_tail=log_tail,
        )
    if job.failure == DEADLINE:
        message = "the build exceeded the deadline of its Job; raise spec.build.timeout"
        return BuildFailure(reason="TimedOut", message=message, log_tail=log_tail)
    if ending is not None and ending.not_started:
        message = bounded_line(_start_text(ending))
        return BuildFailure(reason="ContainerCannotStart", message=message, exit_code=ending.exit_code, retry=True)
    if ending is not None:
        last = log[-1] if log else "it left no word"
        message = bounded_line(f"{_exit_text(ending.exit_code)}: {last}")
        # The EngineBuild's owner retries what the Job would have retried.
        again = job.failure == KEPT_ALIVE
        return BuildFailure(
            reason="BuildFailed", message=message, exit_code=ending.exit_code, retry=again, log_tail=log_tail
        )
    why = job.failure_message or job.failure
    return BuildFailure(reason="BuildFailed", message=bounded_line(f"the Job failed: {why}"), retry=True)


def _start_text(ending: Ending) -> str:
    return f"the builder cannot be started: {ending.not_started}"


def _exit_text(code: int) -> str:
    try:
        name = ExitCode(code).name
    except ValueError:
        name = "killed" if code > 128 else "unknown"  # noqa: PLR2004 - 128 + the signal's number, as shells say it
    return f"the builder ended with exit code {code} ({name})"
