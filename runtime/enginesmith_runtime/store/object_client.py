"""The clients of object stores: which fsspec file system speaks to which service, and how its words are told apart.

All of them read, write, list and delete alike. What differs is how an object is written only where none is: a condition
of the request (`If-None-Match: *` in S3, a generation of 0 in Google's, a header in Alibaba's), which not every server
that speaks S3 knows.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.text import one_line
from enginesmith_runtime.store.address import StoreAddress, StoreScheme
from enginesmith_runtime.store.failures import access_denied, client_missing, connection_lost
from enginesmith_runtime.store.settings import StoreSettings

__all__ = ["ObjectClient", "open_client", "translated_client"]


@dataclass(frozen=True, kw_only=True)
class ObjectClient:
    """One kind of file system.

    Attributes:
        files: the fsspec file system.
        create: writes an object unless it exists; raises, in whatever words, where it does or where it cannot tell.
        credentials: names of the variables, for messages.
    """

    files: Any
    create: Callable[[Any, str, bytes], None]
    credentials: str


@dataclass(frozen=True, kw_only=True)
class _Kind:
    module: str
    name: str
    arguments: Callable[[StoreSettings], Mapping[str, object]]
    create: Callable[[Any, str, bytes], None]
    credentials: str


def _s3_arguments(settings: StoreSettings) -> Mapping[str, object]:
    return {
        "key": settings.get("AWS_ACCESS_KEY_ID"),
        "secret": settings.get("AWS_SECRET_ACCESS_KEY"),
        "token": settings.get("AWS_SESSION_TOKEN"),
        "endpoint_url": settings.endpoint,
        "client_kwargs": {"region_name": settings.region} if settings.region else {},
    }


def _gs_arguments(settings: StoreSettings) -> Mapping[str, object]:
    token = settings.get("GOOGLE_APPLICATION_CREDENTIALS")
    return {"endpoint_url": settings.endpoint, **({"token": token} if token else {})}


def _oss_arguments(settings: StoreSettings) -> Mapping[str, object]:
    return {
        "key": settings.get("OSS_ACCESS_KEY_ID"),
        "secret": settings.get("OSS_ACCESS_KEY_SECRET"),
        "endpoint": settings.endpoint or settings.get("OSS_ENDPOINT"),
    }


def _create_by_mode(files: Any, path: str, data: bytes) -> None:
    files.pipe_file(path, data, mode="create")


def _create_by_header(files: Any, path: str, data: bytes) -> None:
    files.pipe_file(path, data, headers={"x-oss-forbid-overwrite": "true"})


_KINDS: Final[Mapping[StoreScheme, _Kind]] = {
    StoreScheme.S3: _Kind(
        module="s3fs",
        name="S3FileSystem",
        arguments=_s3_arguments,
        create=_create_by_mode,
        credentials="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    StoreScheme.GS: _Kind(
        module="gcsfs",
        name="GCSFileSystem",
        arguments=_gs_arguments,
        create=_create_by_mode,
        credentials="GOOGLE_APPLICATION_CREDENTIALS",
    ),
    StoreScheme.OSS: _Kind(
        module="ossfs",
        name="OSSFileSystem",
        arguments=_oss_arguments,
        create=_create_by_header,
        credentials="OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET",
    ),
}


def open_client(address: StoreAddress, settings: StoreSettings) -> ObjectClient:
    """Return the client for an address; no request is made.

    Raises:
        enginesmith_contract.errors.StoreError: `MissingClient`.
    """
    kind = _KINDS[address.scheme]
    try:
        factory = getattr(import_module(kind.module), kind.name)
    except ImportError as error:
        raise client_missing(address.uri, error.name or kind.module) from error
    with translated_client(address.uri, "opening the store", kind.credentials):
        # Not cached by the library: another thread's file system may hold other credentials; nor are listings, since
        # other processes write.
        files = factory(skip_instance_cache=True, use_listings_cache=False, **kind.arguments(settings))
    return ObjectClient(files=files, create=kind.create, credentials=kind.credentials)


@contextmanager
def translated_client(where: str, doing: str, credentials: str) -> Iterator[None]:
    """Turn a client's error into a StoreError; FileNotFoundError passes, since only the caller knows what it means."""
    try:
        yield
    except (EnginesmithError, FileNotFoundError):
        raise
    except Exception as error:  # each client has a tree of exceptions of its own
        why = one_line(str(error)) or type(error).__name__
        if isinstance(error, PermissionError) or "redential" in f"{type(error).__name__} {why}":
            raise access_denied(where, doing, why, credentials) from error
        raise connection_lost(where, doing, why) from error
