"""Pictures of text: lines and pages, with some blur, noise and tilt; the same seed gives the same picture."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from benchmarks.precision.texts import is_chinese, lines
from detect import Box
from PIL import Image, ImageDraw, ImageFilter, ImageFont

__all__ = ["FONT_PACKAGES", "Line", "Page", "draw_lines", "draw_pages", "find_fonts"]

FONT_PACKAGES: Final = (
    "fonts-noto-cjk", "fonts-wqy-zenhei", "fonts-wqy-microhei", "fonts-arphic-ukai", "fonts-arphic-uming",
    "fonts-dejavu-core",
)  # fmt: skip
_CHINESE_FONTS: Final = ("NotoSansCJK-Regular", "NotoSerifCJK-Regular", "wqy-zenhei", "wqy-microhei", "ukai", "uming")
_LATIN_FONTS: Final = (*_CHINESE_FONTS, "DejaVuSans", "DejaVuSerif")
_MOST_TILT: Final = 1.0
_PAGE: Final = (960, 640)
_PITCH: Final = 76


@dataclass(frozen=True, kw_only=True)
class Line:
    """A picture of one line and its text."""

    text: str
    picture: Image.Image


@dataclass(frozen=True, kw_only=True)
class Page:
    """A picture of a page and where its lines are."""

    picture: Image.Image
    boxes: tuple[Box, ...]


def find_fonts() -> dict[str, Path]:
    """Return the fonts by the name of their file.

    Raises:
        SystemExit: one is missing, with the command that installs it.
    """
    listed = subprocess.check_output(["fc-list", ":", "file"], text=True)
    paths = {path.stem: path for path in (Path(line.strip().rstrip(":")) for line in listed.splitlines())}
    missing = [name for name in _LATIN_FONTS if name not in paths]
    if missing:
        raise SystemExit(
            f"fonts are missing: {', '.join(missing)}. Install them: apt-get install {' '.join(FONT_PACKAGES)}"
        )
    return {name: paths[name] for name in _LATIN_FONTS}


def draw_lines(count: int, seed: str) -> Iterator[Line]:
    """Yield lines of text."""
    fonts = find_fonts()
    source = np.random.default_rng([*seed.encode()])
    for text in lines(count, seed):
        names = _CHINESE_FONTS if is_chinese(text) else _LATIN_FONTS
        font = ImageFont.truetype(str(fonts[names[source.integers(len(names))]]), int(source.integers(26, 44)))
        left, top, right, bottom = font.getbbox(text)
        pad = int(source.integers(3, 9))
        paper, ink = int(source.integers(215, 256)), int(source.integers(0, 70))
        picture = Image.new("L", (round(right - left) + 2 * pad, round(bottom - top) + 2 * pad), paper)
        ImageDraw.Draw(picture).text((pad - left, pad - top), text, font=font, fill=ink)
        yield Line(text=text, picture=_worn(picture, paper, source, tilt=_MOST_TILT))


def draw_pages(count: int, seed: str) -> Iterator[Page]:
    """Yield pages of 4 to 7 lines."""
    fonts = find_fonts()
    source = np.random.default_rng([*seed.encode()])
    for number in range(count):
        paper, ink = int(source.integers(225, 256)), int(source.integers(0, 60))
        picture = Image.new("L", _PAGE, paper)
        draw = ImageDraw.Draw(picture)
        boxes = []
        for row, text in enumerate(lines(int(source.integers(4, 8)), f"{seed} {number}")):
            names = _CHINESE_FONTS if is_chinese(text) else _LATIN_FONTS
            font = ImageFont.truetype(str(fonts[names[source.integers(len(names))]]), int(source.integers(24, 38)))
            place = (int(source.integers(24, 90)), 30 + row * _PITCH + int(source.integers(0, 16)))
            draw.text(place, text, font=font, fill=ink)
            left, top, right, bottom = draw.textbbox(place, text, font=font)
            boxes.append(Box(round(left), round(top), min(round(right), _PAGE[0]), round(bottom)))
        yield Page(picture=_worn(picture, paper, source, tilt=0.0), boxes=tuple(boxes))


def _worn(picture: Image.Image, paper: int, source: np.random.Generator, *, tilt: float) -> Image.Image:
    """Return a picture as a camera sees it: tilted, out of focus, with noise."""
    if tilt:
        angle = float(source.uniform(-tilt, tilt))
        picture = picture.rotate(angle, Image.Resampling.BICUBIC, fillcolor=paper)
    picture = picture.filter(ImageFilter.GaussianBlur(float(source.uniform(0, 0.9))))
    pixels = np.asarray(picture, np.float32)
    noisy = pixels + source.normal(0, float(source.uniform(0, 6)), pixels.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).convert("RGB")
