"""Shape profiles: which input shapes an engine takes, and which one it is tuned for."""

from collections.abc import Mapping, Sequence
from typing import Final, Self

from enginesmith_contract.record import Record

__all__ = ["POINTS", "Profile", "ShapeRange", "ValueRange"]

POINTS: Final = ("min", "opt", "max")
"""The points of a range, in ascending order."""


class _Range(Record):
    """Sizes or values at three points."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def at(self, point: str) -> tuple[int, ...]:
        """Return what the range has at one of `POINTS`."""
        return {"min": self.min, "opt": self.opt, "max": self.max}[point]


class ValueRange(_Range):
    """The values of an integer input that holds sizes: every element between `min` and `max`, tuned for `opt`.

    Elements are in the input's row-major order; an input of rank 0 has one.
    """

    def first_outside(self, values: Sequence[int]) -> int | None:
        """Return the index of the first element outside the range; None where all are within. Lengths must agree."""
        places = enumerate(zip(self.min, values, self.max, strict=True))
        return next((index for index, (low, value, high) in places if not low <= value <= high), None)


class ShapeRange(_Range):
    """The shapes of one input: every dimension between `min` and `max`, tuned for `opt` (TensorRT's terms).

    Attributes:
        values: of an integer input that TensorRT reads as a shape or a size; None: any.
    """

    values: ValueRange | None = None

    @classmethod
    def fixed(cls, shape: tuple[int, ...], values: ValueRange | None = None) -> Self:
        """Return the range of one shape."""
        return cls(min=shape, opt=shape, max=shape, values=values)

    def contains(self, shape: tuple[int, ...]) -> bool:
        """Whether `shape` has the range's rank and every dimension lies within it."""
        return len(shape) == len(self.min) and all(
            low <= value <= high for low, value, high in zip(self.min, shape, self.max, strict=True)
        )


class Profile(Record):
    """One range for each input. A profile with no inputs is the static model's own shapes."""

    name: str = "default"
    inputs: Mapping[str, ShapeRange] = {}
