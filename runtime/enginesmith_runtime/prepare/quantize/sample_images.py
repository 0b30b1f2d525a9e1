"""Reads image files as an input of the model: as pixels, or as normalised values if the model has no normalisation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from enginesmith_contract.calibration import ChannelOrder, ImageReading
from enginesmith_contract.preprocess import PIXEL_MAX, Preprocess
from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec
from enginesmith_runtime.prepare.quantize.sample_files import unreadable
from enginesmith_runtime.prepare.quantize.sample_fit import does_not_fit
from enginesmith_runtime.prepare.runs.inputs import FLOATS, Array

__all__ = ["ImageDecoder", "ImageSource"]

_MODES: Final = {1: "L", 3: "RGB", 4: "RGBA"}
_RANK: Final = 4
# Modes with 16 bits and more per channel. A conversion would cut the values off.
_DEEP: Final = ("I", "F")


@dataclass(frozen=True, kw_only=True)
class ImageDecoder:
    """Settings for reading images.

    Attributes:
        reading: How images are read.
        inputs: Inputs that may be images, in the graph's order.
        normalised: Inputs that the model normalises itself.
    """

    reading: ImageReading
    inputs: tuple[str, ...]
    normalised: frozenset[str]

    @classmethod
    def of(cls, reading: ImageReading | None, facts: ModelFacts, preprocess: Sequence[Preprocess]) -> "ImageDecoder":
        """Return the decoder of a model's images.

        Raises:
            enginesmith_contract.errors.SpecError: `CalibrationDataDoesNotFit`.
        """
        normalised = tuple(entry.input for entry in preprocess)
        every = tuple(spec.name for spec in facts.inputs)
        names = normalised or every
        if reading is not None and reading.input is not None and reading.input not in every:
            where, why = "precision.calibration.images.input", f"its inputs are {', '.join(every)}"
            raise does_not_fit(f"the model has no input {reading.input!r}", where, why, "name an input of the model")
        return cls(reading=reading or ImageReading(), inputs=names, normalised=frozenset(normalised))

    def input_of(self, file: str) -> str:
        """Return the input of an image.

        Raises:
            enginesmith_contract.errors.SpecError: `CalibrationDataDoesNotFit`.
        """
        name = self.reading.input or self.inputs[0]
        if name in self.inputs and (self.reading.input or len(self.inputs) == 1):
            return name
        why = f"the model has the inputs {', '.join(self.inputs)}"
        raise does_not_fit("the input of the images is not known", file, why, "set calibration.images.input")

    def decode(self, stream: IO[bytes], file: str, spec: TensorSpec) -> Array:
        """Return an image as UINT8 pixels [1, h, w, c], or normalised as floats [1, c, h, w].

        Raises:
            enginesmith_contract.errors.SpecError: `CalibrationDataDoesNotFit` or `CalibrationDataUnreadable`.
        """
        is_pixels = spec.dtype is DType.UINT8
        if len(spec.shape) != _RANK or not (is_pixels or spec.dtype in FLOATS):
            why = f"it is {spec.dtype} with {len(spec.shape)} dimensions"
            raise does_not_fit(f"input {spec.name} is not a batch of images", file, why, "use .npy or .npz files")
        if not is_pixels and not (self.reading.mean and self.reading.std):
            why = f"input {spec.name} has no entry in model.preprocess"
            remedy = "set mean and std in calibration.images, or add the entry"
            raise does_not_fit("the normalisation of the images is not known", file, why, remedy)
        unused = [name for name in ("mean", "std", "scale") if is_pixels and getattr(self.reading, name)]
        if unused:
            what = f"calibration.images.{unused[0]} has no effect"
            why = f"input {spec.name} takes pixels, and the model normalises them"
            raise does_not_fit(what, file, why, f"remove {', '.join(unused)}")
        channels = spec.shape[3] if is_pixels else len(self.reading.mean)
        if not is_pixels and spec.shape[1] not in {channels, -1}:
            why = f"calibration.images.mean has {channels} values, and input {spec.name} has {spec.shape[1]} channels"
            raise does_not_fit("mean and std do not fit", file, why, "give one of each for a channel")
        pixels = self._pixels(stream, file, channels)
        if is_pixels:
            return pixels[np.newaxis]
        return self._normalise(pixels, file)

    def _pixels(self, stream: IO[bytes], file: str, channels: int) -> Array:
        mode = _MODES.get(channels)
        if mode is None:
            why = f"the input has {channels} channels"
            raise does_not_fit("an image has 1, 3 or 4 channels", file, why, "use .npy or .npz files")
        is_bgr = self.reading.channels is ChannelOrder.BGR
        if is_bgr and channels == 1:
            why = "the input has one channel"
            raise does_not_fit("there is no order of channels", file, why, "remove calibration.images.channels")
        array = _read_pixels(stream, file, mode, self.reading.size)
        array = array.reshape(*array.shape[:2], channels)
        if is_bgr:
            array = np.concatenate((array[:, :, 2::-1], array[:, :, 3:]), axis=2)
        return array

    def _normalise(self, pixels: Array, file: str) -> Array:
        mean, std = np.array(self.reading.mean), np.array(self.reading.std)
        if len(mean) != len(std) or not (std > 0).all():
            why = f"mean has {len(mean)} values and std {len(std)}"
            raise does_not_fit("mean and std do not fit", file, why, "give one of each for a channel, std above 0")
        factor = 1 / PIXEL_MAX if self.reading.scale is None else self.reading.scale
        values = (pixels.astype(np.float64) * factor - mean) / std
        return np.ascontiguousarray(values.transpose(2, 0, 1)[np.newaxis], dtype=np.float32)


class ImageSource:
    """One image as an `ArraySource`. It is decoded when it is opened."""

    def __init__(self, stream: IO[bytes], file: str, spec: TensorSpec, decoder: ImageDecoder) -> None:
        self._array = decoder.decode(stream, file, spec)
        self.where = file
        self.shape: tuple[int, ...] = self._array.shape
        self.dtype = self._array.dtype

    def read(self, rows: int | None) -> Array:
        """Return the image."""
        return self._array[:rows]

    def skip(self, rows: int) -> None:
        """Skip the image."""


def _open_image(stream: IO[bytes]) -> Image.Image:
    try:
        return Image.open(stream)
    except UnidentifiedImageError as error:  # its message only has the address of the stream
        raise OSError("it is not an image") from error


def _read_pixels(stream: IO[bytes], file: str, mode: str, size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    """Return UINT8 [h, w, c], or [h, w] for one channel."""
    try:
        with unreadable(file):
            image = ImageOps.exif_transpose(_open_image(stream))
            image.load()
    except (Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise does_not_fit("the image cannot be decoded", file, str(error), "save it again as PNG") from error
    if image.mode.startswith(_DEEP):
        raise does_not_fit("the image has more than 8 bits per channel", file, f"mode {image.mode}", "save 8 bits")
    image = image.convert(mode)
    if size is not None:
        image = image.resize(size[::-1], resample=Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8)
