"""Image normalisation inside a model's graph: clients send the pixels, and the engine normalises them.

    normalised[n, c, h, w] = (pixels[n, h, w, c] * scale - mean[c]) / std[c]

Pixels are UINT8 of shape [n, h, w, c]. The model's own input is a float tensor of shape [n, c, h, w]. `scale` is 1/255
if it is not set: `mean` and `std` are then those of pixels in [0, 1]; with 1, they are those of pixels in [0, 255].
"""

import difflib
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final

from pydantic import Field

from enginesmith_contract.errors import SpecError
from enginesmith_contract.profile_suggestions import shape_text
from enginesmith_contract.record import Record
from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec
from enginesmith_contract.text import counted

__all__ = ["NODES", "PIXEL_MAX", "PixelLayout", "Preprocess", "client_facts"]

PIXEL_MAX: Final = 255
NODES: Final = "enginesmith/preprocess/"
"""Prefix of the names of the normalisation's nodes."""
_FLOATS: Final = frozenset({DType.FP16, DType.FP32, DType.FP64, DType.BF16})
_AXES: Final = (0, 2, 3, 1)  # NHWC out of NCHW
_CHANNELS: Final = 1


class PixelLayout(StrEnum):
    """Datatype and order of dimensions of the pixels that clients send."""

    UINT8_NHWC = "uint8-nhwc"


class Preprocess(Record):
    """Normalisation of one image input.

    Attributes:
        input: Name of the model's input: a float tensor of shape [n, c, h, w].
        source: What clients send in place of it.
        mean: Mean of each channel, which is subtracted from the scaled pixels.
        std: Standard deviation of each channel, by which the difference is divided.
        scale: Factor of the pixels. If None, 1/255.
    """

    input: str
    source: PixelLayout = Field(alias="from")
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float | None = None

    @property
    def factor(self) -> float:
        """Return the factor of the pixels."""
        return 1 / PIXEL_MAX if self.scale is None else self.scale


def client_facts(facts: ModelFacts, entries: Sequence[Preprocess]) -> ModelFacts:
    """Return the facts of the model with its normalisation, whose inputs are those that clients send.

    Raises:
        SpecError: `UnknownInput` or `PreprocessDoesNotFit`.
    """
    for number, entry in enumerate(entries):
        fault = next(_faults(facts, entries[:number], entry), None)
        if fault is not None:
            raise fault
    by_name = {entry.input: entry for entry in entries}
    inputs = tuple(_pixels(spec, by_name[spec.name]) if spec.name in by_name else spec for spec in facts.inputs)
    return facts.model_copy(update={"inputs": inputs})


def _faults(facts: ModelFacts, earlier: Sequence[Preprocess], entry: Preprocess) -> Iterator[SpecError]:
    specs = {spec.name: spec for spec in facts.inputs}
    spec = specs.get(entry.input)
    if spec is None:
        close = difflib.get_close_matches(entry.input, specs, n=1, cutoff=0.5)
        remedy = f"name {close[0]}" if close else "name an input of the model"
        yield _wrong(entry, "the model has no such input", f"it has {', '.join(specs)}", remedy, "UnknownInput")
        return
    if any(one.input == entry.input for one in earlier):
        yield _wrong(entry, "the input has two entries", "each input has one normalisation", "remove one of them")
    if spec.dtype not in _FLOATS:
        why = f"normalised pixels are floats, and the input is {spec.dtype}"
        yield _wrong(entry, "the input takes no floats", why, "remove the entry, or name the image input")
    if len(spec.shape) != len(_AXES):
        why = f"an image input has the shape [n, c, h, w], and this one is {shape_text(spec)}"
        yield _wrong(entry, "the input is no batch of images", why, "remove the entry, or name the image input")
        return
    if any(one.name == entry.input for one in facts.outputs):
        yield _wrong(
            entry, "the input is also an output", "the output would be pixels", "give the output a name of its own"
        )
    yield from _channel_faults(spec, entry)


def _channel_faults(spec: TensorSpec, entry: Preprocess) -> Iterator[SpecError]:
    channels = spec.shape[_CHANNELS]
    wanted = channels if channels >= 0 else len(entry.mean)
    for name, values in (("mean", entry.mean), ("std", entry.std)):
        if not values or len(values) != wanted:
            why = f"it has {len(values)} values, and dimension 1 of {shape_text(spec)} has {counted(wanted, 'channel')}"
            yield _wrong(entry, f"{name} does not fit the channels", why, f"give {name} one value for each channel")
    most = PIXEL_MAX * entry.factor
    beyond = [value for value in entry.mean if not 0 <= value <= most]
    if beyond:
        why = f"pixels times scale lie in [0, {most:g}], and mean holds {beyond[0]:g}"
        remedy = "set scale: 1 for a mean of pixels in [0, 255]"
        yield _wrong(entry, "mean has another unit than the scaled pixels", why, remedy)


def _pixels(spec: TensorSpec, entry: Preprocess) -> TensorSpec:
    shape = tuple(len(entry.mean) if axis == _CHANNELS else spec.shape[axis] for axis in _AXES)
    symbols = tuple(None if axis == _CHANNELS else spec.symbols[axis] for axis in _AXES) if spec.symbols else ()
    return TensorSpec(name=spec.name, dtype=DType.UINT8, shape=shape, symbols=symbols)


def _wrong(entry: Preprocess, what: str, why: str, remedy: str, reason: str = "PreprocessDoesNotFit") -> SpecError:
    return SpecError(what, where=f"model.preprocess, input {entry.input}", why=why, remedy=remedy, reason=reason)
