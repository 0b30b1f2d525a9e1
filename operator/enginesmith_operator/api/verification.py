"""`spec.verification`: the comparison of an engine's outputs with reference outputs."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from enginesmith_operator.api.base import ApiModel, Finding, finding_error
from enginesmith_operator.api.model import ModelUri

__all__ = ["InputValuesSpec", "OutputGateSpec", "VerificationMetric", "VerificationSpec"]

_Name = Annotated[str, Field(min_length=1, max_length=256)]
_Limit = Annotated[float, Field(gt=0, le=1000)]
_Share = Annotated[float, Field(ge=0, le=1)]
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
    """

    limit: _Limit | None = None
    mismatches: _Share | None = None

    @model_validator(mode="after")
    def _require_a_limit(self) -> "OutputGateSpec":
        if self.limit is None and self.mismatches is None:
            raise finding_error(Finding("expected limit, mismatches or both", "{limit: 0.05}"))
        return self


class VerificationSpec(ApiModel):
    """Comparison of each engine's outputs with reference outputs. An engine beyond the limit is not served.

    Attributes:
        metric: Measure of the difference. `maxRelative` is max|a-b| / max|b| over one output, or over one slice of it
            if slices have different ranges, where b is the reference.
        limit: Largest ratio that passes. If omitted, it depends on the precision: 0.001 for fp32, 0.01 for tf32 and
            fp16, 0.08 for bf16, 0.1 for int8, 0.25 for fp8.
        mismatches: Largest share of integers, ids and booleans that may differ from the references. With 0.01, one of
            100 may differ.
        inputs: Values of inputs, by input name. Other inputs get uniform values in [0, 1], or integers that the model
            accepts.
        outputs: Limits of single outputs, by output name.
    """

    metric: VerificationMetric = VerificationMetric.MAX_RELATIVE
    limit: _Limit | None = None
    mismatches: _Share = 0.0
    inputs: Annotated[Mapping[_Name, InputValuesSpec], Field(max_length=64)] = {}
    outputs: Annotated[Mapping[_Name, OutputGateSpec], Field(max_length=64)] = {}
