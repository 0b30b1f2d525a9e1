"""Section `builds`: every document built, verified and gated; again with the timing cache; other weights by a refit."""

import time
from typing import Any

from benchmarks.gpu.documents import DOCUMENTS, OTHER_WEIGHTS, REBUILDS, Document, Workplace

from enginesmith_contract.manifest import Manifest

__all__ = ["build_all"]


def build_all(work: Workplace, *, quick: bool) -> dict[str, Any]:
    """Build; a document that fails is in the figures with its message, and the others go on."""
    figures: dict[str, Any] = {}
    for document in DOCUMENTS:
        if quick and not document.quick:
            continue
        figures[document.name] = _build(work, document, document.name)
    for document in DOCUMENTS:
        if document.name in REBUILDS and work.has(document.name):
            again = _build(work, document, f"{document.name}-rebuilt", epoch=1)
            again["timesFaster"] = _ratio(figures[document.name], again)
            figures[f"{document.name}-rebuilt"] = again
    if work.has("resnet50-refittable"):
        refit = _build(work, OTHER_WEIGHTS, OTHER_WEIGHTS.name)
        refit["partOfBuild"] = 1 / _ratio(figures["resnet50-refittable"], refit)
        figures[OTHER_WEIGHTS.name] = refit
    return figures


def _ratio(first: dict[str, Any], second: dict[str, Any]) -> float:
    return float(first.get("buildSeconds", 0) / second["buildSeconds"]) if second.get("buildSeconds") else 0.0


def _build(work: Workplace, document: Document, name: str, *, epoch: int = 0) -> dict[str, Any]:
    engine = document.engine(work.backend, epoch=epoch)
    begun = time.monotonic()
    try:
        work.prepare(engine)
        prepared = time.monotonic()
        manifest = work.build(engine)
    except Exception as error:  # noqa: BLE001 - the record says what happened
        return {"failed": f"{type(error).__name__}: {error}"}
    work.remember(name, manifest)
    whole = time.monotonic() - prepared
    return {"prepareSeconds": round(prepared - begun, 2), "wholeSeconds": round(whole, 2), **_described(manifest)}


def _described(manifest: Manifest) -> dict[str, Any]:
    return {
        "buildSeconds": round(manifest.timings.build_seconds, 3),
        "verifySeconds": manifest.timings.verify_seconds,
        "latencySeconds": dict(manifest.timings.latency_seconds),
        "planBytes": manifest.files[0].size_bytes,
        "deviceMemoryBytes": manifest.device_memory_bytes,
        "verification": manifest.verification.model_dump(mode="json", by_alias=True),
        "inspector": dict(manifest.inspector),
        "toolchain": manifest.toolchain.model_dump(mode="json", by_alias=True),
        "hardware": manifest.hardware.model_dump(mode="json", by_alias=True),
        "refittedFrom": getattr(manifest, "refitted_from", None),
    }
