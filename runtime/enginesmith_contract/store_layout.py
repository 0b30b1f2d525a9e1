"""Names of all objects in an engine store. They are the same in a folder, a bucket and a registry.

Blobs are addressed by content and written first; pointers are addressed by input and written last, and the first one
stored wins. Nothing is renamed and nothing needs a lock, so a killed writer leaves no partial engine.

    blobs/sha256/<digest>
    preparations/<preparation key>.json    a Preparation
    keys/<engine key>.json                 a Manifest
    histograms/<histogram key>.json        a HistogramsPointer
    timing-caches/<tensorrt version>/<gpu product>/<digest>.json   a TimingCachePointer; one that has all that others
                                           have takes their place
    refit-bases/<refit key>.json           a RefitBasePointer; overwritten where its engine does not serve
"""

import re
from collections.abc import Iterable
from hashlib import sha256

from pydantic import Field

from enginesmith_contract.record import Record

__all__ = [
    "HistogramsPointer",
    "RefitBasePointer",
    "StoredFile",
    "TimingCachePointer",
    "blob_name",
    "content_digest",
    "engine_pointer",
    "histograms_pointer",
    "preparation_pointer",
    "refit_base_pointer",
    "timing_cache_folder",
    "timing_cache_folder_of",
    "timing_cache_pointer",
]

_TIMING_CACHES = "timing-caches/"
_TIMING_CACHE_DEPTH = 3
_SAFE = re.compile(r"[^A-Za-z0-9._-]")


class StoredFile(Record):
    """One file of a prepared model or an engine.

    Attributes:
        path: Relative path. When the files are used, they must have these paths in one folder. The first file of a set
            is the one to open.
        digest: SHA-256 of the file, 64 hexadecimal digits.
        size_bytes: Size in bytes, for a progress bar and a quick first check.
    """

    path: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class TimingCachePointer(Record):
    """Timings that builds measured on one GPU product with one TensorRT version.

    Attributes:
        file: Timing cache in the library's format.
        entries: Number of measurements in the file, as the library counts them; None if the library did not report it.
    """

    file: StoredFile
    entries: int | None = None


class HistogramsPointer(Record):
    """Histograms of the tensors of a model over the calibration data.

    Attributes:
        file: Histograms in the preparation's own format.
    """

    file: StoredFile


class RefitBasePointer(Record):
    """The engine whose weights are replaced instead of a build."""

    engine_key: str


def blob_name(digest: str) -> str:
    """Return the name of the blob with this SHA-256."""
    return f"blobs/sha256/{digest}"


def preparation_pointer(preparation_key: str) -> str:
    """Return the name of the pointer to a preparation."""
    return f"preparations/{preparation_key}.json"


def histograms_pointer(histogram_key: str) -> str:
    """Return the name of the pointer to the histograms of a model and its calibration data."""
    return f"histograms/{histogram_key}.json"


def engine_pointer(engine_key: str) -> str:
    """Return the name of the pointer to an engine, which is its manifest."""
    return f"keys/{engine_key}.json"


def refit_base_pointer(refit_key: str) -> str:
    """Return the name of the pointer to the engine that builds of this refit key start from."""
    return f"refit-bases/{refit_key}.json"


def timing_cache_folder(gpu_product: str, tensorrt_version: str) -> str:
    """Return the prefix of the names of pointers to timing caches that are valid for exactly this pair."""
    return f"{_TIMING_CACHES}{_SAFE.sub('-', tensorrt_version)}/{_SAFE.sub('-', gpu_product)}/"


def timing_cache_pointer(folder: str, digest: str) -> str:
    """Return the name of the pointer to the timing cache with this SHA-256, in a `timing_cache_folder`."""
    # The tag of a registry has at most 128 characters.
    return f"{folder}{digest[:16]}.json"


def timing_cache_folder_of(name: str) -> str | None:
    """Return the folder of a pointer to a timing cache, or None if the name is not such a pointer."""
    if not name.startswith(_TIMING_CACHES):
        return None
    # Earlier releases stored one cache under the name of the folder.
    folder = name.removesuffix(".json") if name.count("/") < _TIMING_CACHE_DEPTH else name.rpartition("/")[0]
    return f"{folder}/"


def content_digest(files: Iterable[StoredFile]) -> str:
    """Return one digest for a set of files: that of a single file, else the SHA-256 of their `path digest` lines."""
    ordered = sorted(files, key=lambda file: file.path)
    if len(ordered) == 1:
        return ordered[0].digest
    return sha256("".join(f"{file.path} {file.digest}\n" for file in ordered).encode()).hexdigest()
