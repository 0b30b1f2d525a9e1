"""Lines of Chinese and English text; the same seed gives the same lines."""

from pathlib import Path
from typing import Final

import numpy as np

__all__ = ["is_chinese", "lines"]

_FOLDER: Final = Path(__file__).resolve().parent
_CHINESE: Final = (_FOLDER / "chinese.txt").read_text(encoding="utf-8").split()
_ENGLISH: Final = (_FOLDER / "english.txt").read_text(encoding="utf-8").split()
_FIRST_CJK: Final = "\u2e80"
_MARKS: Final = ("\uff0c", "\u3002", "\uff1a", "\u3001")


def lines(count: int, seed: str) -> list[str]:
    """Return lines of 4 to about 30 characters: half Chinese, a quarter English, a quarter with both and digits."""
    source = np.random.default_rng([*seed.encode()])
    return [_line(source, number) for number in range(count)]


def is_chinese(line: str) -> bool:
    """Whether a line has characters that a Latin font lacks."""
    return any(character >= _FIRST_CJK for character in line)


def _line(source: np.random.Generator, number: int) -> str:
    match number % 4:
        case 0 | 1:
            words = list(source.choice(_CHINESE, size=source.integers(2, 9)))
            mark = int(source.integers(len(words)))
            words[mark] += str(source.choice(_MARKS)) if mark else ""
            return "".join(words)
        case 2:
            return " ".join(source.choice(_ENGLISH, size=source.integers(2, 7)))
        case _:
            ends = "".join(source.choice(_CHINESE, size=source.integers(1, 5)))
            return f"{source.choice(_CHINESE)}{source.choice(_ENGLISH)}{source.integers(1, 99999)}{ends}"
