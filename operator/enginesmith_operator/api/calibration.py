"""`spec.precision.calibration` and `spec.precision.autoKeep`: what INT8 and FP8 need."""

from typing import Annotated

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from enginesmith_contract.calibration import LEAST_SAMPLES, CalibrationMethod, ChannelOrder
from enginesmith_operator.api.base import ApiModel, Finding, finding_error, raise_findings, with_tuples
from enginesmith_operator.api.bounds import between_durations
from enginesmith_operator.api.model import ModelUri
from enginesmith_operator.api.quantities import Duration, SpelledSeconds
from enginesmith_operator.api.scalars import Sha256

__all__ = ["AutoKeepSpec", "CalibrationSpec", "ImageReadingSpec"]

_Pixels = Annotated[int, Field(ge=1, le=65_536)]
_Finite = Annotated[float, Field(ge=-1e6, le=1e6)]
_Positive = Annotated[float, Field(gt=0, le=1e6)]


class ImageReadingSpec(ApiModel):
    """Conversion of image files to an input of the model.

    Attributes:
        input: Name of the input. If omitted, the model's only input.
        channels: Order of the channels that the model was trained with.
        size: Height and width in pixels that images are scaled to. If omitted, images keep their size.
        mean: Mean of each channel, in the unit of the scaled pixels. Not allowed if the input has an entry in
            `model.preprocess`.
        std: Standard deviation of each channel, in the unit of the scaled pixels. Not allowed if the input has an entry
            in `model.preprocess`.
        scale: Factor of the pixels. If omitted, 1/255.
    """

    input: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    channels: ChannelOrder = ChannelOrder.RGB
    size: Annotated[tuple[_Pixels, ...], Field(min_length=2, max_length=2)] | None = None
    mean: Annotated[tuple[_Finite, ...], Field(max_length=64)] = ()
    std: Annotated[tuple[_Positive, ...], Field(max_length=64)] = ()
    scale: _Positive | None = None

    @model_validator(mode="before")
    @classmethod
    def _parse_lists(cls, value: object) -> object:
        return with_tuples(value)

    @model_validator(mode="after")
    def _require_one_length(self) -> "ImageReadingSpec":
        if len(self.mean) != len(self.std):
            reason = f"mean has {len(self.mean)} values and std has {len(self.std)}: both need one for each channel"
            raise_findings([Finding(reason, path=("std",))])
        return self


class CalibrationSpec(ApiModel):
    """Calibration data that looks like production data: a URI, or a mapping with these fields.

    Attributes:
        source: URI of a folder or prefix, an archive (.tar, .tar.gz, .zip) or a file (.npz, .npy). Schemes are those of
            `model.uri`; a folder needs `pvc://`, an object store or, in local mode, a path.
        digest: Expected SHA-256 of the file, or of the lines `<path> <SHA-256>` of a folder's files in the order of
            their paths, as 64 hexadecimal digits in lower case. Other data is refused.
        method: Rule that picks the range of a tensor: the smallest mean squared error (`mse`), the largest value
            (`minMax`), or `percentile`.
        percentile: Share of the values inside the range, in percent. Only for method `percentile`.
        max_samples: Number of samples that are used, in the order of their names. The files of a folder that hold no
            such sample are neither read nor part of the digest.
        images: Conversion of image files. Required for images of a model without `model.preprocess`.
        held_out: Share of the samples that are not calibrated with, but judge the accuracy of the result.
    """

    source: ModelUri
    digest: Sha256 | None = None
    method: CalibrationMethod = CalibrationMethod.MSE
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    max_samples: Annotated[int, Field(ge=LEAST_SAMPLES, le=100_000)] = 512
    images: ImageReadingSpec | None = None
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2

    @model_validator(mode="before")
    @classmethod
    def _parse_short_form(cls, value: object) -> object:
        return {"source": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _require_the_method_of_percentile(self) -> "CalibrationSpec":
        if "percentile" in self.model_fields_set and self.method is not CalibrationMethod.PERCENTILE:
            reason = f"has no effect with method {self.method}"
            raise_findings([Finding(reason, path=("percentile",), hint="set method: percentile, or remove the field")])
        return self

    @model_serializer(mode="wrap")
    def _serialize_short_form(self, write: SerializerFunctionWrapHandler) -> object:
        return self.source if self.model_fields_set == {"source"} else write(self)


class AutoKeepSpec(ApiModel):
    """Search for nodes that keep a higher precision: `true`, or a mapping with these fields for int8 and fp8.

    Attributes:
        budget: Share of the bytes of the weights that may be kept.
        max_nodes: Largest number of nodes that may be kept. If omitted, any number.
        timeout_seconds: Longest time of the search. The best result until then is used.
    """

    budget: Annotated[float, Field(gt=0, le=1)] = 0.25
    max_nodes: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    timeout_seconds: Annotated[Duration, between_durations("1s", "24h")] = Field(
        default=SpelledSeconds(1800.0, "30m"), alias="timeout"
    )

    @model_validator(mode="before")
    @classmethod
    def _parse_short_form(cls, value: object) -> object:
        if value is True:
            return {}
        if value is False or not isinstance(value, dict | AutoKeepSpec):
            raise finding_error(Finding("expected true, false or a mapping with budget, maxNodes and timeout", "true"))
        return value

    @model_serializer(mode="wrap")
    def _serialize_short_form(self, write: SerializerFunctionWrapHandler) -> object:
        return write(self) if self.model_fields_set else True
