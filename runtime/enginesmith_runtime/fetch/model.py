"""Fetches a model from a URI to checked files on the local disk.

    ModelSource ──scheme──> a local path, used in place
                       └──> an Origin ──download──> folder/downloads/<uri>/files ──rename──> folder/models/<digest>

The model is fetched first and refused here if it is not an ONNX file. It names its weights files, which are then
fetched from the same location. Files in `folder/models` are complete and never change; their digests were computed from
the disk.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from enginesmith_contract.errors import SourceError
from enginesmith_contract.preparation import ModelSource
from enginesmith_contract.store_layout import StoredFile, content_digest
from enginesmith_runtime.fetch.download import Downloads, RetryPolicy
from enginesmith_runtime.fetch.external_data import WeightsSpan, check_lengths, read_weights_spans
from enginesmith_runtime.fetch.file_kind import check_not_foreign
from enginesmith_runtime.fetch.local import LocalModel
from enginesmith_runtime.fetch.location import Scheme, local_path, redact, scheme_of
from enginesmith_runtime.fetch.open_origin import open_origin
from enginesmith_runtime.fetch.origin import Origin
from enginesmith_runtime.fetch.progress import Advance
from enginesmith_runtime.fetch.reasons import SourceReason
from enginesmith_runtime.fetch.registry import RegistryOrigin
from enginesmith_runtime.fetch.signatures import check_artifact, check_files, no_signature, signature_file
from enginesmith_runtime.local_files.space import say_bytes
from enginesmith_runtime.progress import Reporter

__all__ = ["FetchedModel", "check_digest", "fetch_model"]


@dataclass(frozen=True, kw_only=True)
class FetchedModel:
    """A model with files on the local disk and their digests.

    Attributes:
        path: Absolute path of the ONNX file. Its external weights are in the same folder, under the names in the model.
            A local model is used in place: it is only read, but its owner may still change it. So code that stores a
            file must use the digest of the stored copy.
        files: The ONNX file, followed by each weights file once, in the model's order.
        source_digest: `content_digest(files)`.
        model_digest: SHA-256 of the ONNX file alone, for the comparison with `ModelSource.sha256`.
        size_bytes: Size of all files in bytes.
        signed_by: Name of the key that signed them; None if no signature was checked.
    """

    path: Path
    files: tuple[StoredFile, ...]
    source_digest: str
    model_digest: str
    size_bytes: int
    signed_by: str | None = None


def fetch_model(
    source: ModelSource,
    folder: Path,
    reporter: Reporter,
    *,
    base: Path | None = None,
    retry: RetryPolicy | None = None,
) -> FetchedModel:
    """Fetch a model and its external weights.

    Args:
        source: Source without credentials, which the clients read from the environment.
        folder: Folder for downloads. If it outlives the process, the next attempt resumes, and an unchanged source is
            not downloaded again.
        reporter: Receives the stage "fetch".
        base: Base folder of a relative path; None for the working directory.
        retry: Limit of retries after a broken connection.

    Raises:
        enginesmith_contract.errors.SourceError: see `SourceReason`.
        enginesmith_contract.errors.ModelError: `NotOnnx` with the kind of the file.
    """
    where = redact(source.uri)
    reporter.begin("fetch", where)
    if scheme_of(source.uri) is Scheme.FILE:
        fetched = _fetch_local(source, folder, reporter, local_path(source.uri, base))
    else:
        with open_origin(source) as origin:
            fetched = _fetch_from(origin, source, folder, reporter, retry or RetryPolicy())
    reporter.end(source=where, sizeBytes=fetched.size_bytes, files=len(fetched.files), digest=fetched.source_digest)
    return fetched


def _fetch_local(source: ModelSource, folder: Path, reporter: Reporter, path: Path) -> FetchedModel:
    local = LocalModel(path)
    spans = _read_spans(path, str(path))
    if local.has_linked_weights(spans):
        # onnx refuses weights files that are links, so they are copied.
        return _fetch_from(local, source, folder, reporter, RetryPolicy())
    names = _names(local.model, spans)
    files = tuple(local.digest(name, Advance(reporter, name, local.size_bytes(name))) for name in names)
    check_digest(source, files[0], str(path))
    check_lengths(spans, {file.path: file.size_bytes for file in files}, str(path))
    return _fetched(path, files, _signed_by(local, source, files, lambda name: (path.parent / name).read_bytes()))


def _fetch_from(
    origin: Origin, source: ModelSource, folder: Path, reporter: Reporter, retry: RetryPolicy
) -> FetchedModel:
    where = redact(source.uri)
    with Downloads.open(folder, source.uri, origin, retry) as downloads:
        model = downloads.fetch(origin.model, reporter)
        with downloads.discarded_on_error():
            check_digest(source, model, where)
            spans = _read_spans(downloads.path(origin.model), where)
        tensors = {span.file: span.tensor for span in reversed(spans)}
        weights = _names(origin.model, spans)[1:]
        files = (model, *(downloads.fetch(name, reporter, tensor=tensors[name]) for name in weights))
        with downloads.discarded_on_error():
            check_lengths(spans, {file.path: file.size_bytes for file in files}, where)

            def read(name: str) -> bytes:
                downloads.fetch(name, reporter)
                return downloads.path(name).read_bytes()

            signed_by = _signed_by(origin, source, files, read)
        return _fetched(downloads.publish(files) / origin.model, files, signed_by)


def _signed_by(
    origin: Origin, source: ModelSource, files: tuple[StoredFile, ...], read: Callable[[str], bytes]
) -> str | None:
    """Return the name of the key that signed a model, or None if no signature is checked."""
    if source.signers is None:
        return None
    name = signature_file(source)
    if name is None:
        if not isinstance(origin, RegistryOrigin):
            raise no_signature(source, redact(source.uri))
        return check_artifact(source, files, origin.signed_artifact(), redact(source.uri))
    where = origin.describe(name)
    try:
        document = read(name)
    except FileNotFoundError as error:
        raise no_signature(source, where) from error
    except SourceError as error:
        if error.reason != SourceReason.NOT_FOUND:
            raise
        raise no_signature(source, where) from error
    return check_files(source, files, document, where)


def _read_spans(model: Path, where: str) -> tuple[WeightsSpan, ...]:
    check_not_foreign(model, where)
    return read_weights_spans(model, where)


def _names(model: str, spans: tuple[WeightsSpan, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((model, *(span.file for span in spans))))


def check_digest(source: ModelSource, model: StoredFile, where: str) -> None:
    """Refuse a file with another digest than the user expects.

    Raises:
        enginesmith_contract.errors.SourceError: `DigestMismatch`.
    """
    if source.sha256 is None or source.sha256.lower() == model.digest:
        return
    raise SourceError(
        "the digest differs",
        where=where,
        why=f"expected sha256 {source.sha256}, found {model.digest} ({say_bytes(model.size_bytes)})",
        remedy="find out who changed it; if the change is intended, put the new digest into the document",
        reason=SourceReason.DIGEST_MISMATCH,
    )


def _fetched(path: Path, files: tuple[StoredFile, ...], signed_by: str | None) -> FetchedModel:
    return FetchedModel(
        path=path,
        files=files,
        source_digest=content_digest(files),
        model_digest=files[0].digest,
        size_bytes=sum(file.size_bytes for file in files),
        signed_by=signed_by,
    )
