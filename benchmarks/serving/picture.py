"""A bar chart of requests a second, for the docs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from benchmarks.serving.client import Row
from benchmarks.serving.results import Results, median

__all__ = ["write_picture"]

_FILE = Path(__file__).resolve().parent.parent.parent / "docs" / "pictures" / "serving-speed.svg"
_WIDTH, _LEFT, _BAR, _GAP = 800, 170, 18, 6
_OURS, _THEIRS = "#76b900", "#5b87b5"


def write_picture(results: Results, rows: Sequence[Row]) -> None:
    """Write `docs/pictures/serving-speed.svg`, one group of bars for each row that was measured."""
    measured = [row for row in rows if row in results.samples]
    if not measured:
        return
    lines: list[str] = []
    top = 24
    for row in measured:
        group = list(_group(results, row, top))
        lines += group
        top += 30 + len(results.samples[row]) * (_BAR + _GAP) + 14
    _FILE.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="13">\n'
        f'<rect width="{_WIDTH}" height="{top}" fill="#ffffff"/>\n' + "\n".join(lines) + "\n</svg>\n"
    )


def _group(results: Results, row: Row, top: int) -> Iterator[str]:
    yield f'<text x="20" y="{top}" font-weight="bold">{escape(str(row))}: requests per second</text>'
    rates = {name: median([one.rate for one in samples]) for name, samples in results.samples[row].items()}
    largest = max(rates.values()) or 1.0
    y = top + 12
    for name, rate in sorted(rates.items(), key=lambda item: -item[1]):
        length = (_WIDTH - _LEFT - 90) * rate / largest
        colour = _OURS if name.startswith("enginesmith") else _THEIRS
        yield f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>'
        yield f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR}" fill="{colour}"/>'
        yield f'<text x="{_LEFT + length + 6:.1f}" y="{y + 14}" fill="#46505a">{rate:,.0f}</text>'
        y += _BAR + _GAP
