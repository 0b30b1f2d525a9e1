"""The timing caches of a device and a library version, kept in the store.

Nothing needs a lock: every cache has a name of its own, and it is deleted only once one that has all its measurements
is there. Two builds that end at once leave two caches, and the next build makes them one. Only the library can combine
two, and it runs in a child process without the store's account: the caches go there and back as files of a folder.

    store ──fetch──> folder ──> library in the child process ──> folder ──store──> store
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from enginesmith_contract.backends import Hardware
from enginesmith_contract.errors import StoreError
from enginesmith_contract.record import Record
from enginesmith_contract.store_layout import (
    TimingCachePointer,
    timing_cache_folder,
    timing_cache_folder_of,
    timing_cache_pointer,
)
from enginesmith_runtime.engines.timing_cache import KeptTimings
from enginesmith_runtime.store.interface import PointerEntry, Store
from enginesmith_runtime.store.records import read_record

__all__ = ["FolderTimingCache", "StoredTimingCache", "timing_cache_place"]

_FILE: Final = "timing.cache"
_MOST: Final = 4
"""Caches that one build reads; there are more only in a registry that deletes nothing, and a newer one has the rest."""
_ATTEMPTS: Final = 3
_KEPT: Final = "kept.json"
_NEW: Final = "new.json"


class _Entry(Record):
    """A cache in the folder: where it is kept in the store, and its file; None: it cannot be read, and why."""

    name: str
    file: str | None = None
    problem: str = ""


class _Kept(Record):
    entries: tuple[_Entry, ...]


class _New(Record):
    """What a build leaves behind: the number of measurements in the new cache, if the library says it."""

    entries: int | None = None


def timing_cache_place(device: Hardware, version: str) -> str | None:
    """Return the folder of a device's caches, None where there is no GPU whose measurements could be kept."""
    if device.product is None:
        return None
    slice_of_it = f"{device.product}-{device.mig_profile}" if device.mig_profile else device.product
    return timing_cache_folder(slice_of_it, version)


class StoredTimingCache:
    """A TimingCache in a store.

    Args:
        store: that has it.
        folder: see `timing_cache_place`.
        work: for scratch files.
    """

    def __init__(self, store: Store, folder: str, work: Path) -> None:
        self._store = store
        self._folder = folder
        self._work = work

    def read(self) -> tuple[KeptTimings, ...]:
        """Return what is stored, the newest first; damaged caches too, for another to take their place.

        Raises:
            StoreError: the store cannot be read.
        """
        kept: tuple[KeptTimings, ...] = ()
        for _ in range(_ATTEMPTS):
            newest = sorted(self._entries(), key=lambda entry: entry.written_at, reverse=True)
            kept = tuple(self._load(entry.name) for entry in newest[:_MOST])
            # One that went between the two looks has gone into another, which a new look finds.
            if all(one.data is not None or one.problem for one in kept):
                break
        return tuple(one for one in kept if one.data is not None or one.problem)

    def replace(self, kept: Sequence[KeptTimings], data: bytes, entries: int | None) -> None:
        """Store `data` and delete `kept`; nothing is written where `data` is stored already.

        Raises:
            StoreError: it cannot be written.
        """
        with TemporaryDirectory(dir=self._work, prefix="timing-") as folder:
            path = Path(folder) / _FILE
            path.write_bytes(data)
            (file,) = self._store.put_files(path.parent, [path])
        name = timing_cache_pointer(self._folder, file.digest)
        self._store.replace_pointer(name, TimingCachePointer(file=file, entries=entries).to_json())
        # A registry may delete nothing; what is left there is read again, and no more.
        with suppress(StoreError):
            for one in kept:
                if one.name != name:
                    self._store.delete_pointer(one.name)

    def _entries(self) -> Iterator[PointerEntry]:
        version = self._folder.removesuffix("/").rpartition("/")[0]
        for entry in self._store.pointer_entries(f"{version}/"):
            if timing_cache_folder_of(entry.name) == self._folder:
                yield entry

    def _load(self, name: str) -> KeptTimings:
        try:
            pointer = read_record(self._store, name, TimingCachePointer)
            if pointer is None:
                return KeptTimings(name=name, data=None)
            with TemporaryDirectory(dir=self._work, prefix="timing-") as folder:
                data = self._store.get_files((pointer.file,), Path(folder)).read_bytes()
        except StoreError as error:
            return KeptTimings(name=name, data=None, problem=error.sentence())
        return KeptTimings(name=name, data=data)


class FolderTimingCache:
    """A TimingCache in a local folder, on its way between a store and a builder's child process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fetch(self, stored: StoredTimingCache) -> None:
        """Copy what is stored into the folder; what goes wrong is kept as the problem of a cache."""
        try:
            kept = stored.read()
        except StoreError as error:
            kept = (KeptTimings(name="", data=None, problem=error.sentence()),)
        self._folder.mkdir()
        entries = []
        for number, one in enumerate(kept):
            file = None if one.data is None else f"{number}.cache"
            if file is not None and one.data is not None:
                (self._folder / file).write_bytes(one.data)
            entries.append(_Entry(name=one.name, file=file, problem=one.problem))
        (self._folder / _KEPT).write_bytes(_Kept(entries=tuple(entries)).to_json())

    def read(self) -> tuple[KeptTimings, ...]:
        """Return what was fetched."""
        kept = _Kept.from_json((self._folder / _KEPT).read_bytes())
        return tuple(
            KeptTimings(
                name=one.name,
                data=None if one.file is None else (self._folder / one.file).read_bytes(),
                problem=one.problem,
            )
            for one in kept.entries
        )

    def replace(self, kept: Sequence[KeptTimings], data: bytes, entries: int | None) -> None:  # noqa: ARG002 - all of them
        """Keep the new cache in the folder, which takes the place of all that was fetched."""
        (self._folder / _FILE).write_bytes(data)
        written = (self._folder / _NEW).with_suffix(".part")
        written.write_bytes(_New(entries=entries).to_json())
        written.rename(self._folder / _NEW)

    def store(self, stored: StoredTimingCache) -> str:
        """Store the new cache, if a build left one; return why it was not stored, empty: it was, or there is none."""
        new = self._folder / _NEW
        if not new.exists():
            return ""
        known = [one for one in self.read() if one.name]
        try:
            stored.replace(known, (self._folder / _FILE).read_bytes(), _New.from_json(new.read_bytes()).entries)
        except StoreError as error:
            return error.sentence()
        return ""
