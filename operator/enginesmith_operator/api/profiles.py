"""`spec.profiles`: which input shapes an engine takes, and which one it is tuned for."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Final

from pydantic import Field, model_validator

from enginesmith_operator.api.base import ApiModel, Finding, raise_findings
from enginesmith_operator.api.scalars import Identifier

__all__ = ["MAX_PROFILES", "MAX_RANK", "ProfileSpec", "ShapeRangeSpec", "ValueRangeSpec"]

MAX_RANK: Final = 8
"""TensorRT's own limit (`Dims::MAX_DIMS`)."""
MAX_PROFILES: Final = 16
MAX_VALUES: Final = 16
"""Of one input that holds sizes: the paddings of eight dimensions."""

_Dimension = Annotated[int, Field(ge=0, le=(1 << 31) - 1)]
_Shape = Annotated[tuple[_Dimension, ...], Field(max_length=MAX_RANK)]
_Value = Annotated[int, Field(ge=-(1 << 31), le=(1 << 31) - 1)]
_Values = Annotated[tuple[_Value, ...], Field(max_length=MAX_VALUES)]
_Numbers = tuple[int, ...]
_InputName = Annotated[str, Field(min_length=1, max_length=256)]


class ValueRangeSpec(ApiModel):
    """Values of an integer input that holds sizes; every element obeys min <= opt <= max.

    Attributes:
        min: smallest value of each element, in row-major order; one element for a scalar.
        opt: values that the engine is tuned for.
        max: largest value of each element; it decides how much device memory the outputs take.
    """

    min: _Values
    opt: _Values
    max: _Values

    @model_validator(mode="after")
    def _be_ordered(self) -> "ValueRangeSpec":
        raise_findings(_length_findings(self.min, self.opt, self.max, "all three must have one value for each element"))
        raise_findings(_disorder(self.min, self.opt, self.max))
        return self


class ShapeRangeSpec(ApiModel):
    """The shapes of one input; every dimension obeys min <= opt <= max. An empty list is a scalar.

    Attributes:
        min: the smallest value of each dimension.
        opt: the shape that the engine is tuned for.
        max: the largest value of each dimension; it decides how much device memory the engine takes.
        values: range of the values, for an integer input that the model uses as a shape or a size (the K of TopK, the
            shape of Reshape). TensorRT needs it. Requests with values outside it are refused, on every backend.
    """

    min: _Shape
    opt: _Shape
    max: _Shape
    values: ValueRangeSpec | None = None

    @model_validator(mode="after")
    def _be_ordered(self) -> "ShapeRangeSpec":
        raise_findings(self._findings())
        return self

    def _findings(self) -> Iterator[Finding]:
        yield from _length_findings(self.min, self.opt, self.max, "all three must have the input's rank")
        yield from _disorder(self.min, self.opt, self.max)


class ProfileSpec(ApiModel):
    """One range of shapes for every dynamic input.

    Attributes:
        name: of the profile; unique.
        inputs: the range of each input, by the input's name in the ONNX graph.
    """

    name: Identifier = "default"
    inputs: Annotated[Mapping[_InputName, ShapeRangeSpec], Field(min_length=1, max_length=64)]


def _length_findings(low: _Numbers, best: _Numbers, high: _Numbers, wanted: str) -> Iterator[Finding]:
    rank = len(best)
    for point, numbers in (("min", low), ("max", high)):
        if len(numbers) != rank:
            nearest = list((numbers + best[len(numbers) :])[:rank])
            yield Finding(f"{_counted(len(numbers))}, but opt has {rank}: {wanted}", str(nearest), (point,))


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


def _counted(dimensions: int) -> str:
    return f"{dimensions} dimension{'' if dimensions == 1 else 's'}"
