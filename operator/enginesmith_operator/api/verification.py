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
    """`maxRelative`: max|a-b| / max|b| over one output or over slices of it with one range, b the reference."""

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
    """Limits of one output, in place of those of all outputs.

    Attributes:
        limit: the largest ratio that passes. An output of integers or ids that has a limit and no `mismatches` is
            judged by ratio, and not by equality.
        mismatches: the largest share of integers, ids and booleans that may differ from the model's.
    """

    limit: _Limit | None = None
    mismatches: _Share | None = None

    @model_validator(mode="after")
    def _say_something(self) -> "OutputGateSpec":
        if self.limit is None and self.mismatches is None:
            raise finding_error(Finding("expected limit, mismatches or both", "{limit: 0.05}"))
        return self


class VerificationSpec(ApiModel):
    """Comparison of each engine's outputs with reference outputs. An engine beyond the limit is not served.

    Attributes:
        metric: how a difference is measured.
        limit: the largest difference that passes (a ratio); omitted: by precision.
        mismatches: the largest share of integers, ids and booleans that may differ from the model's; 0.01 lets one of
            100 differ.
        inputs: how inputs are filled, by name; others are uniform in [0, 1], integers in what the model bears.
        outputs: limits of single outputs, by name.
    """

    metric: VerificationMetric = VerificationMetric.MAX_RELATIVE
    limit: _Limit | None = None
    mismatches: _Share = 0.0
    inputs: Annotated[Mapping[_Name, InputValuesSpec], Field(max_length=64)] = {}
    outputs: Annotated[Mapping[_Name, OutputGateSpec], Field(max_length=64)] = {}
