"""Draws trees on a terminal. There are no colours if NO_COLOR is set or the output is not a terminal."""

import os
import shutil
import sys
from collections.abc import Iterator
from typing import Final

from enginesmith_cli.plugin.tree import Branch, Health
from enginesmith_contract.text import shorten

__all__ = ["draw_trees", "paint", "terminal_columns", "wants_colour"]

_CODES: Final = {Health.GOOD: "32", Health.WAITING: "33", Health.BAD: "31"}
_MARKS: Final = {Health.GOOD: "✓", Health.WAITING: "…", Health.BAD: "✗"}
_LEAST_MESSAGE: Final = 24


def wants_colour() -> bool:
    """Whether standard output is a terminal that takes colours (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def terminal_columns() -> int | None:
    """Return the width of the terminal; None: standard output is none, so that lines are not cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def paint(text: str, health: Health, *, colour: bool) -> str:
    """Return `text` in the colour of a health."""
    return f"\x1b[{_CODES[health]}m{text}\x1b[0m" if colour and text else text


def draw_trees(trees: tuple[Branch, ...], *, colour: bool, columns: int | None = None) -> Iterator[str]:
    """Yield the lines of some trees.

    Args:
        trees: one for each engine.
        colour: whether marks, phases and reasons are coloured.
        columns: that a line may have; None: any number.
    """
    for tree in trees:
        yield _line("", "", tree, colour=colour, columns=columns)
        yield from _children(tree, "", colour=colour, columns=columns)


def _children(branch: Branch, indent: str, *, colour: bool, columns: int | None) -> Iterator[str]:
    for child in branch.children:
        is_last = child is branch.children[-1]
        yield _line(indent, "└─ " if is_last else "├─ ", child, colour=colour, columns=columns)
        yield from _children(child, indent + ("   " if is_last else "│  "), colour=colour, columns=columns)


def _line(indent: str, twig: str, branch: Branch, *, colour: bool, columns: int | None) -> str:
    where = f"{branch.namespace}/{branch.name}" if not twig and branch.namespace else branch.name
    head = f"{indent}{twig}{_MARKS[branch.health]} {branch.kind} {where}  "
    facts = "  ".join(part for part in (branch.phase, branch.reason, branch.age) if part)
    message = branch.message
    if columns is not None and message:
        message = shorten(message, max(columns - len(head) - len(facts) - 3, _LEAST_MESSAGE))
    mark = paint(_MARKS[branch.health], branch.health, colour=colour)
    words = [paint(part, branch.health, colour=colour) for part in (branch.phase, branch.reason) if part]
    words += [part for part in (branch.age, message) if part]
    return f"{indent}{twig}{mark} {branch.kind} {where}  {'  '.join(words)}".rstrip()
