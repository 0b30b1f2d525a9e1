"""The file system behind a store's URI, and how the words of its library become a StoreError.

All of them read, write, list and delete alike. What differs is how an object is written only where none is: a condition
of the request, which `storage_clients` has and which not every server knows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from enginesmith_contract.errors import EnginesmithError, StoreError
from enginesmith_runtime.connection_limits import check_endpoint, refusals_explained
from enginesmith_runtime.storage_clients import StorageClient, is_access_denied, open_file_system
from enginesmith_runtime.store.address import StoreAddress
from enginesmith_runtime.store.failures import access_denied, client_missing, connection_lost
from enginesmith_runtime.store.settings import StoreSettings

__all__ = ["ObjectClient"]


class ObjectClient:
    """The file system of one store.

    Attributes:
        files: the fsspec file system.
    """

    def __init__(self, address: StoreAddress, client: StorageClient, settings: StoreSettings) -> None:
        """Open the file system; no request is made.

        Raises:
            enginesmith_contract.errors.StoreError: `MissingClient`.
        """
        self._client = client
        self._uri = address.uri
        with self.translated("opening the store"):
            check_endpoint(settings.endpoint)
            try:
                self.files: Any = open_file_system(
                    client,
                    settings.get,
                    endpoint=settings.endpoint,
                    region=settings.region,
                    # Other processes write, so a listing is old at once.
                    use_listings_cache=False,
                )
            except ImportError as error:
                raise client_missing(address.uri, client, error) from error

    def create(self, path: str, data: bytes) -> None:
        """Write an object unless it exists; raises, in whatever words, where it does or where that cannot be told."""
        self.files.pipe_file(path, data, **(self._client.create or {}))

    @contextmanager
    def translated(self, doing: str) -> Iterator[None]:
        """Turn the library's error into a StoreError; FileNotFoundError passes: only the caller knows what it means."""
        with refusals_explained(self._uri, StoreError):
            try:
                yield
            except (EnginesmithError, FileNotFoundError):
                raise
            except Exception as error:  # each library has a tree of exceptions of its own
                why = " ".join(str(error).split()) or type(error).__name__
                if is_access_denied(error, why):
                    raise access_denied(self._uri, doing, why, self._client.credentials) from error
                raise connection_lost(self._uri, doing, why) from error
