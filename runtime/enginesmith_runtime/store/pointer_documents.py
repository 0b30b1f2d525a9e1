"""Finds the blobs that a pointer's document names, for every kind of document and every release."""

import json
from collections.abc import Iterator

from pydantic import JsonValue, ValidationError

from enginesmith_contract.store_layout import StoredFile

__all__ = ["named_files"]


def named_files(document: bytes) -> tuple[StoredFile, ...]:
    """Return every `StoredFile` in a document in order, each blob once. If it is not JSON, return none."""
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
