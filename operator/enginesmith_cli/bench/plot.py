"""A picture of the measurements: two bars for each setting, as SVG."""

from collections.abc import Callable, Sequence
from typing import Final
from xml.etree import ElementTree as ET

from enginesmith_cli.bench.search import Measured, Trial

__all__ = ["plot"]

_ROW: Final = 26
_LETTER: Final = 7.5
"""Width of a label's letter, in the picture's units."""
_BARS: Final = 260
_GAP: Final = 70
_TOP: Final = 54
_COLUMNS: Final[tuple[tuple[str, str, Callable[[Measured], float]], ...]] = (
    ("requests per second", "#2a78d6", lambda one: one.requests_per_second),
    ("p99 latency, ms", "#d97706", lambda one: one.p99_ms),
)


def plot(trials: Sequence[Trial], title: str) -> str:
    """Return the picture's text; settings without a measurement are left out."""
    rows = [(trial.settings.label, trial.measured) for trial in trials if trial.measured is not None]
    labels = 40 + _LETTER * max((len(label) for label, _ in rows), default=0)
    width, height = labels + len(_COLUMNS) * (_BARS + _GAP), _TOP + _ROW * len(rows) + 10
    root = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width:.0f} {height}",
            "font-family": "sans-serif",
            "font-size": "13",
        },
    )
    ET.SubElement(root, "rect", width=f"{width:.0f}", height=str(height), fill="#ffffff")
    _text(root, 10, 20, title, weight="bold")
    for row, (label, _) in enumerate(rows):
        _text(root, 10, _TOP + _ROW * row + 17, label)
    for column, (head, colour, value) in enumerate(_COLUMNS):
        left = labels + column * (_BARS + _GAP)
        _text(root, left, _TOP - 10, head, weight="bold")
        longest = max((value(measured) for _, measured in rows), default=0.0) or 1.0
        for row, (_, measured) in enumerate(rows):
            length, top = _BARS * value(measured) / longest, _TOP + _ROW * row
            ET.SubElement(
                root, "rect", x=f"{left:.1f}", y=str(top + 4), width=f"{length:.1f}", height=str(_ROW - 8), fill=colour
            )
            _text(root, left + length + 5, top + 17, f"{value(measured):.4g}")
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _text(root: ET.Element, x: float, y: float, words: str, *, weight: str = "normal") -> None:
    element = ET.SubElement(root, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "font-weight": weight, "fill": "#1f2328"})
    element.text = words
