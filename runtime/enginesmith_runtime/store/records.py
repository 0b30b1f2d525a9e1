"""Reads the records of pointers, with one error message for documents that this release cannot read."""

from typing import TypeVar

from pydantic import ValidationError

from enginesmith_contract.errors import EngineRefusedError, StoreError
from enginesmith_contract.keys import engine_key
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.record import Record
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.manifest_signatures import why_untrusted

__all__ = ["parse_if_readable", "parse_manifest_to_serve", "parse_record", "read_record"]

_R = TypeVar("_R", bound=Record)


def read_record(store: Store, pointer: str, kind: type[_R]) -> _R | None:
    """Return the record of a pointer, or None if the pointer does not exist.

    Raises:
        StoreError: The store cannot be read, or `PointerUnreadable` if the document is not a `kind` of this release.
    """
    document = store.read_pointer(pointer)
    return None if document is None else parse_record(document, kind, f"{store.uri}, {pointer}")


def parse_record(document: bytes, kind: type[_R], where: str) -> _R:
    """Return a pointer's document as a record.

    Args:
        document: Contents of the pointer.
        kind: Type of the record.
        where: Store and pointer, for the message.

    Raises:
        StoreError: `PointerUnreadable`.
    """
    try:
        return kind.from_json(document)
    except ValidationError as error:
        raise StoreError(
            f"the {kind.__name__} cannot be read",
            where=where,
            why=_difference(error),
            remedy="use the release that wrote it, delete the pointer, or raise build.epoch to build again",
            reason="PointerUnreadable",
        ) from error


def parse_if_readable(document: bytes, kind: type[_R]) -> _R | None:
    """Return a pointer's document as a record, or None if this release cannot read it."""
    try:
        return kind.from_json(document)
    except ValidationError:
        return None


def parse_manifest_to_serve(document: bytes, key: str, where: str) -> Manifest:
    """Return the manifest of the engine `key` for a process that will serve it.

    Args:
        document: Contents of the engine's pointer.
        key: Key of the engine, which must be equal to the key of the manifest's inputs.
        where: Store and pointer, for the message.

    Raises:
        EngineRefusedError: `ManifestUnreadable`, `KeyMismatch`, `EngineUntrusted`.
    """
    try:
        manifest = Manifest.from_json(document)
    except ValidationError as error:
        raise EngineRefusedError(
            "the manifest cannot be read",
            where=where,
            why=_difference(error),
            remedy="serve with the release that built the engine, or build it again",
            reason="ManifestUnreadable",
        ) from error
    problem = why_untrusted(document, key)
    if problem:
        raise EngineRefusedError(
            "the engine is not signed by a trusted key",
            where=where,
            why=problem,
            remedy="build the engine again, or ask the administrator to add the public key to signatures.engineKeys",
            reason="EngineUntrusted",
        )
    computed = engine_key(manifest.key_inputs)
    if computed != key:
        raise EngineRefusedError(
            "the manifest belongs to another engine",
            where=where,
            why=f"its inputs give the key {computed[:12]}",
            remedy="build the engine again; the store was altered",
            reason="KeyMismatch",
        )
    return manifest


def _difference(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(step) for step in first["loc"])
    return f"it is not what this release writes: {field + ': ' if field else ''}{first['msg']}"
