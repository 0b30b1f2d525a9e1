"""Calibration data on this machine: its digest is part of a preparation's key."""

from functools import partial
from pathlib import Path

from enginesmith_cli.source_memo import SourceMemo
from enginesmith_contract.calibration import Calibration
from enginesmith_operator.api.inference_engine import InferenceEngine
from enginesmith_operator.api.translate import model_source, precision_policy
from enginesmith_runtime.fetch.location import Scheme, local_path, scheme_of

__all__ = ["read_digest", "recall_digest", "remember_digest"]


def recall_digest(engine: InferenceEngine, base: Path, memo: SourceMemo) -> str | None:
    """Return the digest of a document's calibration data without reading it; None where it must be read."""
    calibration = precision_policy(engine.spec).calibration
    if calibration is None or calibration.digest is not None:
        return None if calibration is None else calibration.digest
    path = _local(calibration, base)
    files = () if path is None else _files(path, calibration)
    return memo.recall(path, None, files=files) if path is not None and files else None


def remember_digest(engine: InferenceEngine, base: Path, memo: SourceMemo, digest: str, *, begun_ns: int) -> None:
    """Keep the digest of local calibration data that was read from `begun_ns` (nanoseconds since the epoch) on."""
    calibration = precision_policy(engine.spec).calibration
    path = None if calibration is None else _local(calibration, base)
    if calibration is not None and path is not None:
        memo.remember(path, _files(path, calibration), digest, begun_ns=begun_ns)


def read_digest(engine: InferenceEngine, base: Path, scratch: Path) -> str | None:
    """Return the digest of local calibration data, which is read; None where there is none on this machine.

    Raises:
        enginesmith_contract.errors.SourceError: it cannot be read, or is not what the document says.
    """
    calibration = precision_policy(engine.spec).calibration
    if calibration is None or _local(calibration, base) is None:
        return None if calibration is None else calibration.digest
    from enginesmith_runtime.fetch.data import data_source, fetch_data
    from enginesmith_runtime.prepare.quantize.sample_files import select_files
    from enginesmith_runtime.progress import SilentReporter

    source = data_source(calibration, model_source(engine.spec))
    select = partial(select_files, calibration=calibration)
    return fetch_data(source, scratch, SilentReporter(), select=select, base=base).digest


def _local(calibration: Calibration, base: Path) -> Path | None:
    if scheme_of(calibration.source) is not Scheme.FILE:
        return None
    return local_path(calibration.source, base).absolute()


def _files(path: Path, calibration: Calibration) -> tuple[Path, ...]:
    from enginesmith_runtime.fetch.data import local_files
    from enginesmith_runtime.prepare.quantize.sample_files import select_files

    try:
        return local_files(path, partial(select_files, calibration=calibration))
    except OSError:
        return ()
