"""`spec.profiles`: which input shapes an engine takes, and which one it is tuned for."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Final

from pydantic import Field, model_validator

from enginesmith_operator.api.base import ApiModel, Finding, raise_findings
from enginesmith_operator.api.scalars import Identifier

__all__ = ["MAX_PROFILES", "MAX_RANK", "ProfileSpec", "ShapeRangeSpec"]

MAX_RANK: Final = 8
"""TensorRT's own limit (`Dims::MAX_DIMS`)."""
MAX_PROFILES: Final = 16

_Dimension = Annotated[int, Field(ge=0, le=(1 << 31) - 1)]
_Shape = Annotated[tuple[_Dimension, ...], Field(max_length=MAX_RANK)]
_InputName = Annotated[str, Field(min_length=1, max_length=256)]


class ShapeRangeSpec(ApiModel):
    """The shapes of one input; every dimension obeys min <= opt <= max. An empty list is a scalar.

    Attributes:
        min: the smallest value of each dimension.
        opt: the shape that the engine is tuned for.
        max: the largest value of each dimension; it decides how much device memory the engine takes.
    """

    min: _Shape
    opt: _Shape
    max: _Shape

    @model_validator(mode="after")
    def _be_ordered(self) -> "ShapeRangeSpec":
        raise_findings(self._findings())
        return self

    def _findings(self) -> Iterator[Finding]:
        rank = len(self.opt)
        for point, shape in (("min", self.min), ("max", self.max)):
            if len(shape) != rank:
                nearest = list((shape + self.opt[len(shape) :])[:rank])
                reason = f"{_counted(len(shape))}, but opt has {rank}: all three must have the input's rank"
                yield Finding(reason, str(nearest), (point,))
        if len(self.min) == len(self.max) == rank:
            yield from self._disorder()

    def _disorder(self) -> Iterator[Finding]:
        for index, (low, best, high) in enumerate(zip(self.min, self.opt, self.max, strict=True)):
            if low > high:
                yield Finding(f"min {low} is larger than max {high}", str(high), ("min", index))
            elif best < low:
                yield Finding(f"opt {best} is smaller than min {low}", str(low), ("opt", index))
            elif best > high:
                yield Finding(f"opt {best} is larger than max {high}", str(high), ("opt", index))


class ProfileSpec(ApiModel):
    """One range of shapes for every dynamic input.

    Attributes:
        name: of the profile; unique.
        inputs: the range of each input, by the input's name in the ONNX graph.
    """

    name: Identifier = "default"
    inputs: Annotated[Mapping[_InputName, ShapeRangeSpec], Field(min_length=1, max_length=64)]


def _counted(dimensions: int) -> str:
    return f"{dimensions} dimension{'' if dimensions == 1 else 's'}"
