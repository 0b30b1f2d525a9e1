"""The libraries that reach buckets, hubs and registries: one row for each scheme.

Models (`fetch`) and engines (`store`) are read and written through the same libraries. A row says what a library is
called, what it is made with and where its credentials come from. What an error means is said by the side that asked: a
model that is missing is a mistake, an engine that is missing is one to build.
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
"""What brings every library of this table."""


@dataclass(frozen=True, kw_only=True)
class StorageClient:
    """One library.

    Attributes:
        scheme: beginning of its URIs.
        module: Python module; imported at the first use.
        file_system: class of the fsspec file system; None: a registry, which `registry_session` speaks to.
        place: what follows the scheme in the URI of an engine store.
        credentials: what to set, for messages.
        variables: arguments of the class that environment variables give.
        reads_environment: whether the library reads these variables by itself.
        endpoint: argument of the class for the service's URL.
        takes_region: whether the region of a bucket can be named.
        anonymous: arguments that make it send no credentials; None: it has no such mode.
        create: arguments of `pipe_file` that write an object only where none is; None: engines cannot be stored there.
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
        """Whether an engine store can be there."""
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
        # `If-None-Match: *`, which not every server that speaks S3 knows.
        create={"mode": "create"},
    ),
    StorageClient(
        scheme="gs",
        module="gcsfs",
        file_system="GCSFileSystem",
        credentials="GOOGLE_APPLICATION_CREDENTIALS",
        variables={"token": "GOOGLE_APPLICATION_CREDENTIALS"},
        anonymous={"token": "anon"},
        # A generation of 0.
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
    """Return a new file system; no request is made.

    Args:
        client: row with a file system.
        variable: gives the value of a variable of the row, None where it is not set.
        endpoint: URL of the service; None: the library's own.
        region: region of the bucket; None: the library's own.
        anonymous: send no credentials; only for a row that has such a mode.
        arguments: further arguments of the class.

    Raises:
        ImportError: the library is not installed.
        Exception: whatever the library raises for its arguments.
    """
    given: dict[str, object] = {name: value for name, key in client.variables.items() if (value := variable(key))}
    if endpoint:
        given[client.endpoint] = endpoint
    if client.takes_region and region:
        given["client_kwargs"] = {"region_name": region}
    if anonymous and client.anonymous is not None:
        given |= client.anonymous
    factory = getattr(import_module(client.module), client.file_system or "")
    # Not cached by the library: another thread's file system may hold other credentials or a closed loop.
    return factory(skip_instance_cache=True, **given, **arguments)


def missing_module(client: StorageClient, error: ImportError) -> str:
    """Return why a library cannot be imported."""
    return f"there is no module {error.name or client.module}"


def is_access_denied(error: Exception, text: str) -> bool:
    """Whether a library's error says that its credentials are missing or not enough; `text`: the error's words."""
    return isinstance(error, PermissionError) or "redential" in f"{type(error).__name__} {text}"
