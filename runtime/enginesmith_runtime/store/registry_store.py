"""An engine store in a repository of an OCI registry. A pointer is an artifact, and its blobs are the layers.

    tag keys__<engine key> ──> manifest ── config:  the pointer's document (media type by kind of pointer)
                                       └─ layers:   the files that the document names, titled as container tools do

A registry shows a blob only after its digest was checked, and accepts a manifest only if its blobs exist. So the
registry itself enforces the order "blobs first, pointer last". Layers protect the blobs from the registry's garbage
collection. The distribution API has no conditional write of a tag, so the tag is read before and after the write. Two
builders that write one key at the same time may both assume that their engine won, and the last tag stays. This costs a
build but never mixes two engines. With immutable tags it cannot happen.
"""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, Final

from enginesmith_contract.errors import StoreError
from enginesmith_contract.store_layout import StoredFile
from enginesmith_runtime.local_files.digests import digest_file
from enginesmith_runtime.store.address import StoreAddress
from enginesmith_runtime.store.failures import blob_missing, translated
from enginesmith_runtime.store.interface import REFRESH_SECONDS, BlobEntry, PointerEntry
from enginesmith_runtime.store.pointer_documents import named_files
from enginesmith_runtime.store.registry_client import MANIFEST_TYPE, RegistryClient, open_file
from enginesmith_runtime.store.registry_tags import name_of_tag, tag_of_name
from enginesmith_runtime.store.remote_files import lay_out_remote
from enginesmith_runtime.store.settings import StoreSettings

__all__ = ["RegistryStore"]

_CONFIG_TYPES: Final = {
    "keys": "application/vnd.enginesmith.engine.v1+json",
    "preparations": "application/vnd.enginesmith.preparation.v1+json",
    "timing-caches": "application/vnd.enginesmith.timing-cache.v1+json",
}
_OTHER_TYPE: Final = "application/vnd.enginesmith.pointer.v1+json"
_FILE_TYPE: Final = "application/vnd.enginesmith.file.v1"
_EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
_EMPTY: Final = b"{}"
_TITLE: Final = "org.opencontainers.image.title"
_CREATED: Final = "org.opencontainers.image.created"


