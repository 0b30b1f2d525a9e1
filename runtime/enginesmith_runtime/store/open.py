"""From a store's URI to the store; a remote one's client is imported only when it is asked for."""

from pathlib import Path
from typing import assert_never
from urllib.parse import unquote, urlsplit

from enginesmith_contract.errors import StoreError
from enginesmith_runtime.store.address import StoreScheme, parse_address
from enginesmith_runtime.store.file_store import FileStore
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.settings import StoreSettings

__all__ = ["open_store"]


def open_store(uri: str, settings: StoreSettings | None = None) -> Store:
    """Return the store at `uri`: a path, or a URI of one of `StoreScheme`.

    Nothing is asked of a remote store yet; a folder need not exist: the first write makes it.

    Args:
        uri: without credentials and options.
        settings: how a remote store is reached; None: as this process's environment says.

    Raises:
        enginesmith_contract.errors.StoreError: `UnsupportedStore` for another URI, `NotAFolder` where a file is,
            `MissingClient` where a remote store's library is not installed.
    """
    if "://" not in uri:
        return FileStore.open(Path(uri).expanduser().absolute())
    address = parse_address(uri)
    match address.scheme:
        case StoreScheme.FILE:
            return FileStore.open(_local_path(uri))
        case StoreScheme.S3 | StoreScheme.GS | StoreScheme.OSS:
            from enginesmith_runtime.store.object_store import ObjectStore

            return ObjectStore(address, settings or StoreSettings.of_process())
        case StoreScheme.OCI:
            from enginesmith_runtime.store.registry_store import RegistryStore

            return RegistryStore(address, settings or StoreSettings.of_process())
        case unknown:
            assert_never(unknown)


def _local_path(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise StoreError(
            "a file:// URI has no host",
            where=uri,
            remedy=f"write three slashes: file:///{parts.netloc}{parts.path}",
            reason="UnsupportedStore",
        )
    return Path(unquote(parts.path))
