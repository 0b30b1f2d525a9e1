"""A store's URI, taken apart.

    /path or file:///path           a folder
    s3://bucket/prefix              also gs:// and oss://
    oci://registry/repository

Endpoint, region, plain HTTP and credentials come from the environment (see `settings`), so that a URI is the store's
name and nothing else.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from enginesmith_contract.errors import StoreError

__all__ = ["StoreAddress", "StoreScheme", "parse_address"]


class StoreScheme(StrEnum):
    """What a store's URI may begin with; a plain path is `FILE`."""

    FILE = "file"
    S3 = "s3"
    GS = "gs"
    OSS = "oss"
    OCI = "oci"


_KINDS: Final = "a folder (/path or file:///path), s3://bucket/prefix, gs://, oss:// or oci://registry/repository"


@dataclass(frozen=True, kw_only=True)
class StoreAddress:
    """A remote store's URI.

    Attributes:
        location: without the scheme, without slashes at its ends ("bucket/prefix", "registry:5000/repository").
    """

    scheme: StoreScheme
    location: str

    @property
    def uri(self) -> str:
        """The URI in its one spelling."""
        return f"{self.scheme}://{self.location}"


def parse_address(uri: str) -> StoreAddress:
    """Return the parts of a URI with a scheme.

    Raises:
        enginesmith_contract.errors.StoreError: `UnsupportedStore` for another scheme, credentials, options, or nothing
            behind the scheme.
    """
    parts = urlsplit(uri)
    where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.scheme not in list(StoreScheme):
        raise _refused("this kind of store is not supported", f"{parts.scheme}://", f"a store is {_KINDS}")
    scheme = StoreScheme(parts.scheme)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise _refused(
            "a store's URI has neither credentials nor options",
            where,
            "they come from the environment, which fewer people read",
            remedy="set the variables that docs/store.md names",
        )
    location = f"{parts.netloc}/{parts.path.strip('/')}".strip("/")
    if scheme is not StoreScheme.FILE and (not parts.netloc or (scheme is StoreScheme.OCI and "/" not in location)):
        example = "oci://registry/repository" if scheme is StoreScheme.OCI else f"{scheme}://bucket/prefix"
        raise _refused("the URI names no place for a store", where, f"it is written {example}")
    return StoreAddress(scheme=scheme, location=location)


def _refused(what: str, where: str, why: str, remedy: str = "") -> StoreError:
    return StoreError(
        what,
        where=where,
        why=why,
        remedy=remedy or "correct the store's URI, such as file:///engines or s3://bucket/prefix",
        reason="UnsupportedStore",
    )
