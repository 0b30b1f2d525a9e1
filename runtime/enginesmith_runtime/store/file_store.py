"""An engine store in a folder on a local disk or on a volume that several nodes mount.

Blobs are named by their digest and written first, pointers last (see `enginesmith_contract.store_layout`); each file is
written atomically (see `atomic_files`). A killed writer therefore leaves at most a temporary file, which a later `open`
removes, and never a pointer to a missing blob.
"""

import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Final, Self

from enginesmith_contract.errors import StoreError
from enginesmith_contract.store_layout import StoredFile, blob_name
from enginesmith_runtime.local_files.digests import copy_and_digest, digest_file
from enginesmith_runtime.local_files.locks import hold_lock
from enginesmith_runtime.local_files.space import free_bytes
from enginesmith_runtime.store.atomic_files import (
    TEMPORARY_PREFIX,
    make_folder,
    publish_first,
    publish_over,
    remove_leftovers,
    temporary_file,
)
from enginesmith_runtime.store.failures import disk_full, name_refused, translated
from enginesmith_runtime.store.interface import REFRESH_SECONDS, BlobEntry, PointerEntry
from enginesmith_runtime.store.layout_files import lay_out

__all__ = ["FileStore"]

_LEFTOVER_SECONDS: Final = 24 * 3600.0
_BLOBS: Final = PurePosixPath(blob_name("")).as_posix()