class RegistryStore:
    """A store in one repository. Any number of processes may use it at the same time.

    Attributes:
        uri: URI for `open_store`.
    """

    def __init__(self, address: StoreAddress, settings: StoreSettings) -> None:
        self.uri = address.uri
        self._client = RegistryClient(address, settings)

    def put_files(self, folder: Path, paths: Iterable[Path]) -> tuple[StoredFile, ...]:
        """Store files of `folder` as blobs; see `Store.put_files`."""
        return tuple(self._put_file(folder, path) for path in paths)

    def get_files(self, files: Iterable[StoredFile], folder: Path, *, private: bool = False) -> Path:  # noqa: ARG002 - always copies
        """Download the blobs to their paths in `folder`, and check every digest; see `Store.get_files`."""
        return lay_out_remote(self.uri, files, folder, self._open_chunks)

    def read_pointer(self, name: str) -> bytes | None:
        """Return a pointer's document, or None if there is none."""
        found = self._client.read_manifest(tag_of_name(self.uri, name))
        if found is None:
            return None
        file = _config_of(self.uri, name, found[1])
        with self._open_chunks(file) as chunks:
            document = b"".join(chunks)
        if sha256(document).hexdigest() != file.digest:
            raise _unreadable(self.uri, name, "its document has another digest")
        return document

    def create_pointer(self, name: str, document: bytes) -> bytes:
        """Write a pointer unless it exists. Return the document that the pointer then has."""
        there = self.read_pointer(name)
        if there is not None:
            return there
        self.replace_pointer(name, document)
        written = self.read_pointer(name)
        return document if written is None else written

    def replace_pointer(self, name: str, document: bytes) -> None:
        """Replace a pointer atomically."""
        tag = tag_of_name(self.uri, name)
        files = named_files(document)
        self._put_bytes(document)
        if not files:
            self._put_bytes(_EMPTY)
        self._client.put_manifest(tag, _manifest(name, document, files))

    def list_pointers(self, prefix: str) -> Iterator[str]:
        """Yield the names of pointers below `prefix` ("keys/"), sorted."""
        names = (name_of_tag(tag) for tag in self._client.list_tags())
        yield from sorted(name for name in names if name is not None and name.startswith(prefix))

    def exclusive(self, name: str) -> AbstractContextManager[None]:  # noqa: ARG002 - registries have no locks
        """Do nothing. Two builders of one key both build, and one wins."""
        return nullcontext()

    def refresh_pointer(self, name: str) -> None:
        """Refresh the timestamp of a pointer that a process uses; see `Store.refresh_pointer`."""
        found = self._client.read_manifest(tag_of_name(self.uri, name))
        if found is None or time.time() - _written_at(found[1]) < REFRESH_SECONDS:
            return
        document = self.read_pointer(name)
        if document is not None:
            self.replace_pointer(name, document)

    def pointer_entries(self, prefix: str) -> Iterator[PointerEntry]:
        """Yield the pointers below `prefix`, sorted. This needs a request for each."""
        for name in self.list_pointers(prefix):
            found = self._client.read_manifest(tag_of_name(self.uri, name))
            if found is not None:
                yield PointerEntry(name=name, written_at=_written_at(found[1]))

    def delete_pointer(self, name: str) -> None:
        """Delete a pointer's artifact. A missing one is not an error."""
        found = self._client.read_manifest(tag_of_name(self.uri, name))
        if found is not None:
            self._client.delete_manifest(found[0])

    def blob_entries(self) -> Iterator[BlobEntry]:
        """Yield nothing. A registry does not list blobs, and its garbage collection deletes unreferenced ones."""
        return iter(())

    def delete_blob(self, digest: str, *, written_before: float) -> bool:  # noqa: ARG002 - see `blob_entries`
        """Do nothing and return False."""
        return False

    def _put_file(self, folder: Path, path: Path) -> StoredFile:
        source = folder / path
        name = PurePosixPath(source.relative_to(folder)).as_posix()
        with translated(source, f"reading {name} to store it"):
            wanted = digest_file(source, name=name)
        if not self._client.has_blob(wanted.digest):
            self._client.put_blob(wanted.digest, open_file(source))
        return wanted

    def _put_bytes(self, data: bytes) -> None:
        digest = sha256(data).hexdigest()
        if not self._client.has_blob(digest):
            self._client.put_blob(digest, data)

    @contextmanager
    def _open_chunks(self, file: StoredFile) -> Iterator[Iterator[bytes]]:
        with self._client.open_blob(file.digest) as chunks:
            if chunks is None:
                raise blob_missing(self.uri, file)
            yield chunks


def _manifest(name: str, document: bytes, files: tuple[StoredFile, ...]) -> bytes:
    layers = [
        _descriptor(_FILE_TYPE, file.digest, file.size_bytes) | {"annotations": {_TITLE: file.path}} for file in files
    ]
    kind = _CONFIG_TYPES.get(name.partition("/")[0], _OTHER_TYPE)
    value = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": kind,
        "config": _descriptor(kind, sha256(document).hexdigest(), len(document)),
        "layers": layers or [_descriptor(_EMPTY_TYPE, sha256(_EMPTY).hexdigest(), len(_EMPTY))],
        "annotations": {_CREATED: datetime.now(UTC).isoformat(timespec="seconds")},
    }
    return json.dumps(value, separators=(",", ":")).encode()


def _descriptor(media_type: str, digest: str, size_bytes: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size_bytes}


def _written_at(manifest: bytes) -> float:
    """Return when a pointer was written. Without the annotation it counts as new, so that no sweep deletes it."""
    try:
        return datetime.fromisoformat(json.loads(manifest)["annotations"][_CREATED]).timestamp()
    except (ValueError, KeyError, TypeError):
        return time.time()


def _config_of(where: str, name: str, manifest: bytes) -> StoredFile:
    try:
        config = json.loads(manifest)["config"]
        digest = str(config["digest"]).removeprefix("sha256:")
        return StoredFile(path=name, digest=digest, size_bytes=config["size"])
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(where, name, "its artifact has no document") from error


def _unreadable(where: str, name: str, why: str) -> StoreError:
    return StoreError(
        "this pointer is not in Enginesmith's format",
        where=f"{where}, {name}",
        why=why,
        remedy="delete its tag and build again",
        reason="PointerUnreadable",
    )
