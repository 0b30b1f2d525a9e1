"""The report of a comparison, as text and as JSON."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from enginesmith_cli.accuracy.rows import Row, pareto_front
from enginesmith_cli.accuracy.samples import SampleFiles
from enginesmith_cli.tables import table_lines
from enginesmith_contract.text import one_line
from enginesmith_runtime.comparison.alarms import alarms_of

__all__ = ["HEAD", "Report", "cells", "document", "lines"]

HEAD: Final = (
    "PRECISION", "AGREEMENT", "COSINE", "MEAN ERROR", "SQNR DB", "KEPT", "MODEL MB", "SIZE", "LATENCY MS", "GATE",
    "NOTE",
)  # fmt: skip
_WORST_LAYERS: Final = 8
_NOTE: Final = 120
"""Maximum length of a note on a terminal, in characters."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """All of it.

    Attributes:
        about: model, target, toolchain, device; printed and in the JSON document.
        samples: what was compared on.
        rows: FP32 first.
    """

    about: Mapping[str, object]
    samples: SampleFiles
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        """Return one line on what was compared."""
        return f"{self.about['model']}: {len(self.samples.paths)} {self.samples.source}, {self.about['device']}"

    @property
    def notes(self) -> tuple[str, ...]:
        """Return notes that a reader needs to understand these figures."""
        return tuple(_notes(self))


def lines(report: Report) -> Iterator[str]:
    """Yield the lines of the table and the notes."""
    yield report.title
    yield ""
    yield from table_lines(HEAD, [_shortened(cells(row, report.rows[0])) for row in report.rows])
    for row in report.rows:
        yield from _layer_lines(row)
    yield ""
    for note in report.notes:
        yield f"note  {note}"


def _shortened(row: tuple[str, ...]) -> tuple[str, ...]:
    *others, note = row
    return (*others, note if len(note) <= _NOTE else f"{note[:_NOTE]} ... (--output json)")


def cells(row: Row, reference: Row) -> tuple[str, ...]:
    """Return a row of the table; sizes and latencies also as a multiple of the reference's."""
    if row.measured is None:
        return (row.label, *["-"] * (len(HEAD) - 2), one_line(row.failure))
    return (
        row.label,
        "-" if math.isnan(row.agreement) else f"{100 * row.agreement:.2f}%",
        "-" if row.cosine is None else f"{row.cosine:.6f}",
        "-" if row.mean_relative_error is None else f"{row.mean_relative_error:.2g}",
        "equal" if row.sqnr_db is None else f"{row.sqnr_db:.1f}",
        str(row.kept),
        f"{row.size_bytes / 1e6:.2f}",
        f"{row.size_bytes / reference.size_bytes:.2f}x" if reference.size_bytes else "-",
        _latency(row, reference),
        row.gate or "-",
        one_line(row.failure),
    )


def document(report: Report) -> dict[str, object]:
    """Return all of it as one JSON document."""
    return {
        **report.about,
        "samples": {
            "count": len(report.samples.paths),
            "source": report.samples.source,
            "generated": report.samples.are_generated,
        },
        "precisions": [_row_document(row) for row in report.rows],
        "sizeFront": _front(report.rows),
        "notes": list(report.notes),
    }


def _row_document(row: Row) -> dict[str, object]:
    found: dict[str, object] = {"precision": row.label, "failure": row.failure or None}
    if row.measured is not None:
        found |= {
            "kept": row.kept,
            "modelBytes": row.size_bytes,
            "engineBytes": row.engine_bytes,
            "latencyMs": dict(row.latency_ms),
            "gate": row.gate or None,
            "agreement": None if math.isnan(row.agreement) else row.agreement,
            "outputs": [json.loads(one.to_json()) for one in row.outputs],
            "autoKeep": None if row.auto_keep is None else json.loads(row.auto_keep.to_json()),
            "layers": [json.loads(one.to_json()) for one in row.layers] or None,
        }
    return {name: value for name, value in found.items() if value is not None}


def _front(rows: Sequence[Row]) -> list[str]:
    measured = [row for row in rows if row.measured is not None]
    return [
        measured[index].label for index in pareto_front([(float(row.size_bytes), row.agreement) for row in measured])
    ]


def _latency(row: Row, reference: Row) -> str:
    if row.latency is None:
        return "-"
    ratio = f" ({row.latency / reference.latency:.2f}x)" if reference.latency and row is not reference else ""
    return f"{row.latency:.2f}{ratio}"


def _layer_lines(row: Row) -> Iterator[str]:
    """Yield the values with the largest error; none where all are equal."""
    noisy = [layer for layer in row.layers if layer.sqnr_db is not None]
    if not noisy:
        return
    worst = sorted(noisy, key=lambda layer: layer.sqnr_db if layer.sqnr_db is not None else math.inf)[:_WORST_LAYERS]
    yield ""
    yield f"{row.label}: the {len(worst)} values of {len(row.layers)} with the lowest signal to noise ratio"
    yield from table_lines(
        ("NODE", "OPERATOR", "SQNR DB", "TENSOR"),
        [(layer.node, layer.op, f"{layer.sqnr_db:.1f}", layer.tensor) for layer in worst],
    )


def _notes(report: Report) -> Iterator[str]:
    yield "agreement is with the FP32 model's answers: " + "; ".join(_decodings(report))
    yield from _unproved(report)
    if report.samples.are_generated:
        yield (
            "judged on generated inputs: they show overflow and broken graphs, and say little about answers on real "
            "data. Give --samples, or spec.precision.calibration"
        )
    if any(row.label in {"fp16", "bf16"} and row.measured is not None for row in report.rows):
        yield "FP16 and BF16 are emulated: each node computes in FP32, and each result is rounded"
    if report.about["gpu"] is None:
        yield (
            "no GPU: the latencies are of ONNX Runtime on this machine's CPU, which is slower in FP16 than in FP32, "
            "and say nothing about a GPU"
        )
    slower = [row.label for row in report.rows if _is_slower(row, report.rows)]
    if slower:
        yield f"slower than the engine in FP16: {', '.join(slower)}"


def _is_slower(row: Row, rows: Sequence[Row]) -> bool:
    """Whether an engine in 8 bits is slower than the one in FP16."""
    fp16 = next((one.latency for one in rows if one.label == "fp16"), None)
    if row.label in {"fp32", "fp16", "bf16"} or row.latency is None or fp16 is None:
        return False
    return row.latency > fp16


def _decodings(report: Report) -> Iterator[str]:
    yield from (f"{one.output}: {one.decoded_by()}" for one in report.rows[0].outputs)


def _unproved(report: Report) -> Iterator[str]:
    for one in report.rows[0].outputs:
        if one.unproved is not None:
            yield f"the agreement of {one.output} proves little: {one.unproved}"
    for row in report.rows:
        yield from (f"{row.label}, {one.output}: {one.found}" for one in row.outputs if one.found is not None)
        yield from (f"{row.label}: {alarm}" for alarm in row.alarms or _measured_alarms(row))


def _measured_alarms(row: Row) -> Iterator[str]:
    """Yield warnings for candidates without a judged engine."""
    for one in row.outputs:
        said = ", ".join(alarms_of(one))
        if said and not row.gate:
            yield f"alarm: output {one.output!r}: {said}"
