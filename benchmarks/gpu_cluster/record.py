"""The record: every finding by part, and whether the figures are what they were promised to be."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

__all__ = ["judge", "make_record", "write_record"]

Figures = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class _Promise:
    """One figure. `find` raises KeyError or TypeError where the record does not have it."""

    what: str
    find: Callable[[Figures], float]
    bound: float
    unit: str = ""
    at_least: bool = False


def _seconds(part: str, finding: str, field: str = "seconds") -> Callable[[Figures], float]:
    return lambda figures: float(figures[part][finding][field])


def _errors(figures: Figures) -> float:
    """Return the errors of every steady client but those of the one GPU, where a gap is what is measured."""
    clients = [
        finding["client"]
        for part, findings in figures.items()
        if part != "one_gpu"
        for finding in findings.values()
        if "client" in finding
    ]
    if not clients:
        raise KeyError("client")
    return float(sum(client["errors"] for client in clients))


_PROMISES: Final = (
    _Promise(
        what="cls FP16: apply to first answer through the Service",
        find=_seconds("first_answers", "first answer"),
        bound=35,
        unit="s",
    ),
    _Promise(
        what="errors of a steady client while the full engine takes over",
        find=lambda figures: float(figures["first_answers"]["full engine"]["client"]["errors"]),
        bound=0,
    ),
    _Promise(
        what="a rebuild after a change of `max`, times faster than the first build",
        find=_seconds("rebuilding", "larger max", "timesFaster"),
        bound=5,
        at_least=True,
    ),
    _Promise(
        what="`whenFull: replace` on one GPU: time without an answer",
        find=_seconds("one_gpu", "replace", "gapSeconds"),
        bound=30,
        unit="s",
    ),
    _Promise(what="errors in all rollouts, a pod deleted and kubelet away", find=_errors, bound=0),
    *(
        _Promise(
            what=f"largest difference from ONNX Runtime, as a part of the largest value: {name}",
            find=_seconds("answers", name, "worstRelative"),
            bound=bound,
        )
        for name, bound in (("cls fp16", 0.01), ("det fp32", 0.001), ("rec fp32", 0.001))
    ),
    _Promise(
        what="lines of a page that are read wrong, through three Services",
        find=lambda figures: float(not figures["reading"]["page"]["isRight"]),
        bound=0,
    ),
    _Promise(
        what="memory of the GPU that is in use after all engines are deleted",
        find=_seconds("deleting", "everything", "gpuMemoryMib"),
        bound=0,
        unit="MiB",
    ),
)


def judge(figures: Figures) -> list[dict[str, Any]]:
    """Return each promise with its figure; `kept` is None where there is no figure."""
    judged: list[dict[str, Any]] = []
    for promise in _PROMISES:
        try:
            figure = promise.find(figures)
        except (KeyError, TypeError):
            figure = None
        kept = None
        if figure is not None:
            kept = figure >= promise.bound if promise.at_least else figure <= promise.bound
        bound = f"at {'least' if promise.at_least else 'most'} {promise.bound:g} {promise.unit}".rstrip()
        judged.append({"what": promise.what, "wanted": bound, "figure": figure, "unit": promise.unit, "kept": kept})
    return judged


def make_record(results: Path) -> dict[str, Any]:
    """Return the record of the findings in a file; of two with the same name the later one counts."""
    figures: dict[str, dict[str, Any]] = {}
    for line in results.read_text().splitlines():
        found = json.loads(line)
        figures.setdefault(found.pop("part"), {})[found.pop("finding")] = found
    is_real = figures["machine"]["node"]["isReal"]
    record: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "program": "python -m benchmarks.gpu_cluster",
        "figures": figures,
        "promises": judge(figures) if is_real else [],
    }
    if not is_real:
        record["note"] = "run without a GPU: no figure here is one of a GPU"
    return record


def write_record(out: Path) -> None:
    """Write OUT/record.json of OUT/results.jsonl, and print what is kept."""
    record = make_record(out / "results.jsonl")
    text = json.dumps(record, indent=1) + "\n"
    # The address of the registry is that of one machine.
    registry = os.environ.get("ENGINESMITH_REGISTRY")
    (out / "record.json").write_text(text.replace(f"{registry}/", "") if registry else text)
    for promise in record["promises"]:
        print(json.dumps(promise), flush=True)
