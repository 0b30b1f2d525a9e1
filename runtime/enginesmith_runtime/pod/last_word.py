"""A process's last word, where kubelet picks it up: at most 4,096 bytes of JSON that is valid whatever was cut.

Kubernetes cuts a longer file at 4,096 bytes, which would leave half a document, so whatever gives way does so here.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from enginesmith_contract import environment
from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.failure import Failure
from enginesmith_contract.record import Record
from enginesmith_contract.termination import MAX_TERMINATION_BYTES

__all__ = ["encode_last_word", "failure_of", "shortened_failure", "termination_path", "write_last_word"]

_R = TypeVar("_R", bound=Record)
_ELLIPSIS: Final = "…"
_REASON_CHARACTERS: Final = 64
_TEXTS: Final = ("what", "where", "why", "remedy")


def termination_path(variables: Mapping[str, str]) -> Path | None:
    """Return the file that receives the last word; None: nobody reads one."""
    named = variables.get(environment.TERMINATION_LOG)
    return Path(named) if named else None


def encode_last_word(word: _R, shorter: Iterable[Callable[[_R, int], _R]], limit: int = MAX_TERMINATION_BYTES) -> bytes:
    """Return the record as JSON of at most `limit` bytes.

    Args:
        word: what to say.
        shorter: functions from the record and a number of things to keep of one part (entries, characters) to a record;
            the part that matters least first. Each gives way as little as is needed, to 0, before the next one does.
        limit: in bytes.

    Raises:
        ValueError: it does not fit even where every part gave way.
    """
    document = word.to_json()
    for cut in shorter:
        if len(document) <= limit:
            return document
        low, high = 0, len(document)
        # Halving finds the most that fits.
        while low < high:
            middle = (low + high + 1) // 2
            if len(cut(word, middle).to_json()) <= limit:
                low = middle
            else:
                high = middle - 1
        word = cut(word, low)
        document = word.to_json()
    if len(document) > limit:
        raise ValueError(f"{len(document)} bytes where {limit} may be")
    return document


def failure_of(error: EnginesmithError) -> Failure:
    """Return an error as a value that JSON can hold."""
    texts = {part: _clean(getattr(error, part)) for part in _TEXTS}
    return Failure(exit_code=int(error.exit_code), reason=error.reason, retry=error.retry, **texts)


def shortened_failure(failure: Failure | None, characters: int) -> Failure | None:
    """Return a failure each of whose texts has at most so many characters."""
    if failure is None:
        return None
    texts = {part: _cut(getattr(failure, part), characters) for part in _TEXTS}
    return failure.model_copy(update={**texts, "reason": failure.reason[:_REASON_CHARACTERS]})


def write_last_word(document: bytes, path: Path | None) -> None:
    """Write the document to `path`; None, or a place that cannot be written, is no reason to fail."""
    if path is None:
        return
    try:
        path.write_bytes(document)
    except OSError:
        return


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[:characters] + _ELLIPSIS


def _clean(text: str) -> str:
    # Lone surrogates (from file names that are no UTF-8) have no place in JSON.
    return text.encode(errors="replace").decode()
