"""Calibration of INT8 and FP8: the data, the rule that computes ranges from it, and the search for nodes to keep."""

from enum import StrEnum
from typing import Final

from pydantic import Field

from enginesmith_contract.record import Record

__all__ = ["LEAST_SAMPLES", "AutoKeep", "Calibration", "CalibrationMethod", "ChannelOrder", "ImageReading"]

LEAST_SAMPLES: Final = 16
"""Smallest number of samples that gives reliable ranges."""


class CalibrationMethod(StrEnum):
    """Rule that picks the range of a tensor from the histogram of its absolute values."""

    MSE = "mse"
    """The range with the smallest mean squared error of the rounded values."""
    MIN_MAX = "minMax"
    """The largest absolute value."""
    PERCENTILE = "percentile"
    """The absolute value below which a share of the values other than 0 lies."""


class ChannelOrder(StrEnum):
    """Order of the channels that the model was trained with; images of one channel are grey in any case."""

    RGB = "rgb"
    BGR = "bgr"


class ImageReading(Record):
    """How image files become an input of the model.

    Attributes:
        input: Name of the input. If None, the model's only input.
        channels: Order of the channels.
        size: Height and width in pixels that images are scaled to. If None, images keep their size.
        mean: Mean of each channel, which is subtracted from the scaled pixels. Required with `std` if the input has no
            entry in `model.preprocess`, and refused if it has one.
        std: Standard deviation of each channel, by which the difference is divided.
        scale: Factor of the pixels before `mean` is subtracted. If None, 1/255.
    """

    input: str | None = None
    channels: ChannelOrder = ChannelOrder.RGB
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    scale: float | None = None


class Calibration(Record):
    """Data that looks like production data, and how it is used.

    Attributes:
        source: URI of a folder, an archive (.tar, .tar.gz, .zip) or a file (.npz, .npy) with samples. Schemes are those
            of `model.uri`; http(s) and ms have no folders.
        digest: SHA-256 of the file or archive, or of the lines `<path> <SHA-256>` of a folder's files that are used, in
            order of their paths. If given, other data is refused.
        method: Rule that picks the range of a tensor.
        percentile: Share of the values below the range, in percent; only for method `percentile`.
        max_samples: Number of samples that are read, in order of their names. Other samples are not used for
            calibration.
        images: How image files are read. Required for images of a model without `model.preprocess`.
        held_out: Share of the samples that measure the accuracy of the result and are not used for calibration.
    """

    source: str
    digest: str | None = None
    method: CalibrationMethod = CalibrationMethod.MSE
    percentile: float = Field(default=99.99, gt=50.0, le=100.0)
    max_samples: int = Field(default=512, ge=LEAST_SAMPLES, le=100_000)
    images: ImageReading | None = None
    held_out: float = Field(default=0.2, gt=0.0, lt=1.0)

    @property
    def anywhere(self) -> "Calibration":
        """Return a copy without the URI of the data, which does not change the result."""
        return self.model_copy(update={"source": "", "digest": None})

    @property
    def of_histograms(self) -> "Calibration":
        """Return a copy with only the fields that histograms depend on: without the URI of the data and the method."""
        return Calibration(**self.model_dump(exclude={"digest", "method", "percentile"}) | {"source": ""})


class AutoKeep(Record):
    """Bounds of the search for nodes that are not quantised, since the answers depend on them most.

    Attributes:
        budget: Share of the bytes of the weights that may be kept.
        max_nodes: Largest number of nodes that may be kept; None: any number.
        timeout_seconds: Longest time of the search. The best result until then is used.
        agreement: Smallest agreement that the search aims at: `verification.agreement`. For sequences, such as the
            characters of a line, whole sequences are counted. If None, the default of the verification.
    """

    budget: float = Field(default=0.25, gt=0.0, le=1.0)
    max_nodes: int | None = Field(default=None, ge=1)
    timeout_seconds: float = Field(default=1800.0, gt=0.0)
    agreement: float | None = Field(default=None, gt=0.0, le=1.0)
