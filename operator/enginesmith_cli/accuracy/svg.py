"""Drawing of plots as SVG: a picture, a frame with axes, and marks in the units of the data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree as ET

from typing_extensions import override

__all__ = ["Axis", "Frame", "Picture", "ticks"]

_INK: Final = "#1f2328"
_FAINT: Final = "#6e7781"
_GRID: Final = "#e5e8eb"
_LETTER: Final = 7.0


class Picture:
    """An SVG picture with a title; sizes in its own units, about pixels."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self._root = ET.Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "viewBox": f"0 0 {width:.0f} {height:.0f}",
                "width": f"{width:.0f}",
                "font-family": "Helvetica, Arial, sans-serif",
                "font-size": "13",
                "role": "img",
            },
        )
        ET.SubElement(self._root, "title").text = title
        self.rect(0, 0, width, height, "#ffffff")
        self.text(12, 22, title, weight="bold")

    @override
    def __str__(self) -> str:
        """Return the picture's text."""
        ET.indent(self._root)
        return ET.tostring(self._root, encoding="unicode")

    def text(
        self, x: float, y: float, words: str, *, weight: str = "normal", anchor: str = "start", colour: str = _INK
    ) -> None:
        """Write words; `y` is the baseline."""
        place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "font-weight": weight, "text-anchor": anchor, "fill": colour}
        ET.SubElement(self._root, "text", place).text = words

    def rect(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """Fill a rectangle."""
        place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": f"{max(width, 0):.1f}", "height": f"{height:.1f}"}
        ET.SubElement(self._root, "rect", {**place, "fill": colour})

    def line(self, points: Sequence[tuple[float, float]], colour: str, *, width: float = 1, dashes: str = "") -> None:
        """Draw a line through points."""
        style = {"stroke-dasharray": dashes} if dashes else {}
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        ET.SubElement(
            self._root,
            "polyline",
            {"points": path, "fill": "none", "stroke": colour, "stroke-width": f"{width:g}", **style},
        )

    def dot(self, x: float, y: float, colour: str, radius: float = 5) -> None:
        """Draw a filled circle."""
        ET.SubElement(self._root, "circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{radius:g}", fill=colour)

    def legend(self, x: float, y: float, entries: Sequence[tuple[str, str]]) -> None:
        """Write names with their colours in one row."""
        for name, colour in entries:
            self.rect(x, y - 10, 12, 12, colour)
            self.text(x + 17, y, name)
            x += 34 + _LETTER * len(name)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis: what it shows, from where to where."""

    label: str
    low: float
    high: float

    @classmethod
    def over(cls, label: str, values: Sequence[float], *, least: float | None = None) -> "Axis":
        """Return an axis that has room around values; `least` is a value that it must show as well."""
        shown = [*values] if least is None else [*values, least]
        low, high = min(shown), max(shown)
        room = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
        return cls(label=label, low=low if low == least else low - room, high=high + room)

    def share(self, value: float) -> float:
        """Return where a value is, 0 to 1."""
        return (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The area of a plot inside a picture."""

    picture: Picture
    left: float
    top: float
    width: float
    height: float
    x: Axis
    y: Axis

    def draw(self) -> None:
        """Draw grid, ticks and labels."""
        bottom, right = self.top + self.height, self.left + self.width
        for value, label in ticks(self.x.low, self.x.high):
            x, _ = self.at(value, self.y.low)
            self.picture.line([(x, self.top), (x, bottom)], _GRID)
            self.picture.text(x, bottom + 17, label, anchor="middle", colour=_FAINT)
        for value, label in ticks(self.y.low, self.y.high):
            _, y = self.at(self.x.low, value)
            self.picture.line([(self.left, y), (right, y)], _GRID)
            self.picture.text(self.left - 7, y + 4, label, anchor="end", colour=_FAINT)
        self.picture.line([(self.left, self.top), (self.left, bottom), (right, bottom)], _FAINT)
        self.picture.text(self.left + self.width / 2, bottom + 36, self.x.label, anchor="middle")
        self.picture.text(self.left - 44, self.top - 9, self.y.label)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the place of a point."""
        return self.left + self.width * self.x.share(x), self.top + self.height * (1 - self.y.share(y))


def ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return about five round values between two others, with their labels."""
    raw = (high - low) / 5
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw)
    first = math.ceil(low / step - 1e-9)
    values = [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]
    return [(value, f"{value:.10g}") for value in values]
