"""Finds engines in a store by the first digits of their key."""

from difflib import get_close_matches

from enginesmith_contract.errors import StoreError
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.store_layout import engine_pointer, preparation_pointer
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.open import open_store
from enginesmith_runtime.store.records import parse_record, read_record

__all__ = ["find_engine", "find_preparation", "list_engines", "list_stored", "stored_keys"]

_POINTERS = engine_pointer("").removesuffix(".json")
_SHOWN_DIGITS = 20


def stored_keys(store: Store) -> tuple[str, ...]:
    """Return the keys of every engine that a store has, sorted.

    Raises:
        StoreError: the store cannot be read.
    """
    return tuple(name.removeprefix(_POINTERS).removesuffix(".json") for name in store.list_pointers(_POINTERS))


def find_engine(store_uri: str, prefix: str) -> Manifest:
    """Return the manifest of the one engine whose key begins with `prefix`.

    Raises:
        StoreError: none or several begin so, or the manifest is not what this release writes.
    """
    store = open_store(store_uri)
    keys = stored_keys(store)
    found = [key for key in keys if prefix and key.startswith(prefix)]
    if len(found) != 1:
        near = found or get_close_matches(prefix, [key[: len(prefix)] for key in keys], n=3, cutoff=0.5)
        some = ", ".join(key[:_SHOWN_DIGITS] for key in (near or keys)[:3])
        raise StoreError(
            "several engines have this key" if found else "no engine has this key",
            where=f"{prefix} in {store_uri}",
            why=f"the store has {len(keys)} engines" + (f", {some} among them" if some else ""),
            remedy="give more digits" if found else "list the engines with: enginesmith inspect",
            reason="KeyAmbiguous" if found else "KeyUnknown",
        )
    return _read(store, found[0])


def find_preparation(store_uri: str, manifest: Manifest) -> Preparation | None:
    """Return the preparation that an engine was built from; None where the store has it no longer.

    Raises:
        StoreError: the store cannot be read, or the record is not what this release writes.
    """
    pointer = preparation_pointer(manifest.key_inputs.preparation_key)
    return read_record(open_store(store_uri), pointer, Preparation)


def list_engines(store_uri: str) -> tuple[Manifest, ...]:
    """Return the manifests of a store's engines, newest last.

    Raises:
        StoreError: a manifest is not what this release writes.
    """
    return list_stored(open_store(store_uri))


def list_stored(store: Store) -> tuple[Manifest, ...]:
    """Return the manifests of an open store's engines, newest last.

    Raises:
        StoreError: a manifest is not what this release writes.
    """
    manifests = (_read(store, key) for key in stored_keys(store))
    return tuple(sorted(manifests, key=lambda manifest: manifest.created_at))


def _read(store: Store, key: str) -> Manifest:
    pointer = engine_pointer(key)
    return parse_record(store.read_pointer(pointer) or b"", Manifest, pointer)
