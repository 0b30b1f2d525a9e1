"""Cache of the outputs of earlier requests, for requests with the same inputs. It has a size limit in bytes (LRU)."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

import numpy as np

from enginesmith_runtime.engines.interface import Array, DeviceArray, on_host

__all__ = ["ResponseCache"]

_ENTRY_BYTES: Final = 512
_ELEMENT_BYTES: Final = 64
"""Bytes of an entry and of a BYTES element in addition to their contents."""


class ResponseCache:
    """The cache of one model. Safe from any thread.

    Args:
        most_bytes: Limit of the total size of all entries in bytes.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, tuple[Mapping[str, Array], int]] = OrderedDict()
        self._held_bytes = 0

    def find(self, key: bytes) -> Mapping[str, Array] | None:
        """Return the outputs for `key`, or None if there are none."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                return None
            self._entries.move_to_end(key)
            return found[0]

    def keep(self, key: bytes, outputs: Mapping[str, Array | DeviceArray]) -> None:
        """Keep a copy of the outputs, because they may be in an instance's memory."""
        kept = {name: array.copy() for name, array in on_host(outputs).items()}
        size = _ENTRY_BYTES + sum(_size(array) for array in kept.values())
        if size > self._most_bytes:
            return
        with self._lock:
            if key in self._entries:
                return
            self._entries[key] = (kept, size)
            self._held_bytes += size
            while self._held_bytes > self._most_bytes:
                _, (_, freed) = self._entries.popitem(last=False)
                self._held_bytes -= freed


def _size(array: Array) -> int:
    if array.dtype != np.object_:
        return array.nbytes
    strings: list[bytes] = array.ravel().tolist()
    return sum(len(value) + _ELEMENT_BYTES for value in strings)
