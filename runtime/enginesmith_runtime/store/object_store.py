"""An engine store in a bucket: the layout's names below a prefix, in S3, Google Cloud Storage or Alibaba OSS.

Objects are written atomically, so a killed writer leaves no partial object. A lifecycle rule of the bucket should
remove unfinished multipart uploads. The first pointer wins by a condition of the request. If a server does not support
the condition, the pointer is read before and after the write. Two builders that write one key at the same time may then
both assume that their engine won. This costs a build but never mixes two engines, because a manifest names its blobs by
digest.
"""

import errno
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final

from enginesmith_contract.errors import StoreError
from enginesmith_contract.store_layout import StoredFile, blob_name
from enginesmith_runtime.local_files.digests import digest_file
from enginesmith_runtime.storage_clients import StorageClient
from enginesmith_runtime.store.address import StoreAddress
from enginesmith_runtime.store.failures import blob_damaged, blob_missing, name_refused, translated
from enginesmith_runtime.store.interface import REFRESH_SECONDS, BlobEntry, PointerEntry
from enginesmith_runtime.store.object_client import ObjectClient
from enginesmith_runtime.store.remote_files import lay_out_remote
from enginesmith_runtime.store.settings import StoreSettings

__all__ = ["ObjectStore"]

_READ_BYTES: Final = 8 << 20


