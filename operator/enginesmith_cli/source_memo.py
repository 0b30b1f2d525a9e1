"""Remembers the digests of local models and calibration data, so that a second `up` reads neither of the two.

An entry holds only while every file has the size, inode and times that it had; and it is written only where those times
lie well before the digest was begun, since a file changed within one tick of the clock looks untouched.
"""

import os
from collections.abc import Collection, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from enginesmith_contract.record import Record

__all__ = ["SourceMemo"]

# The coarsest clock of a common file system (FAT) ticks every two seconds.
_TICK_NS: Final = 2_000_000_000


class _File(Record):
    path: str
    size_bytes: int
    inode: int
    modified_ns: int
    changed_ns: int


class _Entry(Record):
    files: tuple[_File, ...]
    source_digest: str


class SourceMemo:
    """The entries in one folder; a lost or damaged entry only causes another read of the model."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def recall(self, model: Path, sha256_expected: str | None, *, files: Collection[Path] | None = None) -> str | None:
        """Return the source digest of the model at `model`, None where it must be read.

        Args:
            model: absolute path of the ONNX file, or of calibration data.
            sha256_expected: the digest that the user expects of the ONNX file alone.
            files: that are there now; None: those that the ONNX file names.
        """
        try:
            entry = _Entry.from_json(self._path(model).read_bytes())
            if any(_describe(Path(file.path)) != file for file in entry.files):
                return None
            if files is not None and {file.path for file in entry.files} != set(map(str, files)):
                return None
        except (OSError, ValidationError):
            return None
        # With external weights, the source digest is not the ONNX file's own.
        if sha256_expected is not None and (len(entry.files) > 1 or entry.source_digest != sha256_expected):
            return None
        return entry.source_digest

    def remember(self, model: Path, files: Iterable[Path], source_digest: str, *, begun_ns: int) -> None:
        """Keep the digest of a model that was read from `begun_ns` (nanoseconds since the epoch) on."""
        try:
            described = tuple(_describe(file) for file in files)
            if any(max(file.modified_ns, file.changed_ns) > begun_ns - _TICK_NS for file in described):
                return
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._path(model)
            draft = path.with_suffix(f".{os.getpid()}")
            draft.write_bytes(_Entry(files=described, source_digest=source_digest).to_json())
            draft.replace(path)
        except OSError:
            return

    def _path(self, model: Path) -> Path:
        return self._folder / f"{sha256(os.fsencode(model)).hexdigest()}.json"


def _describe(path: Path) -> _File:
    status = path.stat()
    return _File(
        path=str(path),
        size_bytes=status.st_size,
        inode=status.st_ino,
        modified_ns=status.st_mtime_ns,
        changed_ns=status.st_ctime_ns,
    )
