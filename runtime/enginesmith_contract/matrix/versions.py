"""Versions as the matrix compares them: by their leading numbers, without the suffix of a wheel or a label."""

import re
from typing import Final

__all__ = ["is_at_least", "is_in_line", "major_of", "version_numbers"]

_NUMBERS: Final = re.compile(r"\d+(?:\.\d+)*")


def version_numbers(text: str | None) -> tuple[int, ...] | None:
    """Return the leading numbers of a version, or None if it has none.

    "550.120" and "550.120." (a driver label with an empty revision) are (550, 120), "10.6.0.post1" is (10, 6, 0), and
    "unknown", which is the label on Jetson, is None.
    """
    match = _NUMBERS.match((text or "").strip())
    return tuple(int(number) for number in match[0].split(".")) if match else None


def is_at_least(found: tuple[int, ...], floor: tuple[int, ...]) -> bool:
    """Whether `found` reaches `floor`; a version that names only its branch ("580") is compared by branch."""
    return found >= (floor[:1] if len(found) == 1 else floor)


def is_in_line(version: tuple[int, ...], line: str) -> bool:
    """Whether a version begins with all numbers of a line ("10.13.3.9" is in "10.13")."""
    numbers = version_numbers(line) or ()
    return version[: len(numbers)] == numbers


def major_of(version: str | None) -> str | None:
    """Return the first number of a version as text, or None if it has none."""
    numbers = version_numbers(version)
    return str(numbers[0]) if numbers else None
