"""Fetches calibration data, a file or a folder of files, to the local disk and computes its digest.

a local path              used in place
an object prefix          the selected objects below it, downloaded under their own names
an artifact's address     its files, under their titles
another URI               one file: an archive or an array
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from enginesmith_contract.calibration import Calibration
from enginesmith_contract.errors import SourceError
from enginesmith_contract.preparation import ModelSource
from enginesmith_contract.store_layout import StoredFile, content_digest
from enginesmith_runtime.fetch.download import Downloads, RetryPolicy
from enginesmith_runtime.fetch.location import Scheme, local_path, redact, scheme_of
from enginesmith_runtime.fetch.object_store import ObjectStoreOrigin
from enginesmith_runtime.fetch.open_origin import open_origin
from enginesmith_runtime.fetch.origin import Origin
from enginesmith_runtime.fetch.progress import Advance
from enginesmith_runtime.fetch.reasons import SourceReason
from enginesmith_runtime.fetch.registry import RegistryOrigin
from enginesmith_runtime.local_files.digests import digest_file
from enginesmith_runtime.local_files.space import say_bytes
from enginesmith_runtime.progress import Reporter

__all__ = ["FetchedData", "data_source", "fetch_data", "local_files"]

Select = Callable[[Iterable[str]], Sequence[str]]
"""Function that selects names of files, relative to their folder."""

_ONE_FILE: Final = frozenset({Scheme.HTTP, Scheme.HTTPS, Scheme.MS})


@dataclass(frozen=True, kw_only=True)
class FetchedData:
    """Data whose files are on the local disk.

    Attributes:
        path: Path of the folder or the file.
        digest: SHA-256 of a file, or the digest of a folder's file names and digests (`content_digest`).
    """

    path: Path
    digest: str


def data_source(calibration: Calibration, model: ModelSource) -> ModelSource:
    """Return the source of calibration data. It has the options of the model if both have the same scheme."""
    same = urlsplit(calibration.source).scheme == urlsplit(model.uri).scheme
    return ModelSource(uri=calibration.source, sha256=calibration.digest, options=model.options if same else {})


def fetch_data(
    source: ModelSource, folder: Path, reporter: Reporter, *, select: Select = list, base: Path | None = None
) -> FetchedData:
    """Fetch a file, or files of a folder.

    Args:
        source: Source of the data, with the digest that it must have, if any.
        folder: Folder for downloads, as in `fetch_model`.
        reporter: Receives the stage "fetch".
        select: Function that selects the files of a folder.
        base: Base folder of a relative path; None for the working directory.

    Raises:
        enginesmith_contract.errors.SourceError: see `SourceReason`.
    """
    where = redact(source.uri)
    reporter.begin("fetch", where)
    scheme = scheme_of(source.uri)
    if scheme is Scheme.FILE:
        path = local_path(source.uri, base)
        files = _digest_local(path, select, reporter)
    else:
        path, files = _fetch_remote(source, scheme, folder, select, reporter)
    if not files:
        raise SourceError(
            "there is no calibration data",
            where=where,
            why="the folder contains no sample files",
            remedy="check the path of calibration.source",
            reason=SourceReason.NOT_FOUND,
        )
    found = FetchedData(path=path, digest=content_digest(files))
    size_bytes = sum(file.size_bytes for file in files)
    if source.sha256 is not None and source.sha256.lower() != found.digest:
        raise SourceError(
            "the digest of the calibration data differs",
            where=where,
            why=f"expected {source.sha256}, found {found.digest} ({len(files)} file(s), {say_bytes(size_bytes)})",
            remedy="find out who changed the data; if intentional, put the new digest into calibration.digest",
            reason=SourceReason.DIGEST_MISMATCH,
        )
    reporter.end(source=where, sizeBytes=size_bytes, files=len(files))
    return found


def local_files(path: Path, select: Select = list) -> tuple[Path, ...]:
    """Return the file, or the selected files of a folder and its subfolders. Hidden files are omitted.

    Raises:
        OSError: The path cannot be read.
    """
    if not path.is_dir():
        return (path,)
    inside = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    return tuple(path / name for name in _visible(inside, select))


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def _digest_local(path: Path, select: Select, reporter: Reporter) -> tuple[StoredFile, ...]:
    try:
        files = local_files(path, select)
        total = sum(file.stat().st_size for file in files)
        advance = Advance(reporter, path.name, total)
        root = path if path.is_dir() else path.parent
        return tuple(digest_file(file, name=file.relative_to(root).as_posix(), on_bytes=advance) for file in files)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceError(
            "there is no such calibration data",
            where=str(path),
            why=error.strerror or "no such file",
            remedy="check the path: a relative one starts from the folder of the document that names it",
            reason=SourceReason.NOT_FOUND,
        ) from error
    except PermissionError as error:
        raise SourceError(
            "this user may not read the calibration data",
            where=str(error.filename or path),
            remedy="give this user the right to read it",
            reason=SourceReason.ACCESS_DENIED,
        ) from error


def _fetch_remote(
    source: ModelSource, scheme: Scheme, folder: Path, select: Select, reporter: Reporter
) -> tuple[Path, tuple[StoredFile, ...]]:
    if scheme is Scheme.OCI:
        artifact = RegistryOrigin(source, is_model=False)
        titles = artifact.list_files()
        if "#" not in source.uri and len(titles) != 1:
            return _download(artifact, _visible(titles, select), source, folder, reporter)
        return _download_one(artifact, source, folder, reporter)
    if scheme not in _ONE_FILE:
        below = ObjectStoreOrigin(source.model_copy(update={"uri": f"{source.uri.rstrip('/')}/*"}), scheme)
        names = _visible(below.list_files(), select)
        if names:
            return _download(below, names, source, folder, reporter)
        if source.uri.endswith("/"):
            return folder, ()
    with open_origin(source) as origin:
        return _download_one(origin, source, folder, reporter)


def _visible(names: Iterable[str], select: Select) -> tuple[str, ...]:
    return tuple(select(name for name in names if not _is_hidden(name)))


def _download_one(
    origin: Origin, source: ModelSource, folder: Path, reporter: Reporter
) -> tuple[Path, tuple[StoredFile, ...]]:
    path, files = _download(origin, (origin.model,), source, folder, reporter)
    return path / origin.model, files


def _download(
    origin: Origin, names: tuple[str, ...], source: ModelSource, folder: Path, reporter: Reporter
) -> tuple[Path, tuple[StoredFile, ...]]:
    with Downloads.open(folder, source.uri, origin, RetryPolicy()) as downloads:
        files = tuple(downloads.fetch(name, reporter) for name in names)
        return downloads.publish(files), files
