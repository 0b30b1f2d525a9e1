"""What every kind of source offers to the downloader: files by name, from any offset, with a mark of their version."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Origin", "Transfer"]


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """The bytes of one file, from `offset` on.

    Attributes:
        offset: where `chunks` begin; 0 where the source cannot resume or its file has changed.
        total_bytes: of the whole file, None where the source does not tell.
        validator: changes whenever the bytes do (an ETag, a digest); None: the source has none, so nothing that was
            read earlier can be used.
        chunks: read them inside the `with` of `Origin.open`; raises SourceError, with `retry` where it was interrupted.
    """

    offset: int
    total_bytes: int | None
    validator: str | None
    chunks: Iterator[bytes]


class Origin(Protocol):
    """One model's folder at a source.

    Attributes:
        model: the model's file name.
    """

    model: str

    def describe(self, name: str) -> str:
        """Return the file's address, without secrets, for messages."""
        ...

    def open(self, name: str, *, offset: int, validator: str | None) -> AbstractContextManager[Transfer]:
        """Begin to read a file; `offset` is honoured only while the file's validator is still `validator`.

        Args:
            name: relative to the model's folder, with forward slashes, inside it.
            offset: the count of bytes that an earlier attempt left.
            validator: of the file that those bytes are of; None: nothing is left.

        Raises:
            enginesmith_contract.errors.SourceError: `retry` says whether another attempt may succeed.
        """
        ...
