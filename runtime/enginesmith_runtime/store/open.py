"""Opens the store of a URI. The client of a remote store is imported only when it is needed."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from enginesmith_contract.errors import StoreError
from enginesmith_runtime.storage_clients import REGISTRY
from enginesmith_runtime.store.address import parse_address
from enginesmith_runtime.store.file_store import FileStore
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.object_store import ObjectStore
from enginesmith_runtime.store.registry_store import RegistryStore
from enginesmith_runtime.store.settings import StoreSettings

__all__ = ["open_store"]


def open_store(uri: str, settings: StoreSettings | None = None) -> Store:
    """Return the store at `uri`: a path, file:///path, or a URI with a scheme of `storage_clients`.

    No request is sent to a remote store. A folder need not exist; the first write creates it.

    Args:
        uri: URI without credentials and options.
        settings: Settings of a remote store; None to read them from this process's environment.

    Raises:
        enginesmith_contract.errors.StoreError: `UnsupportedStore` for another URI, `NotAFolder` if the path is a file,
            `MissingClient` if the library of a remote store is not installed.
    """
    if "://" not in uri:
        return FileStore.open(Path(uri).expanduser().absolute())
    address = parse_address(uri)
    if address.client is None:
        return FileStore.open(_local_path(uri))
    settings = settings or StoreSettings.of_process()
    if address.client is REGISTRY:
        return RegistryStore(address, settings)
    return ObjectStore(address, address.client, settings)


def _local_path(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise StoreError(
            "a file:// URI must not have a host",
            where=uri,
            remedy=f"write three slashes: file:///{parts.netloc}{parts.path}",
            reason="UnsupportedStore",
        )
    return Path(unquote(parts.path))
