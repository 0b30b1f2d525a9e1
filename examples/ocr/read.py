"""Reads a line of text: turns it upright if it lies upside down, and decodes the characters.

Two models: the direction classifier (cls) says 0 or 180 degrees, the recogniser (rec) gives for each of width / 8 steps
the probability of each character. Decoding is CTC's greedy way: the likeliest symbol of each step, repeats once, blanks
dropped. Symbol 0 is the blank, the last one the space, those between are the lines of characters.txt.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from detect import Float32Array
from PIL import Image

__all__ = ["classifier_input", "is_upside_down", "recogniser_input", "text_from_probabilities"]

# Both models want this height; a wider profile does not change it.
_HEIGHT: Final = 48
_CLASSIFIER_WIDTH: Final = 192
_MIN_WIDTH: Final = 32
_MAX_WIDTH: Final = 960
_STEP: Final = 32
_CERTAIN: Final = 0.9


def classifier_input(lines: Sequence[Image.Image]) -> Float32Array:
    """Return the beginnings of lines as [lines, 3, 48, 192] float32."""
    return _stack(lines, _CLASSIFIER_WIDTH)


def is_upside_down(probabilities: Float32Array) -> list[bool]:
    """Whether each line lies upside down, from [lines, 2] float32: the probabilities of 0 and of 180 degrees."""
    return [bool(line[1] > _CERTAIN) for line in probabilities]


def recogniser_input(line: Image.Image) -> Float32Array:
    """Return a line as [1, 3, 48, width] float32, as wide as it is, rounded up to 32 and at most 960."""
    wanted = -(-_scaled_width(line) // _STEP) * _STEP
    return _stack([line], min(_MAX_WIDTH, max(_MIN_WIDTH, wanted)))


def text_from_probabilities(probabilities: npt.NDArray[np.floating], characters: Sequence[str]) -> str:
    """Return the text of one line.

    Args:
        probabilities: [steps, symbols] float, one row a step.
        characters: of symbols 1 to symbols - 2.
    """
    symbols = probabilities.argmax(axis=1)
    first_of_repeat = np.insert(symbols[1:] != symbols[:-1], 0, values=True)
    alphabet = ["", *characters, " "]
    return "".join(alphabet[symbol] for symbol in symbols[first_of_repeat])


def _scaled_width(line: Image.Image) -> int:
    return max(1, round(line.width * _HEIGHT / line.height))


def _stack(lines: Sequence[Image.Image], width: int) -> Float32Array:
    batch = np.zeros((len(lines), 3, _HEIGHT, width), np.float32)
    for row, line in zip(batch, lines, strict=True):
        fitted = line.convert("RGB").resize((min(width, _scaled_width(line)), _HEIGHT))
        pixels = np.asarray(fitted, np.float32) / 127.5 - 1
        row[:, :, : fitted.width] = pixels.transpose(2, 0, 1)
    return batch
