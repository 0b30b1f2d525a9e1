"""Interface of all engine stores."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from enginesmith_contract.store_layout import StoredFile

__all__ = ["REFRESH_SECONDS", "BlobEntry", "PointerEntry", "Store"]

REFRESH_SECONDS: Final = 3600.0
"""A process refreshes pointers and blobs older than this before it uses them, because a sweep judges by age."""


@dataclass(frozen=True, kw_only=True)
class PointerEntry:
    """A pointer in a listing.

    Attributes:
        name: Name for `read_pointer`.
        written_at: Time of the last write or refresh in seconds since the epoch.
    """

    name: str
    written_at: float


@dataclass(frozen=True, kw_only=True)
class BlobEntry:
    """A blob in a listing; for `written_at` see `PointerEntry`."""

    digest: str
    size_bytes: int
    written_at: float


class Store(Protocol):
    """An input-addressed store. Every method may raise `enginesmith_contract.errors.StoreError`."""

    uri: str

    def put_files(self, folder: Path, paths: Iterable[Path]) -> tuple[StoredFile, ...]:
        """Store files of `folder` as blobs. On return they are durable and have a recent timestamp.

        An existing blob is rewritten only if its age requires it.
        """
        ...

    def get_files(self, files: Iterable[StoredFile], folder: Path, *, private: bool = False) -> Path:
        """Place the blobs under their paths in `folder`, and check every digest.

        Args:
            files: Files as in a pointer. The first one is the one to open.
            folder: Target folder, which is created if necessary.
            private: Whether to create copies instead of links, for readers that refuse links or write.

        Returns:
            Path of the first file. The files may be links into the store and must not be changed.
        """
        ...

    def read_pointer(self, name: str) -> bytes | None:
        """Return a pointer's document, or None if there is none."""
        ...

    def create_pointer(self, name: str, document: bytes) -> bytes:
        """Write a pointer unless it exists. Return the document that the pointer then has."""
        ...

    def replace_pointer(self, name: str, document: bytes) -> None:
        """Replace a pointer atomically."""
        ...

    def list_pointers(self, prefix: str) -> Iterator[str]:
        """Yield the names of pointers below `prefix`, sorted."""
        ...

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Hold the exclusive right to produce the pointer `name`, and wait for another holder.

        It is an optimisation and not necessary for correctness. In a store without locks it does nothing: two builders
        both finish, and the first pointer wins. It is released when the holder ends.
        """
        ...

    def refresh_pointer(self, name: str) -> None:
        """Refresh the timestamp of a pointer that a process uses, unless it is recent or missing."""
        ...

    def pointer_entries(self, prefix: str) -> Iterator[PointerEntry]:
        """Yield the pointers below `prefix`, in any order."""
        ...

    def delete_pointer(self, name: str) -> None:
        """Delete a pointer. A missing pointer is not an error."""
        ...

    def blob_entries(self) -> Iterator[BlobEntry]:
        """Yield the blobs in any order, or none if the service itself deletes unreferenced blobs."""
        ...

    def delete_blob(self, digest: str, *, written_before: float) -> bool:
        """Delete a blob unless it was written or refreshed since `written_before`. Return whether it was deleted."""
        ...
