"""The termination message of a pod's process, which kubelet copies into the pod's status.

Kubernetes keeps 4,096 bytes. It would cut a longer JSON document in the middle, so the document is shortened here, part
by part, until it fits.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from enginesmith_contract import environment
from enginesmith_contract.preparation_job import PreparationReport
from enginesmith_contract.pull_request import ServingReport
from enginesmith_contract.record import Record
from enginesmith_contract.termination import MAX_TERMINATION_BYTES
from enginesmith_contract.text import shorten

__all__ = [
    "encode_serving_report",
    "encode_termination",
    "shorter_failure",
    "termination_path",
    "write_termination",
]

_R = TypeVar("_R", bound=Record)
_Report = TypeVar("_Report", PreparationReport, ServingReport)
_REASON_CHARACTERS: Final = 64
_TEXTS: Final = ("what", "where", "why", "remedy")


def termination_path(variables: Mapping[str, str]) -> Path | None:
    """Return the file that receives the termination message, or None if the variable is not set."""
    named = variables.get(environment.TERMINATION_LOG)
    return Path(named) if named else None


def encode_termination(
    message: _R, shorter: Iterable[Callable[[_R, int], _R]], limit: int = MAX_TERMINATION_BYTES
) -> bytes:
    """Return the record as JSON of at most `limit` bytes.

    Args:
        message: Record to encode.
        shorter: One function for each part that can be shortened, the least important part first. Its arguments are the
            record and the amount to keep (entries or characters). A part is shortened no more than necessary. The next
            part is shortened only if this one is at 0.
        limit: Limit in bytes.

    Raises:
        ValueError: The record does not fit even with every part at 0.
    """
    document = message.to_json()
    for cut in shorter:
        if len(document) <= limit:
            return document
        low, high = 0, len(document)
        # Find the largest amount that fits by bisection.
        while low < high:
            middle = (low + high + 1) // 2
            if len(cut(message, middle).to_json()) <= limit:
                low = middle
            else:
                high = middle - 1
        message = cut(message, low)
        document = message.to_json()
    if len(document) > limit:
        raise ValueError(f"the message has {len(document)} bytes, the limit is {limit}")
    return document


def encode_serving_report(report: ServingReport) -> bytes:
    """Return the report of a serving pod as a termination message, with shortened texts of its failure."""
    return encode_termination(report, (shorter_failure,))


def shorter_failure(report: _Report, characters: int) -> _Report:
    """Return a report in which each text of the failure has at most this number of characters."""
    failure = report.failure
    if failure is None:
        return report
    texts = {part: shorten(getattr(failure, part), characters) for part in _TEXTS}
    shorter = failure.model_copy(update={**texts, "reason": failure.reason[:_REASON_CHARACTERS]})
    return report.model_copy(update={"failure": shorter})


def write_termination(document: bytes, path: Path | None) -> None:
    """Write the document to `path`. Nothing happens if `path` is None or cannot be written."""
    if path is None:
        return
    try:
        path.write_bytes(document)
    except OSError:
        return
