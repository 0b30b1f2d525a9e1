"""Fetch a single file that is no model: a plugin library, from wherever a model may come from."""

import shutil
from pathlib import Path

from enginesmith_contract.errors import SourceError
from enginesmith_contract.preparation import ModelSource
from enginesmith_runtime.fetch.location import Scheme, local_path, redact, scheme_of
from enginesmith_runtime.fetch.reasons import SourceReason
from enginesmith_runtime.local_files.digests import digest_file
from enginesmith_runtime.local_files.space import say_bytes
from enginesmith_runtime.progress import Reporter

__all__ = ["fetch_library"]


def fetch_library(
    source: ModelSource,
    target: Path,
    reporter: Reporter,
    *,
    base: Path | None = None,
) -> None:
    """Copy a library to `target`, whose folder is also where a download lies meanwhile.

    Args:
        source: with the digest that the library must have.
        target: a path that does not exist, in a folder that does.
        reporter: told of the download inside a stage that the caller has begun.
        base: the folder that a relative path starts from; None: the working directory.

    Raises:
        enginesmith_contract.errors.SourceError: see `SourceReason`.
    """
    if scheme_of(source.uri) is Scheme.FILE:
        _copy(local_path(source.uri, base), target)
    else:
        _download(source, target, reporter)
    found = digest_file(target)
    if source.sha256 == found.digest:
        return
    target.unlink()
    raise SourceError(
        "the digest differs",
        where=redact(source.uri),
        why=f"expected sha256 {source.sha256}, found {found.digest} ({say_bytes(found.size_bytes)})",
        remedy="find out who changed the library; where the change is right, put the new digest into the document",
        reason=SourceReason.DIGEST_MISMATCH,
    )


def _copy(path: Path, target: Path) -> None:
    try:
        shutil.copyfile(path, target)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise SourceError(
            "there is no such library",
            where=str(path),
            why=error.strerror or "no such file",
            remedy="check the path: a relative one starts from the folder of the document that names it",
            reason=SourceReason.NOT_FOUND,
        ) from error
    except PermissionError as error:
        raise SourceError(
            "the file may not be read",
            where=str(path),
            remedy="give this user the right to read it",
            reason=SourceReason.ACCESS_DENIED,
        ) from error


def _download(source: ModelSource, target: Path, reporter: Reporter) -> None:
    # These load an HTTP client and the ONNX library, and most builds have no plugins.
    from enginesmith_runtime.fetch.download import Downloads, RetryPolicy
    from enginesmith_runtime.fetch.open_origin import open_origin

    with open_origin(source) as origin, Downloads.open(target.parent, source.uri, origin, RetryPolicy()) as downloads:
        downloads.fetch(origin.model, reporter)
        shutil.move(downloads.path(origin.model), target)
