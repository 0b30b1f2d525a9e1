"""`spec.profiles`: the input shapes that an engine accepts, and the one it is optimized for."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Final

from pydantic import Field, model_validator

from enginesmith_contract.text import counted
from enginesmith_operator.api.base import ApiModel, Finding, raise_findings
from enginesmith_operator.api.scalars import Identifier

__all__ = ["MAX_PROFILES", "MAX_RANK", "ProfileSpec", "ShapeRangeSpec", "ValueRangeSpec"]

MAX_RANK: Final = 8
"""Maximum rank of an input: TensorRT's own limit (`Dims::MAX_DIMS`)."""
MAX_PROFILES: Final = 16
MAX_VALUES: Final = 16
"""Maximum number of values of one input that holds sizes: two paddings for each of eight dimensions."""

_Dimension = Annotated[int, Field(ge=0, le=(1 << 31) - 1)]
_Shape = Annotated[tuple[_Dimension, ...], Field(max_length=MAX_RANK)]
_Value = Annotated[int, Field(ge=-(1 << 31), le=(1 << 31) - 1)]
_Values = Annotated[tuple[_Value, ...], Field(max_length=MAX_VALUES)]
_Numbers = tuple[int, ...]
_InputName = Annotated[str, Field(min_length=1, max_length=256)]


class ValueRangeSpec(ApiModel):
    """Value range of an integer input that holds sizes. Every element must satisfy min <= opt <= max.

    Attributes:
        min: Smallest value of each element, in row-major order; one element for a scalar.
        opt: Value of each element for which the engine is optimized.
        max: Largest value of each element, which determines how much device memory the outputs need.
    """

    min: _Values
    opt: _Values
    max: _Values

    @model_validator(mode="after")
    def _require_ordered(self) -> "ValueRangeSpec":
        raise_findings(_length_findings(self.min, self.opt, self.max, "all three must have one value per element"))
        raise_findings(_disorder(self.min, self.opt, self.max))
        return self


class ShapeRangeSpec(ApiModel):
    """Shape range of one input. Every dimension must satisfy min <= opt <= max. An empty list is a scalar.

    Attributes:
        min: Smallest size of each dimension.
        opt: Size of each dimension for which the engine is optimized.
        max: Largest size of each dimension, which determines how much device memory the engine needs.
        values: Value range of an integer input that the model uses as a shape or a size (the K of TopK, the shape of
            Reshape). TensorRT requires it. Requests with values outside the range are refused on every backend.
    """

    min: _Shape
    opt: _Shape
    max: _Shape
    values: ValueRangeSpec | None = None

    @model_validator(mode="after")
    def _require_ordered(self) -> "ShapeRangeSpec":
        raise_findings(self._findings())
        return self

    def _findings(self) -> Iterator[Finding]:
        yield from _length_findings(self.min, self.opt, self.max, "all three must have the input's rank")
        yield from _disorder(self.min, self.opt, self.max)


class ProfileSpec(ApiModel):
    """Optimization profile: one shape range for each dynamic input.

    Attributes:
        name: Unique name of the profile.
        inputs: Shape range of each input, by its name in the ONNX graph.
    """

    name: Identifier = "default"
    inputs: Annotated[Mapping[_InputName, ShapeRangeSpec], Field(min_length=1, max_length=64)]


def _length_findings(low: _Numbers, best: _Numbers, high: _Numbers, wanted: str) -> Iterator[Finding]:
    rank = len(best)
    for point, numbers in (("min", low), ("max", high)):
        if len(numbers) != rank:
            nearest = list((numbers + best[len(numbers) :])[:rank])
            yield Finding(f"{counted(len(numbers), 'dimension')}, but opt has {rank}: {wanted}", str(nearest), (point,))


def _disorder(low: _Numbers, best: _Numbers, high: _Numbers) -> Iterator[Finding]:
    if not len(low) == len(best) == len(high):
        return
    for index, (least, tuned, most) in enumerate(zip(low, best, high, strict=True)):
        if least > most:
            yield Finding(f"min {least} is larger than max {most}", str(most), ("min", index))
        elif tuned < least:
            yield Finding(f"opt {tuned} is smaller than min {least}", str(least), ("opt", index))
        elif tuned > most:
            yield Finding(f"opt {tuned} is larger than max {most}", str(most), ("opt", index))
