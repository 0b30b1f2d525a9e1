"""A connection's header blocks (HPACK, RFC 7541), decoded by the library `hpack`; a repeated block is decoded once.

A client sends the same few bytes for every call once its fields are in the dynamic table. What they mean depends on the
table alone, so a decoded block is kept until the table changes, and only if decoding it changed nothing.
"""

import logging
from typing import Final

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable
from typing_extensions import override

from enginesmith_runtime.server.transport.http2.bounds import HEADER_BLOCK_BYTES
from enginesmith_runtime.server.transport.http2.faults import ConnectionFault
from enginesmith_runtime.server.transport.http2.request_head import Fields, RequestHead, read_head
from enginesmith_runtime.server.transport.http2.wire import ErrorCode

__all__ = ["HeaderBlocks", "KnownHeads"]

_KEPT_BLOCKS: Final = 64
"""Of a connection; a client has one for each of its methods and kinds of metadata."""

_KEPT_HEADS: Final = 1024
"""Of all connections."""

_LARGEST_KEPT_BYTES: Final = 1024
"""Of a block that is kept."""

# The library describes every field at this level, and asks each time whether it may.
logging.getLogger("hpack").setLevel(logging.INFO)


class KnownHeads:
    """What lists of fields mean, for all connections: different clients' blocks often hold the same fields."""

    def __init__(self) -> None:
        self._heads: dict[tuple[tuple[bytes, bytes], ...], RequestHead] = {}

    def read(self, fields: Fields) -> RequestHead:
        """Return what the fields of a request say; see `read_head`."""
        key = tuple(fields)
        head = self._heads.get(key)
        if head is None:
            head = read_head(fields)
            if len(self._heads) >= _KEPT_HEADS:
                self._heads.clear()
            if head.size <= _LARGEST_KEPT_BYTES:
                self._heads[key] = head
        return head


class HeaderBlocks:
    """The decoder of one connection."""

    def __init__(self, heads: KnownHeads) -> None:
        self._heads = heads
        self._decoder = Decoder(max_header_list_size=HEADER_BLOCK_BYTES)
        self._table = self._decoder.header_table = _WatchedTable()
        self._kept: dict[bytes, RequestHead] = {}
        self._kept_at = self._table.state
        self.find = self._kept.get
        """Returns the head of a request whose block is known, and None for another."""

    def read(self, block: bytes) -> RequestHead:
        """Return what a request's block says.

        Raises:
            ConnectionFault: it cannot be decoded.
        """
        before = self._table.state
        head = self._heads.read(self.fields(block))
        if self._table.state == before and len(block) <= _LARGEST_KEPT_BYTES:
            if len(self._kept) >= _KEPT_BLOCKS:
                self._kept.clear()
            self._kept[block] = head
        return head

    def fields(self, block: bytes) -> Fields:
        """Return the fields of any block.

        Raises:
            ConnectionFault: COMPRESSION_ERROR; it cannot be decoded. ENHANCE_YOUR_CALM; it holds too much.
        """
        try:
            fields = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM, f"a header list has more than {HEADER_BLOCK_BYTES} bytes"
            ) from None
        except (HPACKError, IndexError, ValueError) as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, str(error)) from None
        state = self._table.state
        if state != self._kept_at:
            self._kept_at = state
            self._kept.clear()
        return fields


class _WatchedTable(HeaderTable):
    """Counts what is added."""

    def __init__(self) -> None:
        super().__init__()
        self._added = 0

    @override
    def add(self, name: bytes, value: bytes) -> None:
        self._added += 1
        super().add(name, value)

    @property
    def state(self) -> tuple[int, int, int]:
        """Return what differs whenever the table does: without additions entries can only be lost."""
        return self._added, len(self.dynamic_entries), self.maxsize
