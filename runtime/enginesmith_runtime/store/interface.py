"""What a store must do, whatever it lies on."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from enginesmith_contract.store_layout import StoredFile

__all__ = ["Store"]


class Store(Protocol):
    """An input-addressed store. Every method may raise `enginesmith_contract.errors.StoreError`."""

    uri: str

    def put_files(self, folder: Path, paths: Iterable[Path]) -> tuple[StoredFile, ...]:
        """Store files of `folder` as blobs; they are durable when this returns. A blob that exists is not rewritten."""
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
