"""The timing cache of a device and a library version, kept in the store.

It is the one thing that a builder's child process writes to the store itself: two builds that end at once must read,
combine and write one after the other, and only the library can combine.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from enginesmith_contract.backends import Hardware
from enginesmith_contract.errors import StoreError
from enginesmith_contract.store_layout import StoredFile, TimingCachePointer, timing_cache_pointer
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.records import read_record

__all__ = ["StoredTimingCache", "timing_cache_name"]

_FILE = "timing.cache"


def timing_cache_name(device: Hardware, version: str) -> str | None:
    """Return the name of the pointer for a device, None where there is no GPU whose measurements could be kept."""
    if device.product is None:
        return None
    slice_of_it = f"{device.product}-{device.mig_profile}" if device.mig_profile else device.product
    return timing_cache_pointer(slice_of_it, version)


class StoredTimingCache:
    """A TimingCache in a store, under one name."""

    def __init__(self, store: Store, name: str, work: Path) -> None:
        self._store = store
        self._name = name
        self._work = work

    def read(self) -> bytes | None:
        """Return what is stored, None where there is nothing.

        Raises:
            StoreError: the pointer or its blob is not what was written.
        """
        file = self._find()
        return None if file is None else self._load(file)

    def merge(self, combine: Callable[[bytes | None], bytes]) -> None:
        """Store `combine(what is stored now)` while other builders wait; nothing is written where nothing changed.

        Raises:
            StoreError: it cannot be written.
        """
        with self._store.exclusive(self._name):
            try:
                file = self._find()
                current = None if file is None else self._load(file)
            except StoreError:  # damaged: replaced
                file = current = None
            merged = combine(current)
            with TemporaryDirectory(dir=self._work, prefix="timing-") as folder:
                path = Path(folder) / _FILE
                path.write_bytes(merged)
                (stored,) = self._store.put_files(path.parent, [path])
            if file is None or stored.digest != file.digest:
                self._store.replace_pointer(self._name, TimingCachePointer(file=stored).to_json())

    def _find(self) -> StoredFile | None:
        pointer = read_record(self._store, self._name, TimingCachePointer)
        return None if pointer is None else pointer.file

    def _load(self, file: StoredFile) -> bytes:
        with TemporaryDirectory(dir=self._work, prefix="timing-") as folder:
            return self._store.get_files((file,), Path(folder)).read_bytes()
