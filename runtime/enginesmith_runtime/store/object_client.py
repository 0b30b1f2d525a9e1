"""The file system of a store in a bucket, and the translation of its library's errors to a StoreError.

All libraries read, write, list and delete in the same way. They differ in the condition that writes an object only if
it does not exist. `storage_clients` has this condition, and not every server supports it.
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
        files: The fsspec file system.
    """

    def __init__(self, address: StoreAddress, client: StorageClient, settings: StoreSettings) -> None:
        """Open the file system without a request.

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
                    # Do not cache listings, because other processes write.
                    use_listings_cache=False,
                )
            except ImportError as error:
                raise client_missing(address.uri, client, error) from error

    def create(self, path: str, data: bytes) -> None:
        """Write an object unless it exists. Raise the library's error if it exists or if this is not known."""
        self.files.pipe_file(path, data, **(self._client.create or {}))

    @contextmanager
    def translated(self, doing: str) -> Iterator[None]:
        """Translate the library's error to a StoreError, except FileNotFoundError, which the caller handles."""
        with refusals_explained(self._uri, StoreError):
            try:
                yield
            except (EnginesmithError, FileNotFoundError):
                raise
            except Exception as error:  # each library has its own exceptions
                why = " ".join(str(error).split()) or type(error).__name__
                if is_access_denied(error, why):
                    raise access_denied(self._uri, doing, why, self._client.credentials) from error
                raise connection_lost(self._uri, doing, why) from error
