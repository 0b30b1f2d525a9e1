"""Fetches a single file that is not a model, such as a plugin library or input values, from any source of models."""

import shutil
from pathlib import Path

from enginesmith_contract.errors import SourceError
from enginesmith_contract.preparation import ModelSource
from enginesmith_runtime.fetch.location import Scheme, local_path, redact, scheme_of
from enginesmith_runtime.fetch.reasons import SourceReason, unreadable_file
from enginesmith_runtime.local_files.digests import digest_file
from enginesmith_runtime.local_files.space import say_bytes
from enginesmith_runtime.progress import Reporter

__all__ = ["fetch_file", "fetch_library"]


def fetch_library(
    source: ModelSource,
    target: Path,
    reporter: Reporter,
    *,
    base: Path | None = None,
) -> None:
    """Copy a library to `target`. A download uses the same folder.

    Args:
        source: Source with the digest that the library must have.
        target: Path that does not exist, in an existing folder.
        reporter: Receives the progress of the download. The caller has begun the stage.
        base: Base folder of a relative path; None for the working directory.

    Raises:
        enginesmith_contract.errors.SourceError: see `SourceReason`.
    """
    fetch_file(source, target, reporter, base=base)
    found = digest_file(target)
    if source.sha256 == found.digest:
        return
    target.unlink()
    raise SourceError(
        "the digest differs",
        where=redact(source.uri),
        why=f"expected sha256 {source.sha256}, found {found.digest} ({say_bytes(found.size_bytes)})",
        remedy="find out who changed the library; if the change is intended, put the new digest into the document",
        reason=SourceReason.DIGEST_MISMATCH,
    )


def fetch_file(source: ModelSource, target: Path, reporter: Reporter, *, base: Path | None = None) -> None:
    """Copy a file to `target` without a check of its digest; see `fetch_library`.

    Raises:
        enginesmith_contract.errors.SourceError: see `SourceReason`.
    """
    if scheme_of(source.uri) is Scheme.FILE:
        _copy(local_path(source.uri, base), target)
    else:
        _download(source, target, reporter)


def _copy(path: Path, target: Path) -> None:
    try:
        shutil.copyfile(path, target)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise unreadable_file(path, error, "file") from error


def _download(source: ModelSource, target: Path, reporter: Reporter) -> None:
    # These imports load an HTTP client and the ONNX library, and most builds have no plugins.
    from enginesmith_runtime.fetch.download import Downloads, RetryPolicy
    from enginesmith_runtime.fetch.open_origin import open_origin

    with open_origin(source) as origin, Downloads.open(target.parent, source.uri, origin, RetryPolicy()) as downloads:
        downloads.fetch(origin.model, reporter)
        shutil.move(downloads.path(origin.model), target)
