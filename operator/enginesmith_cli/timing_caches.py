"""The timing caches of a store for the command line: a list, and a file that copies them to another store.

The file is an uncompressed tar, one member for each cache under the name that it has in a store. Nothing here reads
what is in a cache: only TensorRT can, and it says in a build's notes what it does not take.
"""

import io
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from enginesmith_contract.errors import StoreError
from enginesmith_contract.store_layout import (
    StoredFile,
    TimingCachePointer,
    timing_cache_folder_of,
    timing_cache_pointer,
)
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.records import read_record

__all__ = ["Cache", "read_archive", "stored_caches", "write_archive"]

_FOLDER: Final = "timing-caches/"
_PART: Final = re.compile(r"(?!\.+$)[A-Za-z0-9._-]{1,100}")
_ENTRIES: Final = "enginesmith.entries"
_LARGEST: Final = 1 << 28


@dataclass(frozen=True, kw_only=True)
class Cache:
    """One timing cache.

    Attributes:
        folder: `timing_cache_folder` of its GPU model and TensorRT version.
        data: the library's bytes; empty where only the list is wanted.
        size_bytes: of the data.
        entries: measurements in it; None where the library did not say.
        written_at: seconds since the epoch; 0 in a file.
    """

    folder: str
    data: bytes
    size_bytes: int
    entries: int | None = None
    written_at: float = 0.0

    @property
    def version(self) -> str:
        """TensorRT version."""
        return self.folder.split("/")[1]

    @property
    def gpu(self) -> str:
        """GPU product, with its MIG profile."""
        return self.folder.split("/")[2]


def stored_caches(store: Store, *, gpu: str = "", version: str = "", read: bool = False) -> Iterator[Cache]:
    """Yield a store's caches.

    Args:
        store: that has them.
        gpu: GPU product; empty: all.
        version: TensorRT version; empty: all.
        read: whether to read their bytes too.

    Raises:
        StoreError: the store or a cache cannot be read.
    """
    for entry in store.pointer_entries(_FOLDER):
        folder, pointer = timing_cache_folder_of(entry.name), read_record(store, entry.name, TimingCachePointer)
        if folder is None or pointer is None:
            continue
        data = _read(store, pointer.file) if read else b""
        found = Cache(
            folder=folder,
            data=data,
            size_bytes=pointer.file.size_bytes,
            entries=pointer.entries,
            written_at=entry.written_at,
        )
        if gpu in {"", found.gpu} and version in {"", found.version}:
            yield found


def _read(store: Store, file: StoredFile) -> bytes:
    with TemporaryDirectory(prefix="timing-") as folder:
        return store.get_files((file,), Path(folder)).read_bytes()


def write_archive(path: Path, caches: Iterable[Cache]) -> None:
    """Write the caches to a file; the same caches always give the same bytes."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for one in caches:
            member = tarfile.TarInfo(_member_name(one))
            member.size = len(one.data)
            if one.entries is not None:
                member.pax_headers = {_ENTRIES: str(one.entries)}
            archive.addfile(member, io.BytesIO(one.data))


def read_archive(path: Path) -> tuple[Cache, ...]:
    """Return the caches that `write_archive` wrote.

    Raises:
        StoreError: `NotATimingCache`: it is another file, cut short, or altered.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            caches = tuple(_read_member(archive, member, path) for member in archive)
    except tarfile.TarError as error:
        raise _not_one(path, f"no tar archive: {error}") from error
    if not caches:
        raise _not_one(path, "it is empty")
    return caches


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> Cache:
    root, _, rest = member.name.partition("/")
    parts = rest.removesuffix(".cache").split("/")
    right_name = f"{root}/" == _FOLDER and len(parts) == 3 and all(map(_PART.fullmatch, parts))  # noqa: PLR2004 - version, GPU, digest
    stream = archive.extractfile(member) if right_name and member.isfile() and member.size <= _LARGEST else None
    if stream is None:
        raise _not_one(path, f"{member.name[:200]} is not a timing cache")
    data = stream.read()
    entries = member.pax_headers.get(_ENTRIES, "")
    cache = Cache(
        folder=f"{_FOLDER}{parts[0]}/{parts[1]}/",
        data=data,
        size_bytes=len(data),
        entries=int(entries) if entries.isdecimal() else None,
    )
    if _member_name(cache) != member.name:
        raise _not_one(path, f"{member.name} has another digest")
    return cache


def _member_name(cache: Cache) -> str:
    pointer = timing_cache_pointer(cache.folder, sha256(cache.data).hexdigest())
    return f"{pointer.removesuffix('.json')}.cache"


def _not_one(path: Path, why: str) -> StoreError:
    return StoreError(
        "not a file of timing caches",
        where=str(path),
        why=why,
        remedy="give a file from `enginesmith cache export`, or --gpu and --tensorrt for a file from trtexec",
        reason="NotATimingCache",
    )
