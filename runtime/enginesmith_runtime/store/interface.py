"""What a store must do, whatever it lies on."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from enginesmith_contract.store_layout import StoredFile

__all__ = ["REFRESH_SECONDS", "BlobEntry", "PointerEntry", "Store"]

REFRESH_SECONDS: Final = 3600.0
"""A process makes what it relies on young again if it is older than this, since a sweep judges by age (see `sweep`)."""


@dataclass(frozen=True, kw_only=True)
class PointerEntry:
    """A pointer as a listing shows it.

    Attributes:
        name: as `read_pointer` takes it.
        written_at: when it was last written or refreshed, in seconds since the epoch.
    """

    name: str
    written_at: float


@dataclass(frozen=True, kw_only=True)
class BlobEntry:
    """A blob as a listing shows it; `written_at` as in `PointerEntry`."""

    digest: str
    size_bytes: int
    written_at: float


class Store(Protocol):
    """An input-addressed store. Every method may raise `enginesmith_contract.errors.StoreError`."""

    uri: str

    def put_files(self, folder: Path, paths: Iterable[Path]) -> tuple[StoredFile, ...]:
        """Store files of `folder` as blobs; they are durable and young when this returns.

        A blob that exists is not rewritten, unless its age demands it.
        """
        ...

    def get_files(self, files: Iterable[StoredFile], folder: Path, *, private: bool = False) -> Path:
        """Lay the blobs out under their paths in `folder`, checking every digest.

        Args:
            files: as a pointer names them, the one to open first.
            folder: made if need be.
            private: copies instead of links, for readers that refuse links or want to write.

        Returns:
            Path of the first file. May be links into the store: read only.
        """
        ...

    def read_pointer(self, name: str) -> bytes | None:
        """Return a pointer's document, None where there is none."""
        ...

    def create_pointer(self, name: str, document: bytes) -> bytes:
        """Write a pointer unless it exists; the first one wins. Returns the document that is there afterwards."""
        ...

    def replace_pointer(self, name: str, document: bytes) -> None:
        """Write a pointer over an older one, whole or not at all."""
        ...

    def list_pointers(self, prefix: str) -> Iterator[str]:
        """Yield the names of pointers below `prefix`, sorted."""
        ...

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Hold the right to produce the pointer `name`, waiting for another process that has it.

        An optimisation, never needed for correctness: where a store has no locks it does nothing, and two builders
        that race both finish, the first pointer winning. A holder that dies frees it.
        """
        ...

    def refresh_pointer(self, name: str) -> None:
        """Make a pointer young because a process relies on it from now on; do nothing if it is young, or is gone."""
        ...

    def pointer_entries(self, prefix: str) -> Iterator[PointerEntry]:
        """Yield the pointers below `prefix`, in any order."""
        ...

    def delete_pointer(self, name: str) -> None:
        """Delete a pointer; one that is gone is fine."""
        ...

    def blob_entries(self) -> Iterator[BlobEntry]:
        """Yield the blobs, in any order; none where the service itself looks after blobs that nothing names."""
        ...

    def delete_blob(self, digest: str, *, written_before: float) -> bool:
        """Delete a blob unless it was written or refreshed since; returns whether it was deleted."""
        ...
