"""One file that is no model (a plugin library) from wherever models come from."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from enginesmith_contract.preparation import ModelSource
from enginesmith_contract.store_layout import StoredFile
from enginesmith_runtime.fetch.download import Downloads, RetryPolicy
from enginesmith_runtime.fetch.local import LocalModel
from enginesmith_runtime.fetch.location import Scheme, local_path, redact, scheme_of
from enginesmith_runtime.fetch.model import check_digest
from enginesmith_runtime.fetch.open_origin import open_origin
from enginesmith_runtime.fetch.origin import Origin
from enginesmith_runtime.progress import Reporter

__all__ = ["fetch_file"]


def fetch_file(source: ModelSource, folder: Path, reporter: Reporter) -> tuple[Path, StoredFile]:
    """Return the folder that the file lies in, and the file.

    Args:
        source: its `sha256` is compared with the file's.
        folder: keeps downloads.
        reporter: gets the stage "fetch".

    Raises:
        enginesmith_contract.errors.SourceError: see `SourceReason`.
    """
    where = redact(source.uri)
    reporter.begin("fetch", where)
    with _origin(source) as origin, Downloads.open(folder, source.uri, origin, RetryPolicy()) as downloads:
        file = downloads.fetch(origin.model, reporter)
        with downloads.discarded_on_error():
            check_digest(source, file, where)
        place = downloads.publish((file,))
    reporter.end(source=where, sizeBytes=file.size_bytes, digest=file.digest)
    return place, file


@contextmanager
def _origin(source: ModelSource) -> Iterator[Origin]:
    if scheme_of(source.uri) is Scheme.FILE:
        yield LocalModel(local_path(source.uri, None))
        return
    with open_origin(source) as origin:
        yield origin
