"""Interface of a source for the downloader: files by name, from any offset, with an identifier of their version."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Origin", "Transfer"]


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """The bytes of one file, from `offset` on.

    Attributes:
        offset: Offset of the first chunk; 0 if the source cannot resume or its file has changed.
        total_bytes: Size of the whole file; None if the source does not report it.
        validator: Identifier that changes with the bytes (an ETag, a digest). If None, bytes of earlier attempts cannot
            be used.
        chunks: Chunks, to be read inside the `with` of `Origin.open`. They raise SourceError, with `retry` after an
            interruption.
    """

    offset: int
    total_bytes: int | None
    validator: str | None
    chunks: Iterator[bytes]


class Origin(Protocol):
    """One model's folder at a source.

    Attributes:
        model: File name of the model.
    """

    model: str

    def describe(self, name: str) -> str:
        """Return the file's address, without secrets, for messages."""
        ...

    def open(self, name: str, *, offset: int, validator: str | None) -> AbstractContextManager[Transfer]:
        """Begin to read a file. `offset` is used only if the file's validator is still `validator`.

        Args:
            name: Name relative to the model's folder and inside it, with forward slashes.
            offset: Number of bytes from an earlier attempt.
            validator: Validator of the file of those bytes; None if there are none.

        Raises:
            enginesmith_contract.errors.SourceError: `retry` is True if another attempt may succeed.
        """
        ...
