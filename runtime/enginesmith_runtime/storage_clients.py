"""The client libraries of buckets, hubs and registries: one row for each scheme.

Models (`fetch`) and engines (`store`) are read and written through the same libraries. A row has the name of a library,
its arguments and the source of its credentials. The callers translate errors, because a missing model is an error and a
missing engine is built.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final

__all__ = [
    "CLIENTS",
    "INSTALL",
    "REGISTRY",
    "STORE_CLIENTS",
    "StorageClient",
    "is_access_denied",
    "missing_module",
    "open_file_system",
]

INSTALL: Final = "run: pip install 'enginesmith[sources]'"
"""Command that installs every library of this table."""


@dataclass(frozen=True, kw_only=True)
class StorageClient:
    """One client library.

    Attributes:
        scheme: Scheme of its URIs.
        module: Python module, which is imported at the first use.
        file_system: Class of the fsspec file system; None for a registry, which `registry_session` handles.
        place: Text after the scheme in the URI of an engine store.
        credentials: Variables to set, for messages.
        variables: Arguments of the class by environment variable.
        reads_environment: Whether the library reads these variables itself.
        endpoint: Argument of the class for the URL of the service.
        takes_region: Whether the region of a bucket can be set.
        anonymous: Arguments for access without credentials; None if this is not possible.
        create: Arguments of `pipe_file` that write an object only if it does not exist; None if engines cannot be
            stored there.
    """

    scheme: str
    module: str
    file_system: str | None
    place: str = "bucket/prefix"
    credentials: str
    variables: Mapping[str, str] = field(default_factory=dict)
    reads_environment: bool = True
    endpoint: str = "endpoint_url"
    takes_region: bool = False
    anonymous: Mapping[str, object] | None = None
    create: Mapping[str, object] | None = None

    @property
    def keeps_engines(self) -> bool:
        """Whether the scheme supports engine stores."""
        return self.file_system is None or self.create is not None

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that a model's source may set."""
        region = ("region",) if self.takes_region else ()
        anonymous = ("anonymous",) if self.anonymous is not None else ()
        return ("endpoint", *region, *anonymous)


_ROWS: Final = (
    StorageClient(
        scheme="s3",
        module="s3fs",
        file_system="S3FileSystem",
        credentials="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        variables={"key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY", "token": "AWS_SESSION_TOKEN"},
        takes_region=True,
        anonymous={"anon": True},
        # `If-None-Match: *`, which not every S3 server supports.
        create={"mode": "create"},
    ),
    StorageClient(
        scheme="gs",
        module="gcsfs",
        file_system="GCSFileSystem",
        credentials="GOOGLE_APPLICATION_CREDENTIALS",
        variables={"token": "GOOGLE_APPLICATION_CREDENTIALS"},
        anonymous={"token": "anon"},
        # An expected generation of 0.
        create={"mode": "create"},
    ),
    StorageClient(
        scheme="oss",
        module="ossfs",
        file_system="OSSFileSystem",
        credentials="OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET",
        variables={"key": "OSS_ACCESS_KEY_ID", "secret": "OSS_ACCESS_KEY_SECRET", "endpoint": "OSS_ENDPOINT"},
        reads_environment=False,
        endpoint="endpoint",
        create={"headers": {"x-oss-forbid-overwrite": "true"}},
    ),
    StorageClient(
        scheme="hf",
        module="huggingface_hub",
        file_system="HfFileSystem",
        credentials="HF_TOKEN",
        variables={"token": "HF_TOKEN"},
        endpoint="endpoint",
    ),
    StorageClient(
        scheme="oci",
        module="oras",
        file_system=None,
        place="registry/repository",
        credentials="DOCKER_CONFIG to the folder of a container tool's config.json",
    ),
)
CLIENTS: Final[Mapping[str, StorageClient]] = {row.scheme: row for row in _ROWS}
"""Every row, by its scheme."""
STORE_CLIENTS: Final = tuple(row for row in _ROWS if row.keeps_engines)
"""The rows of the schemes that an engine store may have."""
REGISTRY: Final = CLIENTS["oci"]


def open_file_system(
    client: StorageClient,
    variable: Callable[[str], str | None],
    *,
    endpoint: str | None = None,
    region: str | None = None,
    anonymous: bool = False,
    **arguments: object,
) -> Any:  # noqa: ANN401 - fsspec's file systems have no types
    """Return a new file system without a request.

    Args:
        client: Row with a file system.
        variable: Function that returns the value of a variable of the row, or None if it is not set.
        endpoint: URL of the service; None for the library's default.
        region: Region of the bucket; None for the library's default.
        anonymous: Whether to send no credentials, if the row supports this.
        arguments: Additional arguments of the class.

    Raises:
        ImportError: The library is not installed.
        Exception: An error of the library about its arguments.
    """
    given: dict[str, object] = {name: value for name, key in client.variables.items() if (value := variable(key))}
    if endpoint:
        given[client.endpoint] = endpoint
    if client.takes_region and region:
        given["client_kwargs"] = {"region_name": region}
    if anonymous and client.anonymous is not None:
        given |= client.anonymous
    factory = getattr(import_module(client.module), client.file_system or "")
    # Do not let the library cache it: the file system of another thread may have other credentials or a closed loop.
    return factory(skip_instance_cache=True, **given, **arguments)


def missing_module(client: StorageClient, error: ImportError) -> str:
    """Return why a library cannot be imported."""
    return f"there is no module {error.name or client.module}"


def is_access_denied(error: Exception, text: str) -> bool:
    """Whether a library's error with this `text` means that credentials are missing or not sufficient."""
    return isinstance(error, PermissionError) or "redential" in f"{type(error).__name__} {text}"
