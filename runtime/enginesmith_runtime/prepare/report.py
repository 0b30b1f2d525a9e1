"""The report of a preparation, with everything that the operator needs from the store.

The operator has no access to the store, so the keys of the planned engines are looked up here.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from enginesmith_contract.backends import Backend
from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.failure import Failure
from enginesmith_contract.keys import EngineCandidate, engine_key
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.preparation_job import PreparationReport
from enginesmith_contract.store_layout import engine_pointer
from enginesmith_runtime.pod.termination import encode_termination, shorter_failure
from enginesmith_runtime.store.interface import Store
from enginesmith_runtime.store.manifest_signatures import why_untrusted
from enginesmith_runtime.store.records import parse_if_readable

__all__ = ["encode_report", "failure_report", "find_stored_engines", "success_report"]


def find_stored_engines(
    store: Store, preparation_key: str, candidates: Iterable[EngineCandidate]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return engine digests by engine key for the candidates that the store has, and warnings about others.

    A pointer that this release cannot read counts as missing, and the builder reports it. A manifest without a trusted
    signature also counts as missing, and the builder replaces it.
    """
    found = {}
    warnings: list[str] = []
    for key in dict.fromkeys(engine_key(candidate.key_inputs(preparation_key)) for candidate in candidates):
        # Refresh it, so that no sweep deletes it before the operator's status names it.
        store.refresh_pointer(engine_pointer(key))
        document = store.read_pointer(engine_pointer(key))
        manifest = None if document is None else parse_if_readable(document, Manifest)
        problem = "" if manifest is None or document is None else why_untrusted(document, key)
        if problem:
            warnings.append(f"engine {key[:12]} in the store is not used: {problem}")
        elif manifest is not None:
            found[key] = manifest.engine_digest
    return found, tuple(warnings)


def success_report(
    preparation: Preparation,
    stored_engines: Mapping[str, str],
    warnings: tuple[str, ...] = (),
    backends: Iterable[Backend] = (),
) -> PreparationReport:
    """Return the report of a stored preparation.

    Args:
        preparation: The stored preparation.
        stored_engines: Digests by key from `find_stored_engines`.
        warnings: Warnings to list before those of the preparation.
        backends: Backends that build from it; empty for all.
    """
    batching = preparation.batching
    return PreparationReport(
        preparation_key=preparation.preparation_key,
        source_digest=preparation.source_digest,
        calibration_digest=preparation.calibration_digest,
        size_bytes=sum(file.size_bytes for file in preparation.model),
        max_batch_size=batching.max_batch_size if batching.proved else 0,
        facts=preparation.facts,
        stored_engines=stored_engines,
        warnings=(*warnings, *preparation.warnings_for(tuple(backends) or Backend)),
    )


def failure_report(error: EnginesmithError, source_digest: str | None = None) -> PreparationReport:
    """Return the report of a failure, with the digest of the model if it was fetched."""
    return PreparationReport(source_digest=source_digest, failure=Failure.from_error(error))


def encode_report(report: PreparationReport) -> bytes:
    """Return the report as a termination message. `PreparationReport` has the order in which parts are dropped."""
    return encode_termination(report, _SHORTER)


def _fewer_warnings(report: PreparationReport, count: int) -> PreparationReport:
    return report.model_copy(update={"warnings": report.warnings[:count]})


def _no_facts(report: PreparationReport, count: int) -> PreparationReport:
    # Drop all facts, because incomplete facts would be wrong.
    whole = report.facts is None or count >= len(report.facts.to_json())
    return report if whole else report.model_copy(update={"facts": None})


def _fewer_engines(report: PreparationReport, count: int) -> PreparationReport:
    kept = dict(sorted(report.stored_engines.items())[:count])
    omitted = report.omitted_engines + len(report.stored_engines) - len(kept)
    return report.model_copy(update={"stored_engines": kept, "omitted_engines": omitted})


_SHORTER: Final[tuple[Callable[[PreparationReport, int], PreparationReport], ...]] = (
    _fewer_warnings,
    _no_facts,
    _fewer_engines,
    shorter_failure,
)
