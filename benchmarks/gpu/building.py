"""Section `builds`: every document built, verified and gated; again with the timing cache; other weights by a refit.

Usage of one document: python -m benchmarks.gpu.building WORK BACKEND NAME [EPOCH]; prints what came of it as JSON. With
the word `prepare` for the epoch, its preparation alone is made; on the CPUs whose numbers follow, separated by commas.

Each document has a process and a time limit of its own: one that hangs costs its own figures, and says where it hung.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu.documents import DOCUMENTS, OTHER_WEIGHTS, REBUILDS, SMALLEST, Document, Workplace
from benchmarks.gpu.precision_documents import precision_documents

from enginesmith_contract.manifest import Manifest
from enginesmith_runtime.progress_output import open_reporter

__all__ = ["build_all", "build_in_process", "find_document"]

_CHILD: Final = "enginesmith_runtime.build.worker"
_SETTLE_SECONDS: Final = 15


def build_all(work: Workplace, *, quick: bool, limit_seconds: float) -> dict[str, Any]:
    """Build; a document that fails is in the figures with its message, and the others continue."""
    figures: dict[str, Any] = {}

    def build(name: str, key: str, epoch: int = 0) -> dict[str, Any]:
        begun = time.monotonic()
        figures[key] = build_in_process(work, name, epoch, limit_seconds)
        print(f"{key}: {time.monotonic() - begun:.1f} s, {str(figures[key].get('failed', 'built'))[:300]}", flush=True)
        (work.sections / "builds.json").write_text(json.dumps(figures))
        found: dict[str, Any] = figures[key]
        return found

    for document in DOCUMENTS:
        if document.quick or not quick:
            found = build(document.name, document.name)
            # Where even the smallest fails, the others would only cost time.
            if document.name == SMALLEST and "failed" in found:
                return figures
    if work.has("resnet50-refittable"):
        refit = build(OTHER_WEIGHTS.name, OTHER_WEIGHTS.name)
        if "failed" not in refit:
            refit["partOfBuild"] = 1 / _ratio(figures["resnet50-refittable"], refit)
    for name in REBUILDS:
        if work.has(name):
            again = build(name, f"{name}-rebuilt", epoch=1)
            again["timesFaster"] = _ratio(figures[name], again)
            again["builderTimesFaster"] = _ratio(figures[name], again, "builderSeconds")
    return figures


def _ratio(first: dict[str, Any], second: dict[str, Any], seconds: str = "buildSeconds") -> float:
    return float((first.get(seconds) or 0) / second[seconds]) if second.get(seconds) else 0.0


def build_in_process(work: Workplace, name: str, epoch: int, limit_seconds: float) -> dict[str, Any]:
    """Build one document; returns its figures, or `failed` with what was said."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gpu.building", str(work.root), work.backend, name, str(epoch)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONFAULTHANDLER": "1", "ENGINESMITH_LOG_FORMAT": "json"},
    )
    late = False
    try:
        out, errors = process.communicate(timeout=limit_seconds)
    except subprocess.TimeoutExpired:
        # The builder's process writes where it is, and the product reports that as it does any abort.
        late = True
        _abort_children(process.pid)
        try:
            out, errors = process.communicate(timeout=_SETTLE_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            out, errors = process.communicate()
    lines = [line for line in out.splitlines() if line.startswith("{")]
    found = dict(json.loads(lines[-1])) if lines else {"failed": f"exit status {process.returncode}: {errors[-2500:]}"}
    if late:
        # What the product says is the abort from here, and no fault of the builder.
        found = {"failed": f"stopped after {limit_seconds:g} s", "said": errors[-2500:]}
    return found


def _abort_children(parent: int) -> None:
    """Abort the builders of one process; those of others on this machine continue."""
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            with contextlib.suppress(OSError):
                if _CHILD in Path(f"/proc/{child}/cmdline").read_text():
                    os.kill(child, signal.SIGABRT)


def find_document(work: Workplace, name: str) -> Document:
    """Return the document of this name, of whichever section."""
    every = (*DOCUMENTS, OTHER_WEIGHTS, *precision_documents(work))
    return next(one for one in every if one.name == name)


def _build(work: Workplace, name: str, epoch: int) -> dict[str, Any]:
    engine = find_document(work, name).engine(work.backend, epoch=epoch)
    begun = time.monotonic()
    try:
        work.prepare(engine)
        prepared = time.monotonic()
        manifest = work.build(engine)
    except Exception as error:  # noqa: BLE001 - the record says what happened
        return {"failed": f"{type(error).__name__}: {error}"}
    work.remember(name if epoch == 0 else f"{name}-rebuilt", manifest)
    whole = time.monotonic() - prepared
    return {"prepareSeconds": round(prepared - begun, 2), "wholeSeconds": round(whole, 2), **_described(manifest)}


def _described(manifest: Manifest) -> dict[str, Any]:
    return {
        "buildSeconds": round(manifest.timings.build_seconds, 3),
        "builderSeconds": manifest.timings.builder_seconds,
        "verifySeconds": manifest.timings.verify_seconds,
        "latencySeconds": dict(manifest.timings.latency_seconds),
        "planBytes": manifest.files[0].size_bytes,
        "deviceMemoryBytes": manifest.device_memory_bytes,
        "verification": manifest.verification.model_dump(mode="json", by_alias=True),
        "inspector": dict(manifest.inspector),
        "toolchain": manifest.toolchain.model_dump(mode="json", by_alias=True),
        "hardware": manifest.hardware.model_dump(mode="json", by_alias=True),
        "refittedFrom": manifest.refitted_from,
        "notes": list(manifest.notes),
    }


def main() -> None:
    """Build one document."""
    root, backend, name, *rest = sys.argv[1:]
    with open_reporter("json", sys.stderr) as reporter:
        work = Workplace(root=Path(root), backend=backend, reporter=reporter)
        if rest[:1] == ["prepare"]:
            os.sched_setaffinity(0, map(int, rest[1].split(",")) if rest[1:] else os.sched_getaffinity(0))
            work.prepare(find_document(work, name).engine(backend))
        else:
            print(json.dumps(_build(work, name, int(rest[0]) if rest else 0)))


if __name__ == "__main__":
    main()
