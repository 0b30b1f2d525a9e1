"""Finds engines in a store and writes them. Manifests are signed, and only those with a trusted key are found."""

import logging
from typing import Final

from enginesmith_contract.environment import SIGNING_KEY
from enginesmith_contract.errors import SpecError
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.store_layout import engine_pointer
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.manifest_signatures import sign_manifest, why_untrusted
from enginesmith_runtime.store.records import parse_record

__all__ = ["create_engine", "find_engine"]

_LOGGER: Final = logging.getLogger(__name__)


def find_engine(store: Store, key: str) -> Manifest | None:
    """Return the manifest of an engine, or None if there is none or no trusted key signed it (with a warning).

    Raises:
        StoreError: The store cannot be read, or `PointerUnreadable`.
    """
    pointer = engine_pointer(key)
    document = store.read_pointer(pointer)
    if document is None:
        return None
    where = f"{store.uri}, {pointer}"
    problem = why_untrusted(document, key)
    if problem:
        _LOGGER.warning("%s: the engine is not used: %s", where, problem)
        return None
    return parse_record(document, Manifest, where)


def create_engine(store: Store, manifest: Manifest) -> Manifest:
    """Write the manifest, signed if there is a key, and return the manifest that the store then has.

    An existing manifest is kept unless no trusted key signed it.

    Raises:
        StoreError: The store cannot be written.
        SpecError: `KeyInvalid` if the private key cannot be used, or its public key is not trusted.
    """
    pointer = engine_pointer(manifest.engine_key)
    document = sign_manifest(manifest).to_json()
    problem = why_untrusted(document, manifest.engine_key)
    if problem:
        raise SpecError(
            "builders sign with a key that is not trusted",
            where=SIGNING_KEY,
            why=problem,
            remedy="ask the administrator to add its public key to signatures.engineKeys",
            reason="KeyInvalid",
        )
    found = store.create_pointer(pointer, document)
    if found != document and why_untrusted(found, manifest.engine_key):
        store.replace_pointer(pointer, document)
        found = document
    return parse_record(found, Manifest, f"{store.uri}, {pointer}")
