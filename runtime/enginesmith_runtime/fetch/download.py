"""Resumable downloads, which are published only when they are complete.

    <folder>/downloads/<SHA-256 of the URI>/    locked by one process at a time
        parts/<SHA-256 of the file's name>.part and .json   bytes so far, and the version of their file
        files/<name>                            complete; the model's other files are still missing
        record.json                             the last published files, reused while the source does not change
    <folder>/models/<source digest>/<name>      published: complete and never changed again

A URI may contain a signature, so its digest is used in names.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Self, TypeVar

from pydantic import ValidationError

from enginesmith_contract.errors import SourceError
from enginesmith_contract.record import Record
from enginesmith_contract.store_layout import StoredFile, content_digest
from enginesmith_runtime.fetch.external_data import missing_weights
from enginesmith_runtime.fetch.origin import Origin, Transfer
from enginesmith_runtime.fetch.progress import Advance
from enginesmith_runtime.fetch.reasons import SourceReason
from enginesmith_runtime.local_files.digests import digest_file
from enginesmith_runtime.local_files.locks import hold_lock
from enginesmith_runtime.local_files.space import free_bytes, is_disk_full, say_bytes
from enginesmith_runtime.progress import Reporter

__all__ = ["Downloads", "RetryPolicy"]

_R = TypeVar("_R", bound=Record)


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Limit of retries: `attempts` in a row without a new byte, with doubling pauses between them."""

    attempts: int = 5
    first_pause_seconds: float = 0.5

    def pause_seconds(self, failures: int) -> float:
        """Return the pause after this number of failures in a row (1 for the first)."""
        return min(30.0, self.first_pause_seconds * 2.0 ** (failures - 1))


class _Part(Record):
    """Version of the file that the bytes belong to. `file` is set when they are complete."""

    validator: str | None = None
    file: StoredFile | None = None


class _Published(Record):
    source_digest: str
    parts: tuple[_Part, ...]


