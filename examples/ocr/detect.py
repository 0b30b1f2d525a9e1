"""Finds the lines of text on a page: what goes into the detection model, and what its answer means.

The model (PP-OCRv4 det, a DB network) gives each pixel the probability that it is in the core of a text line. A line is
a connected component of likely pixels; its box is that component's, grown back by the margin that the training shrank.
Boxes are upright rectangles: enough for a page that is not tilted.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["Box", "Float32Array", "boxes_from_probabilities", "detector_input"]

Float32Array = npt.NDArray[np.float32]

# The model halves its input five times.
_MULTIPLE: Final = 32
_MIN_SIDE: Final = 320
_MAX_SIDE: Final = 960
# The statistics that the network was trained with (ImageNet's), in the order of its channels.
_MEAN: Final = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION: Final = np.array([0.229, 0.224, 0.225], np.float32)
_LIKELY: Final = 0.3
_CONFIDENT: Final = 0.6
_MIN_PIXELS: Final = 3
# How far a box grows: this times area / perimeter, the inverse of the shrinking in the DB paper (arXiv 1911.08947).
_UNCLIP_RATIO: Final = 1.6


class Box(NamedTuple):
    """An upright rectangle in pixels of the page; right and bottom are outside."""

    left: int
    top: int
    right: int
    bottom: int


class _Run(NamedTuple):
    row: int
    first: int
    end: int


def detector_input(page: Image.Image) -> Float32Array:
    """Return the page as [1, 3, height, width] float32, both sides multiples of 32 between 320 and 960."""
    scale = min(1.0, _MAX_SIDE / max(page.size))
    width, height = (_fitting_side(side * scale) for side in page.size)
    pixels = np.asarray(page.convert("RGB").resize((width, height)), np.float32) / 255
    normalised = (pixels - _MEAN) / _DEVIATION
    return np.ascontiguousarray(normalised.transpose(2, 0, 1)[np.newaxis], np.float32)


def boxes_from_probabilities(probabilities: Float32Array, page_size: tuple[int, int]) -> list[Box]:
    """Return the text lines of a page, top to bottom.

    Args:
        probabilities: [height, width] float32, 0 to 1, the model's output for one page.
        page_size: width and height of the page in pixels.
    """
    scale_x = page_size[0] / probabilities.shape[1]
    scale_y = page_size[1] / probabilities.shape[0]
    boxes = []
    for core in _components(probabilities > _LIKELY):
        certainty = probabilities[core.top : core.bottom, core.left : core.right].mean()
        if certainty < _CONFIDENT or min(core.right - core.left, core.bottom - core.top) < _MIN_PIXELS:
            continue
        grown = _grow(core)
        boxes.append(
            Box(
                left=max(0, round(grown.left * scale_x)),
                top=max(0, round(grown.top * scale_y)),
                right=min(page_size[0], round(grown.right * scale_x)),
                bottom=min(page_size[1], round(grown.bottom * scale_y)),
            )
        )
    return sorted(boxes, key=lambda box: (box.top, box.left))


def _fitting_side(side: float) -> int:
    return min(_MAX_SIDE, max(_MIN_SIDE, round(side / _MULTIPLE) * _MULTIPLE))


def _grow(box: Box) -> Box:
    width, height = box.right - box.left, box.bottom - box.top
    margin = round(_UNCLIP_RATIO * width * height / (2 * (width + height)))
    return Box(box.left - margin, box.top - margin, box.right + margin, box.bottom + margin)


def _components(mask: npt.NDArray[np.bool_]) -> list[Box]:
    """Return the bounding box of each connected component (of 4 neighbours), joining runs of adjacent rows."""
    runs = _runs(mask)
    parents = list(range(len(runs)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    above = 0
    for index, run in enumerate(runs):
        while runs[above].row < run.row - 1 or (runs[above].row == run.row - 1 and runs[above].end <= run.first):
            above += 1
        candidate = above
        while runs[candidate].row == run.row - 1 and runs[candidate].first < run.end:
            parents[root(candidate)] = root(index)
            candidate += 1
    groups: dict[int, list[_Run]] = {}
    for index, run in enumerate(runs):
        groups.setdefault(root(index), []).append(run)
    return [_bounding_box(group) for group in groups.values()]


def _runs(mask: npt.NDArray[np.bool_]) -> list[_Run]:
    """Return each stretch of true pixels of a row, in reading order."""
    padded = np.pad(mask, ((0, 0), (1, 1))).astype(np.int8)
    changes = np.diff(padded, axis=1)
    rows, firsts = np.nonzero(changes == 1)
    ends = np.nonzero(changes == -1)[1]
    return [_Run(*numbers) for numbers in zip(rows.tolist(), firsts.tolist(), ends.tolist(), strict=True)]


def _bounding_box(runs: list[_Run]) -> Box:
    return Box(
        left=min(run.first for run in runs),
        top=min(run.row for run in runs),
        right=max(run.end for run in runs),
        bottom=max(run.row for run in runs) + 1,
    )
