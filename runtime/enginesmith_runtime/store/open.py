"""From a store's URI to the store."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from enginesmith_contract.errors import StoreError
from enginesmith_runtime.store.file_store import FileStore
from enginesmith_runtime.store.interface import Store

__all__ = ["open_store"]


def open_store(uri: str) -> Store:
    """Return the store at `uri`: a path or a file:// URI.

    The folder need not exist: the first write makes it.

    Raises:
        enginesmith_contract.errors.StoreError: `UnsupportedStore` for another scheme, `NotAFolder` where a file is.
    """
    if "://" not in uri:
        return FileStore.open(Path(uri).expanduser().absolute())
    parts = urlsplit(uri)
    if parts.scheme != "file":
        raise StoreError(
            "this kind of store is not supported",
            where=f"{parts.scheme}://",
            why="a store is a folder, as a path or a file:// URI",
            remedy="give a folder (a mounted volume will do), such as /var/lib/enginesmith or file:///engines",
            reason="UnsupportedStore",
        )
    if parts.netloc not in ("", "localhost"):
        raise StoreError(
            "a file:// URI has no host",
            where=uri,
            remedy=f"write three slashes: file:///{parts.netloc}{parts.path}",
            reason="UnsupportedStore",
        )
    return FileStore.open(Path(unquote(parts.path)))
