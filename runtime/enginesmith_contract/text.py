"""Text for messages and statuses: on one line, short enough, and valid in JSON."""

from typing import Final

__all__ = ["ELLIPSIS", "counted", "encodable", "one_line", "shorten"]

ELLIPSIS: Final = "…"
"""Replaces the text that was cut off."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 dimension", "2 dimensions"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def one_line(text: str) -> str:
    """Return `text` with every run of white space as one space."""
    return " ".join(text.split())


def shorten(text: str, characters: int) -> str:
    """Return `text` if it has at most `characters`, else its first `characters` and an ellipsis."""
    return text if len(text) <= characters else text[:characters] + ELLIPSIS


def encodable(text: str) -> str:
    """Return `text` with "?" for each character that UTF-8 cannot hold, such as the lone surrogates of file names."""
    return text.encode(errors="replace").decode()