class FileStore:
    """A store in the folder `root`. Several processes and threads may use it at the same time.

    Attributes:
        uri: `root` as a file:// URI for `open_store`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self.uri = self._root.as_uri()

    @classmethod
    def open(cls, root: Path, *, now: float | None = None) -> Self:
        """Return the store, and remove temporary files of killed writers that are older than a day.

        Args:
            root: Folder of the store. It need not exist; the first write creates it.
            now: Time in seconds since the epoch; None for the current time.

        Raises:
            enginesmith_contract.errors.StoreError: `NotAFolder`.
        """
        if root.exists() and not root.is_dir():
            raise StoreError("the engine store is not a folder", where=str(root), reason="NotAFolder")
        store = cls(root)
        before = (time.time() if now is None else now) - _LEFTOVER_SECONDS
        for folder in store._folders_of_writers():
            remove_leftovers(folder, before)
        return store

    def put_files(self, folder: Path, paths: Iterable[Path]) -> tuple[StoredFile, ...]:
        """Store files of `folder` as blobs. They are durable on return.

        An existing blob is rewritten only if its digest is no longer that of its name.

        Args:
            folder: Base folder of the stored paths.
            paths: Paths inside `folder`, absolute or relative to it. The first one is the one to open.

        Raises:
            enginesmith_contract.errors.StoreError: `DiskFull`, `ReadOnly`, `AccessDenied`, or a file cannot be read.
        """
        return tuple(self._put_file(folder, path) for path in paths)

    def get_files(self, files: Iterable[StoredFile], folder: Path, *, private: bool = False) -> Path:
        """Place the blobs under their paths in `folder`, and check every digest.

        Args:
            files: Files as in a pointer. The first one is the one to open.
            folder: Target folder. It is created if necessary, and files with the same paths are replaced.
            private: Whether to create copies instead of links, for readers that refuse links (onnx does) or write.

        Returns:
            Path of the first file. The files may be links into the store and must not be changed.

        Raises:
            enginesmith_contract.errors.StoreError: `Tampered`, `BlobMissing`, `DiskFull`, `InvalidName`.
        """
        wanted = tuple(files)
        for file in wanted:
            lay_out(self._root, file, folder, private=private)
        return folder / wanted[0].path

    def read_pointer(self, name: str) -> bytes | None:
        """Return a pointer's document, or None if there is none."""
        path = self._pointer(name)
        with translated(self._root, f"reading {name}"):
            try:
                return path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def create_pointer(self, name: str, document: bytes) -> bytes:
        """Write a pointer unless it exists. Return the document that the pointer then has."""
        path = self._pointer(name)
        with translated(self._root, f"writing {name}", needed_bytes=len(document)):
            make_folder(path.parent)
            with temporary_file(path.parent) as (temporary, stream):
                stream.write(document)
                if publish_first(temporary, stream, path):
                    return document
            return path.read_bytes()

    def replace_pointer(self, name: str, document: bytes) -> None:
        """Replace a pointer atomically."""
        path = self._pointer(name)
        with translated(self._root, f"writing {name}", needed_bytes=len(document)):
            make_folder(path.parent)
            with temporary_file(path.parent) as (temporary, stream):
                stream.write(document)
                publish_over(temporary, stream, path)

    def list_pointers(self, prefix: str) -> Iterator[str]:
        """Yield the names of pointers below `prefix` ("keys/"), sorted."""
        folder = self._pointer(prefix) if prefix else self._root
        with translated(self._root, f"listing {prefix}"):
            found = sorted(
                PurePosixPath(path.relative_to(self._root)).as_posix()
                for path in folder.rglob("*.json")
                if not path.name.startswith(".")
            )
        yield from found

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Hold the exclusive right to produce the pointer `name`. Wait for another holder; Ctrl-C ends the wait.

        The kernel releases it when the holder ends. On a file system without locks or a read-only one, it does nothing.
        """
        lock = self._root / "locks" / f"{sha256(name.encode()).hexdigest()[:32]}.lock"
        with ExitStack() as stack:
            # Translate only errors of the lock, and not those of the body.
            with translated(self._root, "taking a lock"):
                stack.enter_context(hold_lock(lock))
            yield

    def refresh_pointer(self, name: str) -> None:
        """Refresh the timestamp of a pointer that a process uses; see `Store.refresh_pointer`."""
        _refresh(self._pointer(name))

    def pointer_entries(self, prefix: str) -> Iterator[PointerEntry]:
        """Yield the pointers below `prefix`, sorted."""
        for name in self.list_pointers(prefix):
            with suppress(FileNotFoundError):
                yield PointerEntry(name=name, written_at=self._pointer(name).stat().st_mtime)

    def delete_pointer(self, name: str) -> None:
        """Delete a pointer. A missing pointer is not an error."""
        with translated(self._root, f"deleting {name}"):
            self._pointer(name).unlink(missing_ok=True)

    def blob_entries(self) -> Iterator[BlobEntry]:
        """Yield the blobs, in no order."""
        folder = self._root / _BLOBS
        with translated(self._root, "listing blobs"):
            entries = list(os.scandir(folder)) if folder.is_dir() else []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            with suppress(FileNotFoundError):
                facts = entry.stat()
                yield BlobEntry(digest=entry.name, size_bytes=facts.st_size, written_at=facts.st_mtime)

    def delete_blob(self, digest: str, *, written_before: float) -> bool:
        """Delete a blob unless it was written or refreshed since; see `Store.delete_blob`."""
        path = self._root / blob_name(digest)
        # Move the blob away before its age is checked again. If a writer has just refreshed it, it is moved back; a
        # later writer does not find it and writes it again.
        taken = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(12)}")
        with translated(self._root, f"deleting {blob_name(digest)}"):
            try:
                path.rename(taken)
            except FileNotFoundError:
                return False
            is_old = taken.stat().st_mtime < written_before
            if not is_old:
                with suppress(FileExistsError):
                    os.link(taken, path)
            taken.unlink()
        return is_old

    def _put_file(self, folder: Path, path: Path) -> StoredFile:
        source = folder / path
        name = PurePosixPath(source.relative_to(folder)).as_posix()
        with translated(source, f"reading {name} to store it"):
            wanted = digest_file(source, name=name)
        final = self._root / blob_name(wanted.digest)
        with translated(self._root, f"storing {name}", needed_bytes=wanted.size_bytes):
            make_folder(final.parent)
            # Refresh it first, so that a sweep keeps it. If it is already deleted, it is written below.
            if _refresh(final) and _holds(final, wanted):
                return wanted
            if free_bytes(self._root) < wanted.size_bytes:
                raise disk_full(self._root, wanted.size_bytes)
            return self._write_blob(source, wanted)

    def _write_blob(self, source: Path, wanted: StoredFile) -> StoredFile:
        folder = (self._root / blob_name(wanted.digest)).parent
        with source.open("rb", buffering=0) as reader, temporary_file(folder) as (temporary, stream):
            # Name the blob by the digest of the copy, because the source may have changed since it was read.
            written = copy_and_digest(reader, stream, name=wanted.path)
            final = self._root / blob_name(written.digest)
            if not publish_first(temporary, stream, final) and not _holds(final, written):
                publish_over(temporary, stream, final)
        return written

    def _pointer(self, name: str) -> Path:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or name in ("", "."):
            raise name_refused(self._root, name)
        return self._root / parts

    def _folders_of_writers(self) -> Iterator[Path]:
        for top in (_BLOBS, "keys", "preparations", "histograms", "refit-bases"):
            yield self._root / top
        yield from (self._root / "timing-caches").glob("*/")


def _refresh(path: Path) -> bool:
    """Refresh the timestamp of an old file. Return whether it exists and is recent."""
    try:
        if time.time() - path.stat().st_mtime >= REFRESH_SECONDS:
            os.utime(path)
    except FileNotFoundError:
        return False
    except PermissionError:
        # The file belongs to another user. A blob is then written again, and a pointer keeps its age.
        return False
    return True


def _holds(path: Path, wanted: StoredFile) -> bool:
    try:
        if path.stat().st_size != wanted.size_bytes:
            return False
        return digest_file(path).digest == wanted.digest
    except FileNotFoundError:
        return False
