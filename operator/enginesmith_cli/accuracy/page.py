"""The report as one HTML file: styles and pictures are in it, and nothing is fetched from elsewhere."""

from collections.abc import Iterator
from html import escape
from typing import Final

from enginesmith_cli.accuracy.plots import pictures
from enginesmith_cli.accuracy.report import HEAD, Report, cells

__all__ = ["page"]

_STYLE: Final = """
body { font: 15px/1.5 Helvetica, Arial, sans-serif; color: #1f2328; background: #ffffff; max-width: 1100px;
       margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 10px; border-bottom: 1px solid #d8dee4; text-align: right; }
th { font-size: 12px; color: #57606a; }
th:first-child, td:first-child, th:last-child, td:last-child { text-align: left; }
figure { margin: 1.5em 0; }
svg { max-width: 100%; height: auto; }
dt { font-weight: bold; } dd { margin: 0 0 .4em 1.5em; }
"""
_SAID: Final = ("document", "target", "toolchain", "device", "command")


def page(report: Report) -> str:
    """Return the text of the HTML file."""
    return "\n".join(_parts(report)) + "\n"


def _parts(report: Report) -> Iterator[str]:
    title = escape(f"Accuracy of {report.about['model']}")
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>"
    yield f"<p>{escape(report.title)}</p>"
    yield from _table(HEAD, [cells(row, report.rows[0]) for row in report.rows])
    yield "<ul>"
    yield from (f"<li>{escape(note)}</li>" for note in report.notes)
    yield "</ul>"
    for picture in pictures(report.rows).values():
        yield f"<figure>\n{picture}\n</figure>"
    yield "<h2>Outputs</h2>"
    yield from _table(
        ("PRECISION", "OUTPUT", "AGREEMENT", "ANSWERS", "COSINE", "MEAN ERROR", "SQNR DB", "WORST AND DECODING"),
        list(_outputs(report)),
    )
    yield from _layers(report)
    yield "<h2>How it was made</h2>\n<dl>"
    yield from (
        f"<dt>{escape(name)}</dt><dd>{escape(str(report.about[name]))}</dd>" for name in _SAID if report.about.get(name)
    )
    yield "</dl>\n</body>\n</html>"


def _outputs(report: Report) -> Iterator[tuple[str, ...]]:
    for row in report.rows:
        for one in row.outputs:
            yield (
                row.label,
                one.output,
                "-" if one.agreement is None else f"{100 * one.agreement:.2f}%",
                str(one.answers),
                "-" if one.cosine is None else f"{one.cosine:.6f}",
                "-" if one.mean_relative_error is None else f"{one.mean_relative_error:.2g}",
                "equal" if one.sqnr_db is None else f"{one.sqnr_db:.1f}",
                "; ".join(filter(None, (one.found, one.worst, one.decoded_by()))),
            )


def _layers(report: Report) -> Iterator[str]:
    for row in report.rows:
        if any(layer.sqnr_db is not None for layer in row.layers):
            yield f"<h2>Layers in {escape(row.label)}</h2>\n<details><summary>{len(row.layers)} values</summary>"
            yield from _table(
                ("NODE", "OPERATOR", "SQNR DB", "TENSOR"),
                [
                    (one.node, one.op, "equal" if one.sqnr_db is None else f"{one.sqnr_db:.1f}", one.tensor)
                    for one in row.layers
                ],
            )
            yield "</details>"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield "<table>\n<tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + "</tr>"
    yield from ("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    yield "</table>"
