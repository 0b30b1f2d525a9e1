"""What each model is for: reading lines, finding lines on pages, saying which way up a line is."""

import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Generic, TypeVar

import numpy as np
from benchmarks.precision.intervals import Share
from benchmarks.precision.rendering import draw_lines, draw_pages
from detect import Box, Float32Array, boxes_from_probabilities, detector_input
from read import classifier_input, is_upside_down, recogniser_input, text_from_probabilities
from typing_extensions import override

__all__ = ["Finding", "Model", "Reading", "Shares", "Task", "Turning", "count_equal"]

Model = Callable[[Float32Array], Float32Array]
Shares = Mapping[str, Share]
_Truth = TypeVar("_Truth")
_Answer = TypeVar("_Answer")
_Page = tuple[tuple[int, int], Sequence[Box]]

_ROOT: Final = Path(__file__).resolve().parents[2]
_CHARACTERS: Final = _ROOT / "examples" / "ocr" / "characters.txt"
_OVERLAP: Final = 0.5


class Task(ABC, Generic[_Truth, _Answer]):
    """One model's task.

    Attributes:
        name: of the model.
        shapes: of its input at min, opt and max.
        calibration: number of samples to calibrate with.
        trials: number of samples that are judged.
    """

    name: str
    shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    calibration: int
    trials: int

    def model(self, folder: Path) -> Path:
        """Return the ONNX file, which is put into `folder`."""
        models = subprocess.check_output([_ROOT / "hack" / "fetch-models"], text=True).strip()
        return Path(shutil.copy(Path(models, f"{self.name}.onnx"), folder))

    @abstractmethod
    def samples(self, count: int, seed: str) -> Iterator[tuple[Float32Array, _Truth]]:
        """Yield inputs of the model with the truth about each."""

    @abstractmethod
    def answer(self, model: Model, tensor: Float32Array, truth: _Truth) -> _Answer:
        """Return what the model says, decoded."""

    def restore(self, answer: _Answer) -> _Answer:
        """Return an answer that was kept as JSON."""
        return answer

    @abstractmethod
    def judge(self, answers: Sequence[_Answer], reference: Sequence[_Answer], truths: Sequence[_Truth]) -> Shares:
        """Count answers that are those of the FP32 model, and answers that are right."""


class Reading(Task[str, str]):
    """rec: the text of a line; spaces at the ends are trimmed and others joined before texts are compared."""

    name = "rec"
    shapes = ((1, 3, 48, 32), (1, 3, 48, 320), (1, 3, 48, 960))
    calibration = 160
    trials = 1000

    def __init__(self) -> None:
        self._characters = _CHARACTERS.read_text(encoding="utf-8").split("\n")[:-1]

    @override
    def samples(self, count: int, seed: str) -> Iterator[tuple[Float32Array, str]]:
        for line in draw_lines(count, f"rec {seed}"):
            yield recogniser_input(line.picture), _plain(line.text)

    @override
    def answer(self, model: Model, tensor: Float32Array, truth: str) -> str:
        return _plain(text_from_probabilities(model(tensor)[0], self._characters))

    @override
    def judge(self, answers: Sequence[str], reference: Sequence[str], truths: Sequence[str]) -> Shares:
        return {"same": count_equal(answers, reference), "right": count_equal(answers, truths)}


class Turning(Task[bool, bool]):
    """cls: whether a line lies upside down; every second one does."""

    name = "cls"
    shapes = ((1, 3, 48, 192), (1, 3, 48, 192), (1, 3, 48, 192))
    calibration = 160
    trials = 400

    @override
    def samples(self, count: int, seed: str) -> Iterator[tuple[Float32Array, bool]]:
        for number, line in enumerate(draw_lines(count, f"cls {seed}")):
            turned = number % 2 == 1
            yield classifier_input([line.picture.rotate(180) if turned else line.picture]), turned

    @override
    def answer(self, model: Model, tensor: Float32Array, truth: bool) -> bool:
        return is_upside_down(model(tensor))[0]

    @override
    def judge(self, answers: Sequence[bool], reference: Sequence[bool], truths: Sequence[bool]) -> Shares:
        return {"same": count_equal(answers, reference), "right": count_equal(answers, truths)}


class Finding(Task[_Page, list[Box]]):
    """det: the boxes of the lines of a page; a line is found if a box overlaps it by half."""

    name = "det"
    shapes = ((1, 3, 320, 320), (1, 3, 640, 960), (1, 3, 960, 960))
    calibration = 24
    trials = 40

    @override
    def samples(self, count: int, seed: str) -> Iterator[tuple[Float32Array, _Page]]:
        for page in draw_pages(count, f"det {seed}"):
            yield detector_input(page.picture), (page.picture.size, page.boxes)

    @override
    def answer(self, model: Model, tensor: Float32Array, truth: _Page) -> list[Box]:
        return boxes_from_probabilities(model(tensor)[0, 0], truth[0])

    @override
    def restore(self, answer: list[Box]) -> list[Box]:
        return [Box(*box) for box in answer]

    @override
    def judge(self, answers: Sequence[list[Box]], reference: Sequence[list[Box]], truths: Sequence[_Page]) -> Shares:
        wanted = [boxes for _, boxes in truths]
        return {
            "same": _found(reference, answers),
            "right": _found(wanted, answers),
            "true": _found(answers, wanted),
        }


def _plain(text: str) -> str:
    return " ".join(text.split())


def count_equal(answers: Sequence[object], others: Sequence[object]) -> Share:
    """Return the share of answers that equal the others."""
    return Share(hits=sum(a == b for a, b in zip(answers, others, strict=True)), trials=len(answers))


def _found(wanted: Sequence[Sequence[Box]], found: Sequence[Sequence[Box]]) -> Share:
    """Return the share of the wanted boxes that one of the found ones overlaps by half."""
    hits = sum(
        any(_overlap(one, other) >= _OVERLAP for other in others)
        for boxes, others in zip(wanted, found, strict=True)
        for one in boxes
    )
    return Share(hits=hits, trials=sum(map(len, wanted)))


def _overlap(a: Box, b: Box) -> float:
    """Return intersection over union."""
    width, height = min(a.right, b.right) - max(a.left, b.left), min(a.bottom, b.bottom) - max(a.top, b.top)
    shared = max(width, 0) * max(height, 0)
    union = (a.right - a.left) * (a.bottom - a.top) + (b.right - b.left) * (b.bottom - b.top) - shared
    return float(np.divide(shared, union)) if union else 0.0
