"""`spec.verification`: the comparison of an engine's outputs with reference outputs."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from enginesmith_contract.verification import Decode
from enginesmith_operator.api.base import ApiModel, Finding, finding_error
from enginesmith_operator.api.model import ModelUri
from enginesmith_operator.api.pod_template import ResourceRequirements
from enginesmith_operator.api.scalars import MetricImage

__all__ = ["InputValuesSpec", "MetricContainerSpec", "OutputGateSpec", "VerificationMetric", "VerificationSpec"]

_Name = Annotated[str, Field(min_length=1, max_length=256)]
_Limit = Annotated[float, Field(gt=0, le=1000)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Word = Annotated[str, Field(max_length=8192)]
# The API server compares bounds as 64-bit integers where a value is one.
_Bound = Annotated[float, Field(ge=-1e15, le=1e15)]
_Pair = Annotated[tuple[float, ...], Field(min_length=2, max_length=2)]


class VerificationMetric(StrEnum):
    """Measure of the difference between an output a and its reference b. `maxRelative`: max|a-b| / max|b|."""

    MAX_RELATIVE = "maxRelative"


class InputValuesSpec(ApiModel):
    """Values that fill one input for the reference run. Exactly one field must be set.

    Attributes:
        range: Smallest and largest value. Values are distributed uniformly between them; integers include both.
        constant: Value of every element.
        npz: URI of an .npz file with an array that has the input's name. Its shape must fit a profile.
    """

    range: _Pair | None = None
    constant: float | None = None
    npz: ModelUri | None = None

    @model_validator(mode="after")
    def _require_exactly_one_way(self) -> "InputValuesSpec":
        if sum(way is not None for way in (self.range, self.constant, self.npz)) != 1:
            raise finding_error(Finding("expected exactly one of range, constant and npz", "{range: [0, 1]}"))
        if self.range is not None and self.range[0] > self.range[1]:
            nearest = f"[{self.range[1]:g}, {self.range[0]:g}]"
            raise finding_error(Finding("the smaller value must come first", nearest, ("range",)))
        return self


class OutputGateSpec(ApiModel):
    """Limits of one output, which replace the limits of all outputs.

    Attributes:
        limit: Largest ratio that passes. An output of integers or ids that has `limit` and no `mismatches` is compared
            by ratio instead of equality.
        mismatches: Largest share of integers, ids and booleans that may differ from the references.
        agreement: Smallest share of decoded answers that must be the FP32 model's, on held-out samples.
        decode: Answer that a client takes from the output: `argmax` (the class with the largest value), `threshold`
            (whether a value is above it), `ids` (the value itself), or `values` (a measure that may differ by `limit`).
            If omitted, it is inferred from the reference outputs, and the result shows why.
        axis: Class axis of decode `argmax`. If omitted, it is inferred.
        threshold: Threshold of decode `threshold`. If omitted, 0.5.
    """

    limit: _Limit | None = None
    mismatches: _Share | None = None
    agreement: _Share | None = None
    decode: Decode | None = None
    axis: Annotated[int, Field(ge=0, le=15)] | None = None
    threshold: Annotated[float, Field(ge=-1e6, le=1e6)] | None = None

    @model_validator(mode="after")
    def _require_a_field(self) -> "OutputGateSpec":
        if not self.model_fields_set:
            raise finding_error(Finding("expected limit, mismatches, agreement or decode", "{limit: 0.05}"))
        _require_decode(self.axis, "axis", self.decode, Decode.ARGMAX)
        _require_decode(self.threshold, "threshold", self.decode, Decode.THRESHOLD)
        return self


def _require_decode(value: float | None, field: str, decode: Decode | None, wanted: Decode) -> None:
    if value is not None and decode is not wanted:
        raise finding_error(Finding(f"{field} needs decode: {wanted}", f"{{decode: {wanted}, {field}: {value:g}}}"))


class MetricContainerSpec(ApiModel):
    """Container that judges each engine by its answers and the FP32 model's. Only a cluster runs it.

    It finds the samples in `/metric/data/index.json`, and writes `{"value": 0.93, "passed": true, "message": "..."}` to
    `/metric/result/result.json`. An engine is refused if the value is out of bounds, if `passed` is false, or if the
    container fails.

    Attributes:
        image: Image of the container, pinned by digest. It must run as any user, with a read-only root filesystem.
        command: Entrypoint of the container. If omitted, that of the image.
        args: Arguments of the entrypoint.
        at_least: Smallest value that passes.
        at_most: Largest value that passes.
        resources: CPU, memory and local storage of the container.
    """

    image: MetricImage
    command: Annotated[tuple[_Word, ...], Field(max_length=64)] = ()
    args: Annotated[tuple[_Word, ...], Field(max_length=256)] = ()
    at_least: _Bound | None = None
    at_most: _Bound | None = None
    resources: ResourceRequirements = ResourceRequirements()

    @model_validator(mode="after")
    def _require_a_range(self) -> "MetricContainerSpec":
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise finding_error(Finding("no value passes: atLeast is larger than atMost", hint="swap the two"))
        return self


class VerificationSpec(ApiModel):
    """Comparison of each engine's outputs with reference outputs. An engine beyond the limit is not served.

    Attributes:
        metric: Measure of the difference. `maxRelative` is max|a-b| / max|b| over one output, or over one slice of it
            if slices have different ranges, where b is the reference.
        limit: Largest ratio that passes. If omitted, it is larger for outputs that amplify rounding errors, and for the
            others it depends on the precision: 0.001 for fp32, 0.01 for tf32 and fp16, 0.08 for bf16, 0.1 for int8,
            0.25 for fp8.
        mismatches: Largest share of integers, ids and booleans that may differ from the references. With 0.01, one of
            100 may differ.
        agreement: Smallest share of decoded answers that must be the FP32 model's, on the held-out samples of the
            calibration data. If there are samples, it decides for fp16, bf16, int8 and fp8. If omitted, 0.97, and 0.9
            for outputs that are measures.
        inputs: Values of inputs, by input name. Other inputs get uniform values in [0, 1], or integers that the model
            accepts.
        outputs: Limits of single outputs, by output name.
        metric_container: Container that decides on the held-out samples, or on the reference inputs if there are none.
            Of the limits of this section, only those that are set then decide as well.
    """

    metric: VerificationMetric = VerificationMetric.MAX_RELATIVE
    limit: _Limit | None = None
    mismatches: _Share = 0.0
    agreement: _Share | None = None
    inputs: Annotated[Mapping[_Name, InputValuesSpec], Field(max_length=64)] = {}
    outputs: Annotated[Mapping[_Name, OutputGateSpec], Field(max_length=64)] = {}
    metric_container: MetricContainerSpec | None = None
