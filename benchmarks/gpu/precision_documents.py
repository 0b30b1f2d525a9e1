"""The documents of section `precision`, and the calibration data that they name.

Weights and images are random, or printed text: what is measured is speed. How well models read in each precision is in
docs/accuracy.md.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.gpu.documents import Document, Range, Workplace
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Family", "families", "precision_documents", "write_calibration"]

_Floats = np.ndarray[Any, np.dtype[np.float32]]

_RESNET: Final = "precision-resnet50"
_SIDE: Final = 224
_HELD_OUT: Final = 0.4
_SAMPLES: Final = {"resnet50": 40, "cls": 40, "rec": 40, "det": 16}
_WORDS: Final = ("engine", "profile", "batch", "kernel", "tensor", "graph", "driver", "plan", "queue", "scale")
# The least that a printed line or page must agree in: this run is about speed.
_AGREEMENT: Final = 0.8
_QUICKLY: Final = {"optimizationLevel": 1}


@dataclass(frozen=True, kw_only=True)
class Family:
    """One model in several precisions.

    Attributes:
        documents: the reference first, which is FP16; then in the order of their value.
        shapes: that are measured.
    """

    name: str
    documents: tuple[Document, ...]
    shapes: tuple[tuple[int, ...], ...]


def families(work: Workplace) -> tuple[Family, ...]:
    """Return what is built; small batches where a CPU computes, and only what ONNX Runtime has."""
    gpu = work.backend != "onnxruntime"
    batches = (1, 32, 64) if gpu else (1, 2, 8)
    images = [(batch, 3, _SIDE, _SIDE) for batch in batches]
    resnet = _family(
        work, "resnet50", "images", (images[0], images[1], images[2]), images, build={}, values=(-3.0, 3.0)
    )
    pixels = [(batch, _SIDE, _SIDE, 3) for batch in batches]
    raw = Document(
        name=f"{_RESNET}-uint8-pixels",
        model="resnet50-uint8",
        tensor="images",
        ranges=(pixels[0], pixels[1], pixels[2]),
        precision="fp16",
        everywhere=True,
    )
    resnet = replace(resnet, documents=(*resnet.documents[:2], raw, *resnet.documents[2:]))
    lines = [(batch, 3, 48, 192) for batch in (1, 16, 32)] if gpu else [(batch, 3, 48, 192) for batch in (1, 2, 4)]
    cls = _family(work, "cls", "x", (lines[0], lines[1], lines[2]), lines[:2], build=_QUICKLY, values=(-1.0, 1.0))
    if not gpu:
        return tuple(_without(one, ("bf16", "fp8")) for one in (resnet, cls))
    wide: Range = ((1, 3, 48, 160), (8, 3, 48, 320), (8, 3, 48, 640))
    rec = _family(work, "rec", "x", wide, [(1, 3, 48, 320), wide[1]], build=_QUICKLY, values=(-1.0, 1.0))
    pages: Range = ((1, 3, 320, 320), (1, 3, 640, 640), (1, 3, 960, 960))
    det = _family(work, "det", "x", pages, [pages[1]], build=_QUICKLY, values=(-1.0, 1.0))
    return (resnet, *(_without(one, ("bf16", "fp8", "fp32")) for one in (cls, rec, det)))


def precision_documents(work: Workplace) -> tuple[Document, ...]:
    """Return the documents of every family, in the order in which they are built."""
    return tuple(document for family in families(work) for document in family.documents)


def _family(
    work: Workplace,
    model: str,
    tensor: str,
    ranges: Range,
    shapes: Sequence[tuple[int, ...]],
    *,
    build: Mapping[str, Any],
    values: tuple[float, float],
) -> Family:
    given = {"inputs": {tensor: {"range": list(values)}}}
    calibration = _calibration(work.models / f"calibration-{model}.npy")
    documents = []
    for precision in ("fp16", "int8", "fp8", "bf16", "fp32"):
        calibrated = precision in {"int8", "fp8"}
        verification: dict[str, Any] = dict(given)
        if calibrated and model == "resnet50":
            # Its weights are random: of 1,000 scores that are nearly alike the largest is no answer.
            verification["outputs"] = {"scores": {"decode": "values"}}
        elif calibrated:
            verification["agreement"] = _AGREEMENT
        elif precision == "fp16" and model != "resnet50":
            # On noise, where the answers are near zero, rounding is large against them.
            verification["limit"] = 100.0
        documents.append(
            Document(
                name=f"precision-{model}-{precision}",
                model=model,
                tensor=tensor,
                ranges=ranges,
                precision={"default": precision, "calibration": calibration} if calibrated else precision,
                build=build,
                verification=verification,
                everywhere=True,
            )
        )
    return Family(name=f"precision-{model}", documents=tuple(documents), shapes=tuple(shapes))


def _without(family: Family, precisions: tuple[str, ...]) -> Family:
    kept = tuple(one for one in family.documents if not one.name.endswith(precisions))
    return replace(family, documents=kept)


def _calibration(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"source": file.name, "heldOut": _HELD_OUT}
    if file.exists():
        found["digest"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def write_calibration(work: Workplace) -> None:
    """Write one .npy file of samples for each model, unless it is there; a row is a sample."""
    makers: Mapping[str, Callable[[int, np.random.Generator], _Floats]] = {
        "resnet50": _image,
        "cls": lambda seed, random: _text(random, (192, 48), lines=1, turned=seed % 2 == 1),
        "rec": lambda _seed, random: _text(random, (320, 48), lines=1),
        "det": lambda _seed, random: _text(random, (640, 640), lines=8),
    }
    models = {family.name.removeprefix("precision-") for family in families(work)}
    for name, make in makers.items():
        file = work.models / f"calibration-{name}.npy"
        if name in models and not file.exists():
            np.save(file, np.stack([make(seed, np.random.default_rng(seed)) for seed in range(_SAMPLES[name])]))


def _image(_seed: int, random: np.random.Generator) -> _Floats:
    """Return a picture with large and small shapes, normalised as classifiers want it: [3, 224, 224]."""
    picture = np.zeros((3, _SIDE, _SIDE))
    for cells in (4, 8, 16, 56, _SIDE):
        shapes = random.normal(0, cells**-0.25, (3, cells, cells))
        picture += np.kron(shapes, np.ones((1, _SIDE // cells, _SIDE // cells)))
    return np.clip(picture, -2.6, 2.6).astype(np.float32)


def _text(random: np.random.Generator, size: tuple[int, int], *, lines: int, turned: bool = False) -> _Floats:
    """Return printed words: [3, height, width] between -1 and 1."""
    picture = Image.new("L", size, int(random.integers(215, 256)))
    draw = ImageDraw.Draw(picture)
    pitch = size[1] // lines
    for number, words in enumerate(_sentences(random, lines)):
        font = ImageFont.load_default(float(random.integers(22, 32)))
        draw.text((int(random.integers(4, 12)), number * pitch + 6), words, int(random.integers(0, 70)), font=font)
    picture = picture.rotate(180) if turned else picture
    pixels = np.asarray(picture, np.float32) + random.normal(0, 4, (size[1], size[0]))
    return np.repeat(np.clip(pixels / 127.5 - 1, -1, 1)[None], 3, axis=0).astype(np.float32)


def _sentences(random: np.random.Generator, count: int) -> Iterator[str]:
    for _ in range(count):
        yield " ".join(random.choice(_WORDS, int(random.integers(2, 5))))
