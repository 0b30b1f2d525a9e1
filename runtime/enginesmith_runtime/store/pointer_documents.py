"""Which blobs a pointer's document names, whatever kind of document it is and whichever release wrote it."""

import json
from collections.abc import Iterator

from pydantic import JsonValue, ValidationError

from enginesmith_contract.store_layout import StoredFile

__all__ = ["named_files"]


def named_files(document: bytes) -> tuple[StoredFile, ...]:
    """Return every `StoredFile` in a document, in its order, each blob once; none where it is no JSON."""
    try:
        value = json.loads(document)
    except ValueError:
        return ()
    return tuple({file.digest: file for file in _walk(value)}.values())


def _walk(value: JsonValue) -> Iterator[StoredFile]:
    if isinstance(value, list):
        for item in value:
            yield from _walk(item)
    if not isinstance(value, dict):
        return
    try:
        yield StoredFile.model_validate(value)
    except ValidationError:
        for item in value.values():
            yield from _walk(item)
