"""The pictures of a report, by name; each is an SVG text."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from enginesmith_cli.accuracy.rows import Row, pareto_front
from enginesmith_cli.accuracy.svg import Axis, Frame, Picture
from enginesmith_contract.auto_keep import KeptPoint, Sensitivity

__all__ = ["colour_of", "pictures"]

_COLOURS: Final[Mapping[str, str]] = {
    "fp32": "#6b7280",
    "fp16": "#2a78d6",
    "bf16": "#0f9d8a",
    "int8": "#d97706",
    "fp8": "#b4357b",
}
_OTHER: Final = "#6d4bd0"
_WIDTH, _HEIGHT = 760, 380
_ROW, _TOP, _LABEL, _BAR, _VALUE = 26, 66, 80, 150, 70
_LEAST_DAMAGE: Final = 1e-12
_BEST_DB: Final = 120.0
"""End of the axis of the layers; equal values are drawn there."""

_Measure = tuple[str, Callable[[Row], float | None], str]
_BARS: Final[tuple[_Measure, ...]] = (
    ("agreement", lambda row: 100 * row.agreement, "%"),
    ("SQNR, dB", lambda row: row.sqnr_db, ""),
    ("model, MB", lambda row: row.size_bytes / 1e6, ""),
    ("latency, ms", lambda row: row.latency, ""),
)


def colour_of(label: str) -> str:
    """Return the colour that a precision has in every picture."""
    return _COLOURS.get(label, _OTHER)


def pictures(rows: Sequence[Row]) -> dict[str, str]:
    """Return the pictures that there is data for, in the order of the report."""
    measured = [row for row in rows if row.measured is not None]
    timed = [row for row in measured if row.latency is not None]
    made = {"precisions": _bars(measured)} if measured else {}
    measured = [row for row in measured if not math.isnan(row.agreement)]
    if len(measured) > 1:
        made["size"] = _front("Size and agreement", "model, MB", measured, lambda row: row.size_bytes / 1e6)
    if len(timed) > 1:
        made["latency"] = _front("Latency and agreement", "latency, ms", timed, lambda row: row.latency or 0.0)
    for row in measured:
        if row.auto_keep is None or row.search is None:
            continue
        if row.auto_keep.ranking:
            made[f"sensitivity-{row.label}"] = _sensitivity(row.label, row.auto_keep.ranking, row.search.kept)
        if len(row.search.curve) > 1:
            made[f"search-{row.label}"] = _search(row.label, row.search.curve, row.auto_keep.weight_bytes)
    if any(row.layers for row in measured):
        made["layers"] = _layers(measured)
    return made


def _bars(rows: Sequence[Row]) -> str:
    picture = Picture(_LABEL + len(_BARS) * (_BAR + _VALUE), _TOP + _ROW * len(rows) + 12, "Precisions")
    for number, row in enumerate(rows):
        picture.text(12, _TOP + _ROW * number + 17, row.label)
    for column, (head, value_of, unit) in enumerate(_BARS):
        left = _LABEL + column * (_BAR + _VALUE)
        picture.text(left, _TOP - 10, head, weight="bold")
        values = [value_of(row) for row in rows]
        longest = max((value for value in values if value is not None and math.isfinite(value)), default=0.0) or 1.0
        for number, (row, value) in enumerate(zip(rows, values, strict=True)):
            top = _TOP + _ROW * number
            if value is None or not math.isfinite(value):
                picture.text(left, top + 17, "equal" if value is None and "SQNR" in head else "-")
                continue
            length = _BAR * max(value, 0) / longest
            picture.rect(left, top + 4, length, _ROW - 8, colour_of(row.label))
            picture.text(left + length + 5, top + 17, f"{value:.4g}{unit}")
    return str(picture)


def _front(title: str, label: str, rows: Sequence[Row], cost: Callable[[Row], float]) -> str:
    """Draw agreement over a cost, with a line through what no other precision beats."""
    points = [(cost(row), 100 * row.agreement) for row in rows]
    picture = Picture(_WIDTH, _HEIGHT, f"{title}: the line joins the best precisions")
    frame = _frame(
        picture,
        Axis.over(label, [x for x, _ in points], least=0.0),
        _agreement_axis([y for _, y in points]),
    )
    _draw_points(picture, frame, points, [(row.label, colour_of(row.label)) for row in rows])
    return str(picture)


def _sensitivity(label: str, ranking: Sequence[Sensitivity], kept: Sequence[str]) -> str:
    """Draw the damage of each node alone, in the order in which the search keeps nodes; kept ones are marked."""
    picture = Picture(_WIDTH, _HEIGHT, f"Sensitivity of {label}: noise of the outputs if one node alone is quantised")
    values = [10 * math.log10(max(one.damage, _LEAST_DAMAGE)) for one in ranking]
    frame = _frame(
        picture,
        Axis(label="node, in the order of damage for each byte (dots: kept)", low=0, high=len(values)),
        Axis.over("noise to signal, dB", values),
    )
    picture.line([frame.at(number, value) for number, value in enumerate(values)], colour_of("int8"), width=1.5)
    for number, (one, value) in enumerate(zip(ranking, values, strict=True)):
        if one.node in kept:
            picture.dot(*frame.at(number, value), colour_of(label), radius=4)
    return str(picture)


def _search(label: str, curve: Sequence[KeptPoint], weight_bytes: int) -> str:
    """Draw the trials of the search: what keeping costs in bytes, and what it gives in agreement."""
    points = [(100 * one.kept_bytes / max(weight_bytes, 1), 100 * one.agreement) for one in curve]
    picture = Picture(_WIDTH, _HEIGHT, f"Search of {label}: the line joins the best trials; numbers are nodes")
    frame = _frame(
        picture,
        Axis.over("weights that are kept, %", [x for x, _ in points], least=0.0),
        _agreement_axis([y for _, y in points]),
    )
    marks = [(str(one.kept_nodes), colour_of("bf16" if one.passed else "int8")) for one in curve]
    _draw_points(picture, frame, points, marks)
    picture.legend(_WIDTH - 250, 46, [("passed", colour_of("bf16")), ("below the limit", colour_of("int8"))])
    return str(picture)


def _draw_points(
    picture: Picture, frame: Frame, points: Sequence[tuple[float, float]], marks: Sequence[tuple[str, str]]
) -> None:
    """Draw each point with its text and colour, and a line through those that no other point beats."""
    front = [points[index] for index in pareto_front(points)]
    if len(front) > 1:
        picture.line([frame.at(*point) for point in front], "#57606a", width=1.5, dashes="5 4")
    for (text, colour), point in zip(marks, points, strict=True):
        x, y = frame.at(*point)
        picture.dot(x, y, colour)
        picture.text(x + 8, y - 7, text)


def _frame(picture: Picture, x: Axis, y: Axis) -> Frame:
    frame = Frame(picture=picture, left=70, top=70, width=_WIDTH - 150, height=_HEIGHT - 128, x=x, y=y)
    frame.draw()
    return frame


def _agreement_axis(values: Sequence[float]) -> Axis:
    lowest = min(values)
    return Axis(label="agreement with FP32, %", low=lowest - max((100 - lowest) * 0.1, 0.5), high=100.0)


def _layers(rows: Sequence[Row]) -> str:
    """Draw the error of each value inside the model, in the order of the FP32 model's nodes."""
    shown = [row for row in rows if row.layers]
    order: dict[str, int] = {}
    for row in shown:
        for layer in row.layers:
            order.setdefault(layer.tensor, len(order))
    lines = {row.label: [(order[tensor], value) for tensor, value in _decibels(row)] for row in shown}
    lines = {label: sorted(line) for label, line in lines.items() if any(value < _BEST_DB for _, value in line)}
    picture = Picture(_WIDTH, _HEIGHT + 24, "Layers: signal to noise ratio of each value inside the model")
    every = [value for line in lines.values() for _, value in line if value < _BEST_DB] or [0.0]
    frame = Frame(
        picture=picture,
        left=70,
        top=86,
        width=_WIDTH - 100,
        height=_HEIGHT - 120,
        x=Axis(label="value, in the order of the nodes", low=0, high=max(len(order), 1)),
        y=Axis.over("SQNR, dB", every, least=0.0),
    )
    frame.draw()
    picture.legend(12, 46, [(label, colour_of(label)) for label in lines])
    for label, line in lines.items():
        picture.line([frame.at(*point) for point in line], colour_of(label), width=1.5)
    return str(picture)


def _decibels(row: Row) -> list[tuple[str, float]]:
    return [(layer.tensor, _BEST_DB if layer.sqnr_db is None else max(layer.sqnr_db, 0.0)) for layer in row.layers]
