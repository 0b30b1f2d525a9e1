"""The hand-over of an engine to the user's metric, and what becomes of it then.

    container `build`         container `metric`      container `verdict`
    engine's files ──> store
    samples ────────────────> judges
    candidate.json ─────────────────────────────────> read, with the result ──> pointer, or the gate failed

The three run one after another in one pod. What the metric writes is the result alone: the candidate is in a folder
that its container does not have.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import SpecError, StoreError, VerificationError
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.metric_container import (
    DATA_FOLDER,
    INDEX_FILE,
    RESULT_FILE,
    RESULT_FOLDER,
    MetricContainer,
    MetricIndex,
    MetricVerdict,
    judge_result,
)
from enginesmith_contract.verification import Verification, VerificationStatus
from enginesmith_runtime.build.kept_layers import advice_on_layers
from enginesmith_runtime.build.metric_files import read_result
from enginesmith_runtime.store.records import parse_record

__all__ = ["MetricFolders", "folders_for", "judge_candidate", "leave_candidate", "require_run", "require_same"]

_CANDIDATE = "candidate.json"
_CURE_OF_BOUNDS = "change the bounds of verification.metricContainer if the task allows it"


class MetricFolders(NamedTuple):
    """Where samples, candidate and result lie."""

    candidate: Path
    data: Path = Path(DATA_FOLDER)
    result: Path = Path(RESULT_FOLDER)


def folders_for(container: MetricContainer | None, folders: MetricFolders | None) -> MetricFolders | None:
    """Return the folders if a metric is to judge; None: there is none.

    Raises:
        SpecError: `MetricNotRun`: there is a metric, and nothing here runs it.
    """
    if container is None:
        return None
    if folders is None:
        raise SpecError(
            "the metric is a container, and only a cluster runs it",
            where="verification.metricContainer",
            why="an engine that it has not judged must not be served",
            remedy="apply the document to a cluster, or remove verification.metricContainer from the copy that is used"
            " on this machine",
            reason="MetricNotRun",
        )
    return folders


def require_run(verification: Verification) -> None:
    """Refuse an engine without answers, which a metric cannot judge.

    Raises:
        SpecError: `MetricNotRun`.
    """
    if verification.status is VerificationStatus.NOT_RUN:
        raise SpecError(
            "the metric has no answers of the engine",
            where="verification.metricContainer",
            why=f"the engine did not run where it was built: {verification.reason}",
            remedy="build the engine on the hardware that it is for, or remove verification.metricContainer",
            reason="MetricNotRun",
        )


def leave_candidate(folders: MetricFolders, manifest: Manifest) -> None:
    """Leave the manifest of an engine, whose files are stored, to the container that reads the verdict."""
    (folders.candidate / _CANDIDATE).write_bytes(manifest.to_json())


def judge_candidate(request: BuildRequest, folders: MetricFolders) -> Manifest:
    """Return the manifest of an engine that the metric lets pass.

    Raises:
        VerificationError: the metric refuses the engine, or left no result.
        SpecError: the request has no metric.
    """
    container = request.verification.metric_container
    if container is None:
        raise SpecError("the request has no metric", where="verification.metricContainer")
    manifest = parse_record((folders.candidate / _CANDIDATE).read_bytes(), Manifest, _CANDIDATE)
    index = MetricIndex.from_json((folders.data / INDEX_FILE).read_bytes())
    verdict = judge_result(container, read_result(folders.result / RESULT_FILE), len(index.samples))
    _raise_if_refused(verdict, manifest.arithmetic.precision)
    verification = manifest.verification.model_copy(update={"metric_verdict": verdict})
    return manifest.model_copy(update={"verification": verification})


def _raise_if_refused(verdict: MetricVerdict, precision: PrecisionPolicy) -> None:
    if not verdict.passed:
        cures = tuple(_cures(precision))
        raise VerificationError(
            "the user's metric refuses the engine",
            where="verification",
            why=verdict.sentence(),
            remedy=", ".join((*cures, f"{'or ' if cures else ''}{_CURE_OF_BOUNDS}")),
        )


def _cures(precision: PrecisionPolicy) -> Iterator[str]:
    """Yield what may help an engine in a reduced precision; nothing of FP32 loses precision."""
    if precision.quantises:
        yield "calibrate with data that looks like the requests"
    if precision.unused_keep_fields:
        yield advice_on_layers(precision)
    if precision.default is not Precision.FP32:
        yield "choose a wider precision"


def require_same(stored: Manifest, judged: Manifest) -> Manifest:
    """Return the stored engine with the verification of the one that the metric has judged.

    Raises:
        StoreError: `StoredMeanwhile`: the store has another engine of this key.
    """
    if stored.engine_digest != judged.engine_digest:
        raise StoreError(
            "another build has stored this engine meanwhile",
            where=f"engine {stored.engine_key[:12]}",
            why=f"its digest is {stored.engine_digest[:12]}, and the metric has judged {judged.engine_digest[:12]}",
            remedy="build again: the metric then judges the stored engine",
            reason="StoredMeanwhile",
            retry=True,
        )
    return stored.model_copy(update={"verification": judged.verification})