class ObjectStore:
    """A store below a bucket's prefix. Any number of processes may use it at the same time.

    Attributes:
        uri: URI for `open_store`.
    """

    def __init__(self, address: StoreAddress, client: StorageClient, settings: StoreSettings) -> None:
        """Open the client without a request.

        Raises:
            enginesmith_contract.errors.StoreError: `MissingClient`.
        """
        self.uri = address.uri
        self._root = address.location
        self._client = ObjectClient(address, client, settings)

    def put_files(self, folder: Path, paths: Iterable[Path]) -> tuple[StoredFile, ...]:
        """Store files of `folder` as blobs; see `Store.put_files`."""
        return tuple(self._put_file(folder, path) for path in paths)

    def get_files(self, files: Iterable[StoredFile], folder: Path, *, private: bool = False) -> Path:  # noqa: ARG002 - always copies
        """Download the blobs to their paths in `folder`, and check every digest; see `Store.get_files`."""
        return lay_out_remote(self.uri, files, folder, self._open_chunks)

    def read_pointer(self, name: str) -> bytes | None:
        """Return a pointer's document, or None if there is none."""
        path = self._path(name)
        with self._translated(f"reading {name}"):
            try:
                return bytes(self._client.files.cat_file(path))
            except FileNotFoundError:
                return None

    def create_pointer(self, name: str, document: bytes) -> bytes:
        """Write a pointer unless it exists. Return the document that the pointer then has."""
        there = self.read_pointer(name)
        if there is not None:
            return there
        path = self._path(name)
        with self._translated(f"writing {name}"), self._bucket_known(name):
            try:
                self._client.create(path, document)
            except FileNotFoundError:
                raise
            except Exception as error:
                # Clients report a failed condition, a conflict and an unknown condition in different ways. The current
                # document distinguishes them.
                there = self.read_pointer(name)
                if there is not None:
                    return there
                if getattr(error, "errno", None) != errno.ENOSYS:
                    raise
                self._client.files.pipe_file(path, document)
        written = self.read_pointer(name)
        return document if written is None else written

    def replace_pointer(self, name: str, document: bytes) -> None:
        """Replace a pointer atomically."""
        with self._translated(f"writing {name}"), self._bucket_known(name):
            self._client.files.pipe_file(self._path(name), document)

    def list_pointers(self, prefix: str) -> Iterator[str]:
        """Yield the names of pointers below `prefix` ("keys/"), sorted."""
        yield from sorted(name for name in self._list(prefix) if name.endswith(".json"))

    def exclusive(self, name: str) -> AbstractContextManager[None]:  # noqa: ARG002 - buckets have no locks
        """Do nothing. Two builders of one key both build, and one wins."""
        return nullcontext()

    def refresh_pointer(self, name: str) -> None:
        """Refresh the timestamp of a pointer that a process uses; see `Store.refresh_pointer`."""
        with self._translated(f"looking at {name}"):
            facts = self._facts(self._path(name))
        if facts is None or _age_seconds(facts) < REFRESH_SECONDS:
            return
        document = self.read_pointer(name)
        if document is not None:
            self.replace_pointer(name, document)

    def pointer_entries(self, prefix: str) -> Iterator[PointerEntry]:
        """Yield the pointers below `prefix`, sorted."""
        for name, facts in sorted(self._list(prefix).items()):
            if name.endswith(".json"):
                yield PointerEntry(name=name, written_at=_modified(facts).timestamp())

    def delete_pointer(self, name: str) -> None:
        """Delete a pointer. A missing pointer is not an error."""
        self._delete(name)

    def blob_entries(self) -> Iterator[BlobEntry]:
        """Yield the blobs, in no order."""
        for name, facts in self._list(blob_name("")).items():
            yield BlobEntry(
                digest=name.removeprefix(blob_name("")),
                size_bytes=int(facts.get("size") or 0),
                written_at=_modified(facts).timestamp(),
            )

    def delete_blob(self, digest: str, *, written_before: float) -> bool:
        """Delete a blob unless it was written since. The check is separate, because buckets have no such condition."""
        name = blob_name(digest)
        with self._translated(f"looking at {name}"):
            facts = self._facts(self._path(name))
        if facts is None or _modified(facts).timestamp() >= written_before:
            return False
        self._delete(name)
        return True

    def _delete(self, name: str) -> None:
        with self._translated(f"deleting {name}"), suppress(FileNotFoundError):
            self._client.files.rm_file(self._path(name))

    def _put_file(self, folder: Path, path: Path) -> StoredFile:
        source = folder / path
        name = PurePosixPath(source.relative_to(folder)).as_posix()
        with translated(source, f"reading {name} to store it"):
            wanted = digest_file(source, name=name)
        target = self._path(blob_name(wanted.digest))
        with self._translated(f"storing {name}"), self._bucket_known(name):
            if not self._holds(target, wanted):
                self._client.files.put_file(str(source), target)
        return wanted

    def _holds(self, path: str, wanted: StoredFile) -> bool:
        facts = self._facts(path)
        if facts is None or facts.get("size") != wanted.size_bytes:
            return False
        return _age_seconds(facts) < REFRESH_SECONDS

    def _facts(self, path: str) -> dict[str, Any] | None:
        try:
            return dict(self._client.files.info(path, refresh=True))
        except FileNotFoundError:
            return None

    def _list(self, prefix: str) -> dict[str, dict[str, Any]]:
        folder = self._path(prefix.rstrip("/")) if prefix else self._root
        with self._translated(f"listing {prefix}"):
            try:
                found = self._client.files.find(folder, detail=True)
            except FileNotFoundError:
                return {}
        return {path.removeprefix(f"{self._root}/"): facts for path, facts in found.items()}

    @contextmanager
    def _open_chunks(self, file: StoredFile) -> Iterator[Iterator[bytes]]:
        path = self._path(blob_name(file.digest))
        with self._translated(f"reading {file.path}"):
            try:
                stream = self._client.files.open(path, "rb", block_size=_READ_BYTES, cache_type="readahead")
            except FileNotFoundError as error:
                raise blob_missing(self.uri, file) from error
        with stream:
            yield self._chunks(stream, file)

    def _chunks(self, stream: Any, file: StoredFile) -> Iterator[bytes]:
        while True:
            with self._translated(f"reading {file.path}"):
                try:
                    chunk = bytes(stream.read(_READ_BYTES))
                except Exception as error:
                    # S3 stores a checksum with each object, and the client checks it.
                    if type(error).__name__ != "FlexibleChecksumError":
                        raise
                    raise blob_damaged(self.uri, file, str(error)) from error
            if not chunk:
                return
            yield chunk

    def _path(self, name: str) -> str:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or name in ("", "."):
            raise name_refused(self.uri, name)
        return f"{self._root}/{parts}"

    def _translated(self, doing: str) -> AbstractContextManager[None]:
        return self._client.translated(doing)

    @contextmanager
    def _bucket_known(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise StoreError(
                f"{name} cannot be stored",
                where=self.uri,
                why=f"there is no bucket {self._root.partition('/')[0]}",
                remedy="create the bucket, or name another store",
                reason="BucketMissing",
            ) from error


def _age_seconds(facts: dict[str, Any]) -> float:
    return (datetime.now(UTC) - _modified(facts)).total_seconds()


def _modified(facts: dict[str, Any]) -> datetime:
    """Return the time of the last write (`LastModified` in S3 and OSS, `updated` in Google); very old if unknown."""
    value = facts.get("LastModified") or facts.get("updated") or facts.get("mtime")
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, int | float):
        value = datetime.fromtimestamp(value, UTC)
    if not isinstance(value, datetime):
        return datetime.fromtimestamp(0, UTC)
    return value if value.tzinfo else value.replace(tzinfo=UTC)
