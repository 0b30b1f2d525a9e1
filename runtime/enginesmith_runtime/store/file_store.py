"""An engine store in a folder: a local disk, or a volume that several nodes mount.

Blobs are named by their digest and written first, pointers last (see `enginesmith_contract.store_layout`); each file
appears whole or not at all (see `atomic_files`). A writer that is killed at any moment therefore leaves at most a
temporary file, which a later `open` removes, and no pointer to anything that is not there.
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
    """A store in the folder `root`. Several processes and threads may use it at once.

    Attributes:
        uri: `root` as a file:// URI, which `open_store` takes.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self.uri = self._root.as_uri()

    @classmethod
    def open(cls, root: Path, *, now: float | None = None) -> Self:
        """Return the store and remove what killed writers left in it more than a day ago.

        Args:
            root: need not exist: the first write makes it.
            now: seconds since the epoch; None asks the clock.

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
        """Store files of `folder` as blobs; they are durable when this returns.

        A blob that exists is not rewritten, unless it is no longer what its name says.

        Args:
            folder: what the stored paths are relative to.
            paths: inside `folder`, absolute or relative to it; the one to open first.

        Raises:
            enginesmith_contract.errors.StoreError: `DiskFull`, `ReadOnly`, `AccessDenied`, or a file cannot be read.
        """
        return tuple(self._put_file(folder, path) for path in paths)

    def get_files(self, files: Iterable[StoredFile], folder: Path, *, private: bool = False) -> Path:
        """Lay the blobs out under their paths in `folder`, checking every digest.

        Args:
            files: as a pointer names them, the one to open first.
            folder: made if need be; files of the same paths are replaced.
            private: copies instead of links, for readers that refuse links (onnx loads no linked external weights)
                or want to write.

        Returns:
            Path of the first file. May be links into the store: read only.

        Raises:
            enginesmith_contract.errors.StoreError: `Tampered`, `BlobMissing`, `DiskFull`, `InvalidName`.
        """
        wanted = tuple(files)
        for file in wanted:
            lay_out(self._root, file, folder, private=private)
        return folder / wanted[0].path

    def read_pointer(self, name: str) -> bytes | None:
        """Return a pointer's document, None where there is none."""
        path = self._pointer(name)
        with translated(self._root, f"reading {name}"):
            try:
                return path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def create_pointer(self, name: str, document: bytes) -> bytes:
        """Write a pointer unless it exists; the first one wins. Returns the document that is there afterwards."""
        path = self._pointer(name)
        with translated(self._root, f"writing {name}", needed_bytes=len(document)):
            make_folder(path.parent)
            with temporary_file(path.parent) as (temporary, stream):
                stream.write(document)
                if publish_first(temporary, stream, path):
                    return document
            return path.read_bytes()

    def replace_pointer(self, name: str, document: bytes) -> None:
        """Write a pointer over an older one, whole or not at all."""
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
        """Hold the right to produce the pointer `name`, waiting for another process that has it; Ctrl-C ends the wait.

        The kernel frees it when the holder dies. On a file system without locks, or a read-only one, it does nothing.
        """
        lock = self._root / "locks" / f"{sha256(name.encode()).hexdigest()[:32]}.lock"
        with ExitStack() as stack:
            # Only the taking is translated: what the body raises is its own.
            with translated(self._root, "taking a lock"):
                stack.enter_context(hold_lock(lock))
            yield

    def refresh_pointer(self, name: str) -> None:
        """Make a pointer young because a process relies on it from now on; see `Store.refresh_pointer`."""
        _refresh(self._pointer(name))

    def pointer_entries(self, prefix: str) -> Iterator[PointerEntry]:
        """Yield the pointers below `prefix`, sorted."""
        for name in self.list_pointers(prefix):
            with suppress(FileNotFoundError):
                yield PointerEntry(name=name, written_at=self._pointer(name).stat().st_mtime)

    def delete_pointer(self, name: str) -> None:
        """Delete a pointer; one that is gone is fine."""
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
        # Out of the writers' sight before its age is looked at again: one that refreshed it just now gets it back, one
        # that comes later finds none and writes its own.
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
            # Young first, so that a sweep which has not taken it yet leaves it: what is gone then is written below.
            if _refresh(final) and _holds(final, wanted):
                return wanted
            if free_bytes(self._root) < wanted.size_bytes:
                raise disk_full(self._root, wanted.size_bytes)
            return self._write_blob(source, wanted)

    def _write_blob(self, source: Path, wanted: StoredFile) -> StoredFile:
        folder = (self._root / blob_name(wanted.digest)).parent
        with source.open("rb", buffering=0) as reader, temporary_file(folder) as (temporary, stream):
            # The digest of the copy names the blob: the source may have changed since it was read.
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
    """Make an old file young; returns whether it is there and young."""
    try:
        if time.time() - path.stat().st_mtime >= REFRESH_SECONDS:
            os.utime(path)
    except FileNotFoundError:
        return False
    except PermissionError:
        # Another user's: a blob is written again, a pointer stays as old as it is.
        return False
    return True


def _holds(path: Path, wanted: StoredFile) -> bool:
    try:
        if path.stat().st_size != wanted.size_bytes:
            return False
        return digest_file(path).digest == wanted.digest
    except FileNotFoundError:
        return False
