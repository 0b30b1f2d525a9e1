"""What a server that fails leaves where kubelet picks it up: why, and how to handle it.

Kubernetes cuts a longer file at 4,096 bytes, which would leave half a JSON document; so the texts are shortened here.
"""

from pathlib import Path
from typing import Final

from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.failure import Failure
from enginesmith_contract.pull_request import ServingReport
from enginesmith_contract.serve_request import ServeRequest
from enginesmith_contract.termination import MAX_TERMINATION_BYTES

__all__ = ["encode_report", "write_report"]

_TEXTS: Final = ("what", "where", "why", "remedy")

_ELLIPSIS: Final = "…"


def write_report(error: EnginesmithError, request: ServeRequest | None, path: str | None) -> None:
    """Write the report of `error`.

    Args:
        error: what the process ends with.
        request: names the engine where it serves one; None where it could not be read.
        path: None, or a place that cannot be written, is no second failure.
    """
    if not path:
        return
    keys = [model.engine_key for model in request.models] if request is not None else []
    report = ServingReport(engine_key=keys[0] if len(keys) == 1 else None, failure=Failure.from_error(error))
    try:
        Path(path).write_bytes(encode_report(report))
    except OSError:
        return


def encode_report(report: ServingReport, limit: int = MAX_TERMINATION_BYTES) -> bytes:
    """Return the report as JSON of at most `limit` bytes; its longest texts give way, from their ends.

    Args:
        report: of a failure.
        limit: in bytes, at least 1024.
    """
    low, high = 0, limit
    # Halving finds the longest texts that fit; a character takes one to six bytes of JSON.
    while low < high:
        middle = (low + high + 1) // 2
        if len(_encode_cut(report, middle)) <= limit:
            low = middle
        else:
            high = middle - 1
    return _encode_cut(report, low)


def _encode_cut(report: ServingReport, length: int) -> bytes:
    """Return the report with no text longer than `length` characters."""
    if report.failure is None:
        return report.to_json()
    # A message of a native library may hold what UTF-8 cannot.
    texts = {name: getattr(report.failure, name).encode(errors="replace").decode() for name in _TEXTS}
    cut = {name: text if len(text) <= length else text[:length] + _ELLIPSIS for name, text in texts.items()}
    return report.model_copy(update={"failure": report.failure.model_copy(update=cut)}).to_json()
