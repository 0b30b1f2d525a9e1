"""Renders the demo's image: lines of Chinese and English text, one of them upside down for the direction classifier.

The picture is committed, so this runs only when the text changes:

    python examples/ocr/render.py /usr/share/fonts/truetype/wqy/wqy-microhei.ttc
"""

import sys
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

__all__ = ["main"]

_HERE: Final = Path(__file__).resolve().parent
_SIZE: Final = (960, 640)
_MARGIN: Final = 48
_PITCH: Final = 92
_FONT_SIZE: Final = 40
_PAPER: Final = 250
_INK: Final = 24
# Counted from 0: this line is printed upside down, as on a sheet that lay the wrong way in the scanner.
_UPSIDE_DOWN_LINE: Final = 3


def main(font_path: str) -> None:
    """Write image.png beside this file from the lines of expected.txt."""
    lines = (_HERE / "expected.txt").read_text(encoding="utf-8").splitlines()
    font = ImageFont.truetype(font_path, _FONT_SIZE)
    page = Image.new("L", _SIZE, _PAPER)
    for number, line in enumerate(lines):
        strip = Image.new("L", (_SIZE[0] - 2 * _MARGIN, _PITCH), _PAPER)
        ImageDraw.Draw(strip).text((0, 16), line, font=font, fill=_INK)
        if number == _UPSIDE_DOWN_LINE:
            strip = strip.rotate(180)
        page.paste(strip, (_MARGIN, 44 + number * _PITCH))
    page.save(_HERE / "image.png", optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