class Downloads:
    """The downloads of one URI, which this process has locked (see the module)."""

    def __init__(self, folder: Path, uri: str, origin: Origin, retry: RetryPolicy) -> None:
        self._models = folder / "models"
        self._folder = folder / "downloads" / _digest(uri)
        self._origin = origin
        self._retry = retry
        self._parts: dict[str, _Part] = {}
        self._paths: dict[str, Path] = {}

    @classmethod
    @contextmanager
    def open(cls, folder: Path, uri: str, origin: Origin, retry: RetryPolicy) -> Iterator[Self]:
        """Lock the downloads of the URI, and wait if another process has the lock."""
        downloads = cls(folder, uri, origin, retry)
        with ExitStack() as stack:
            with _full_disk_told(downloads._folder, None):
                stack.enter_context(hold_lock(downloads._folder.with_suffix(".lock")))
                for name in ("parts", "files"):
                    (downloads._folder / name).mkdir(parents=True, exist_ok=True)
            yield downloads

    def fetch(self, name: str, reporter: Reporter, *, tensor: str = "") -> StoredFile:
        """Download one file, or continue an earlier attempt.

        Args:
            name: Name relative to the model's folder.
            reporter: Receives the progress of this file.
            tensor: Name of a tensor in the file, for messages; empty for the model itself.

        Raises:
            enginesmith_contract.errors.SourceError: see `SourceReason`.
        """
        failures = 0
        furthest = self._size_so_far(name)
        while True:
            try:
                part = self._attempt(name, reporter)
                break
            except SourceError as error:
                if tensor and error.reason == SourceReason.NOT_FOUND:
                    raise missing_weights(name, tensor, self._origin.describe(self._origin.model)) from error
                if not error.retry:
                    raise
                reached = self._size_so_far(name)
                failures = 1 if reached > furthest else failures + 1
                furthest = max(furthest, reached)
                if failures >= self._retry.attempts:
                    raise
                time.sleep(self._retry.pause_seconds(failures))
        if part.file is None:
            raise AssertionError(name)
        self._parts[name] = part
        return part.file

    def path(self, name: str) -> Path:
        """Return the path of a fetched file before `publish`."""
        return self._paths[name]

    @contextmanager
    def discarded_on_error(self) -> Iterator[None]:
        """Discard all downloads of this URI if the body fails, because the files are not the expected ones."""
        try:
            yield
        except Exception:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def publish(self, files: tuple[StoredFile, ...]) -> Path:
        """Move the complete files to their final folder, and return it."""
        source_digest = content_digest(files)
        target = self._models / source_digest
        if not all(_is_whole(target / file.path, file) for file in files):
            self._move_to(target, files)
        record = _Published(source_digest=source_digest, parts=tuple(self._parts.values()))
        _write(self._folder / "record.json", record)
        shutil.rmtree(self._folder / "files", ignore_errors=True)
        shutil.rmtree(self._folder / "parts", ignore_errors=True)
        return target

    def _move_to(self, target: Path, files: tuple[StoredFile, ...]) -> None:
        staging = self._folder / "files"
        for file in files:
            if self._paths[file.path] != staging / file.path:
                (staging / file.path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._paths[file.path], staging / file.path)
        self._models.mkdir(parents=True, exist_ok=True)
        # Another URI may have published the same files meanwhile. Complete files can be used.
        with hold_lock(target.with_suffix(".lock")):
            if all(_is_whole(target / file.path, file) for file in files):
                return
            shutil.rmtree(target, ignore_errors=True)
            staging.rename(target)

    def _attempt(self, name: str, reporter: Reporter) -> _Part:
        part_path = self._part(name)
        known, known_path = self._known(name)
        validator = _read(_meta(part_path), _Part()).validator
        offset = self._size_so_far(name) if validator else 0
        if known.file is not None:
            offset = 0
        with self._origin.open(name, offset=offset, validator=validator) as transfer:
            if known.file is not None and known.validator is not None and transfer.validator == known.validator:
                self._paths[name] = known_path
                return known
            self._receive(name, transfer, reporter)
        return self._complete(name, transfer)

    def _receive(self, name: str, transfer: Transfer, reporter: Reporter) -> None:
        path = self._part(name)
        total = transfer.total_bytes
        needed = None if total is None else total - transfer.offset
        if needed is not None and needed > free_bytes(self._folder):
            raise _disk_full(self._folder, needed)
        advance = Advance(reporter, name, total, transfer.offset)
        try:
            with _full_disk_told(self._folder, needed), path.open("ab") as stream:
                # Truncate the part before its version is written. A kill in between leaves an empty part, never a mixed
                # one.
                stream.truncate(transfer.offset)
                _write(_meta(path), _Part(validator=transfer.validator))
                for chunk in transfer.chunks:
                    stream.write(chunk)
                    advance(len(chunk))
                stream.flush()
                os.fsync(stream.fileno())
        except SourceError as error:
            if error.reason == SourceReason.DISK_FULL:
                path.unlink(missing_ok=True)
            raise

    def _complete(self, name: str, transfer: Transfer) -> _Part:
        path = self._part(name)
        found = digest_file(path, name=name)
        if transfer.total_bytes is not None and found.size_bytes != transfer.total_bytes:
            if found.size_bytes > transfer.total_bytes:
                path.unlink()
            raise SourceError(
                "the source ended early" if found.size_bytes < transfer.total_bytes else "the source sent too much",
                where=self._origin.describe(name),
                why=f"{found.size_bytes} of {transfer.total_bytes} bytes were received",
                remedy="try again; if it repeats, the file at the source is damaged",
                reason=SourceReason.TRUNCATED,
                retry=True,
            )
        part = _Part(validator=transfer.validator, file=found)
        target = self._folder / "files" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(_meta(path), part)
        path.replace(target)
        self._paths[name] = target
        return part

    def _known(self, name: str) -> tuple[_Part, Path]:
        """Return a complete file of an earlier attempt that has not changed on the disk."""
        staged = self._folder / "files" / name
        part = _read(_meta(self._part(name)), _Part())
        if part.file is not None and _is_whole(staged, part.file):
            return part, staged
        earlier = self._published.get(name)
        if earlier is not None and earlier[0].file is not None and _is_whole(earlier[1], earlier[0].file):
            return earlier
        return _Part(), staged

    @cached_property
    def _published(self) -> dict[str, tuple[_Part, Path]]:
        """Return the last published files by name. A folder may contain many thousands of files."""
        record = _read(self._folder / "record.json", _Published(source_digest="", parts=()))
        folder = self._models / record.source_digest
        return {part.file.path: (part, folder / part.file.path) for part in record.parts if part.file is not None}

    def _part(self, name: str) -> Path:
        return self._folder / "parts" / f"{_digest(name)}.part"

    def _size_so_far(self, name: str) -> int:
        try:
            return self._part(name).stat().st_size
        except FileNotFoundError:
            return 0


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _meta(part: Path) -> Path:
    return part.with_suffix(".json")


def _write(path: Path, record: Record) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_bytes(record.to_json())
    temporary.replace(path)


def _read(path: Path, default: _R) -> _R:
    try:
        return type(default).from_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return default


def _is_whole(path: Path, file: StoredFile) -> bool:
    try:
        return path.stat().st_size == file.size_bytes and digest_file(path).digest == file.digest
    except (FileNotFoundError, NotADirectoryError):
        return False


@contextmanager
def _full_disk_told(folder: Path, needed_bytes: int | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise _disk_full(folder, needed_bytes) from error
        raise SourceError("the download cannot be written", where=str(folder), why=error.strerror or "") from error


def _disk_full(folder: Path, needed_bytes: int | None) -> SourceError:
    needed = "" if needed_bytes is None else f"{say_bytes(needed_bytes)} are needed, "
    return SourceError(
        "the disk is full",
        where=str(folder.parent),
        why=f"{needed}{say_bytes(free_bytes(folder))} are free",
        remedy="free some space, or set another folder for downloads (ENGINESMITH_HOME)",
        reason=SourceReason.DISK_FULL,
        retry=False,
    )
