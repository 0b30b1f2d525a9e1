"""Parses the URI of a store.

    /path or file:///path           a folder
    s3://bucket/prefix              and the other schemes of `storage_clients` that can store engines
    oci://registry/repository

Endpoint, region, plain HTTP and credentials come from the environment (see `settings`), so a URI is only the name of
the store.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from enginesmith_contract.errors import StoreError
from enginesmith_runtime.storage_clients import REGISTRY, STORE_CLIENTS, StorageClient

__all__ = ["StoreAddress", "parse_address"]

_CLIENTS: Final = {row.scheme: row for row in STORE_CLIENTS}
_FOLDER: Final = "file"
_EXAMPLES: Final = ("/path", "file:///path", *(f"{row.scheme}://{row.place}" for row in STORE_CLIENTS))


@dataclass(frozen=True, kw_only=True)
class StoreAddress:
    """A store's URI.

    Attributes:
        client: Row of its client library; None for a folder.
        location: Location without scheme and outer slashes ("bucket/prefix", "registry:5000/repository").
    """

    client: StorageClient | None
    location: str

    @property
    def uri(self) -> str:
        """The URI in its canonical spelling."""
        return f"{self.client.scheme if self.client is not None else _FOLDER}://{self.location}"


def parse_address(uri: str) -> StoreAddress:
    """Return the parts of a URI with a scheme.

    Raises:
        enginesmith_contract.errors.StoreError: `UnsupportedStore` for another scheme, credentials, options, or a
            missing location.
    """
    parts = urlsplit(uri)
    where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.scheme not in {_FOLDER, *_CLIENTS}:
        raise _refused("this kind of store is not supported", f"{parts.scheme}://", f"use {', '.join(_EXAMPLES)}")
    client = _CLIENTS.get(parts.scheme)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise _refused(
            "a store's URI must not have credentials or options",
            where,
            "they come from the environment, which is less visible",
            remedy="set the variables that docs/store.md names",
        )
    location = f"{parts.netloc}/{parts.path.strip('/')}".strip("/")
    is_short = client is REGISTRY and "/" not in location
    if client is not None and (not parts.netloc or is_short):
        example = f"{client.scheme}://{client.place}"
        raise _refused("the URI has no location", where, f"the format is {example}")
    return StoreAddress(client=client, location=location)


def _refused(what: str, where: str, why: str, remedy: str = "") -> StoreError:
    return StoreError(
        what,
        where=where,
        why=why,
        remedy=remedy or "correct the store's URI, such as file:///engines or s3://bucket/prefix",
        reason="UnsupportedStore",
    )
