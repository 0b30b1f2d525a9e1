"""Models in S3, Google Cloud Storage, Alibaba OSS and on the Hugging Face Hub, through their fsspec file systems.

Each reads credentials from the environment like its vendor's tools. The file systems cannot resume a download, but they
read ranges and report an object's version, which is enough to implement it.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from enginesmith_contract.errors import EnginesmithError, SourceError
from enginesmith_contract.preparation import ModelSource
from enginesmith_runtime.connection_limits import check_endpoint, refusals_explained
from enginesmith_runtime.fetch.location import Scheme, model_name, redact
from enginesmith_runtime.fetch.options import check_options, is_on
from enginesmith_runtime.fetch.origin import Transfer
from enginesmith_runtime.fetch.reasons import SourceReason
from enginesmith_runtime.storage_clients import (
    CLIENTS,
    INSTALL,
    is_access_denied,
    missing_module,
    open_file_system,
)

__all__ = ["ObjectStoreOrigin"]

_READ_BYTES: Final = 8 << 20
_VERSION_FIELDS: Final = ("ETag", "etag", "crc32c", "md5Hash", "blob_id", "generation", "mtime", "LastModified")


class ObjectStoreOrigin:
    """The folder of a model in an object store.

    Attributes:
        model: File name of the model.
    """

    def __init__(self, source: ModelSource, scheme: Scheme) -> None:
        """Open the client without a request.

        Raises:
            enginesmith_contract.errors.SourceError: `MissingClient`, `UnknownOption`, `NotFound`.
        """
        self._client = CLIENTS[scheme]
        self._uri = source.uri
        check_options(source, self._client.options)
        folder, slash, name = source.uri.partition("://")[2].rpartition("/")
        if not folder or not slash or not name:
            raise SourceError(
                "the address does not name a file",
                where=redact(source.uri),
                remedy=f"write {scheme}://BUCKET/PATH/model.onnx",
                reason=SourceReason.NOT_FOUND,
            )
        self._folder = folder
        self._object = name
        self.model = model_name(name)
        with self._translated(self.model):
            self._files = self._file_system(source)

    def describe(self, name: str) -> str:
        """Return the file's address."""
        return f"{redact(self._uri).rpartition('/')[0]}/{name}"

    @contextmanager
    def open(self, name: str, *, offset: int, validator: str | None) -> Iterator[Transfer]:
        """Look the object up. Its bytes are requested while they are read. See `Origin.open`."""
        path = f"{self._folder}/{self._object if name == self.model else name}"
        with self._translated(name):
            facts = self._files.info(path, refresh=True)
            version = _version(facts)
            start = offset if version is not None and version == validator else 0
            size_bytes = facts.get("size")
            yield Transfer(
                offset=start,
                total_bytes=None if size_bytes is None else int(size_bytes),
                validator=version,
                chunks=self._chunks(path, start),
            )
            if _version(self._files.info(path, refresh=True)) != version:
                raise SourceError(
                    "the object changed while it was read",
                    where=self.describe(name),
                    reason=SourceReason.CHANGED,
                    retry=True,
                )

    def list_files(self) -> tuple[str, ...]:
        """Return the sorted names of all objects below the folder, or none if it is an object itself.

        Raises:
            enginesmith_contract.errors.SourceError: The client failed.
        """
        with self._translated(""):
            found = self._files.find(self._folder)
        inside = (str(path).partition(f"{self._folder}/")[2] for path in found)
        return tuple(sorted(name for name in inside if name and ".." not in name.split("/")))

    def _chunks(self, path: str, start: int) -> Iterator[bytes]:
        with self._files.open(path, "rb", block_size=_READ_BYTES, cache_type="readahead") as stream:
            stream.seek(start)
            while chunk := stream.read(_READ_BYTES):
                yield bytes(chunk)

    def _file_system(self, source: ModelSource) -> Any:
        client = self._client
        check_endpoint(source.options.get("endpoint"))
        try:
            return open_file_system(
                client,
                (lambda _: None) if client.reads_environment else os.environ.get,
                endpoint=source.options.get("endpoint"),
                region=source.options.get("region"),
                anonymous=is_on(source, "anonymous"),
            )
        except ImportError as error:
            raise SourceError(
                f"the client for {client.scheme}:// is not installed",
                where=redact(source.uri),
                why=missing_module(client, error),
                remedy=INSTALL,
                reason=SourceReason.MISSING_CLIENT,
            ) from error

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        where = self.describe(name)
        with refusals_explained(where, SourceError):
            try:
                yield
            except EnginesmithError:
                # Errors of a reporter or the disk inside the `with` are not errors of the client.
                raise
            except FileNotFoundError as error:
                raise SourceError(
                    "there is no such model",
                    where=where,
                    remedy="check bucket and path",
                    reason=SourceReason.NOT_FOUND,
                ) from error
            except Exception as error:  # each client has its own exceptions
                raise self._from_client(error, where) from error

    def _from_client(self, error: Exception, where: str) -> SourceError:
        why = redact(" ".join(str(error).split())) or type(error).__name__
        if is_access_denied(error, why):
            return SourceError(
                "the source denies access to the model",
                where=where,
                why=why,
                remedy=f"set {self._client.credentials}",
                reason=SourceReason.ACCESS_DENIED,
            )
        return SourceError(
            "the connection failed",
            where=where,
            why=why,
            remedy="try again: the download resumes; check the endpoint",
            reason=SourceReason.CONNECTION_LOST,
            retry=True,
        )


def _version(facts: Mapping[str, Any]) -> str | None:
    found = [f"{field}={facts[field]}" for field in _VERSION_FIELDS if facts.get(field)]
    return " ".join([*found, f"size={facts.get('size')}"]) if found else None
