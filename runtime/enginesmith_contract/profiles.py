"""Shape profiles: the input shapes that an engine accepts, and the shape that it is tuned for."""

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
        """Return the sizes or values at one of `POINTS`."""
        return {"min": self.min, "opt": self.opt, "max": self.max}[point]


class ValueRange(_Range):
    """Range of the values of an integer input that holds sizes. Every element is in [`min`, `max`].

    Elements are in the input's row-major order; an input of rank 0 has one element.
    """

    def first_outside(self, values: Sequence[int]) -> int | None:
        """Return the index of the first element outside the range, or None if all are inside. Lengths must be equal."""
        places = enumerate(zip(self.min, values, self.max, strict=True))
        return next((index for index, (low, value, high) in places if not low <= value <= high), None)


class ShapeRange(_Range):
    """Range of the shapes of one input. Every dimension is in [`min`, `max`]; the engine is tuned for `opt`.

    Attributes:
        values: Range of the values of an integer input that TensorRT reads as a shape or a size; None if any value is
            valid.
    """

    values: ValueRange | None = None

    @classmethod
    def fixed(cls, shape: tuple[int, ...], values: ValueRange | None = None) -> Self:
        """Return the range that contains only `shape`."""
        return cls(min=shape, opt=shape, max=shape, values=values)

    def contains(self, shape: tuple[int, ...]) -> bool:
        """Whether `shape` has the range's rank and every dimension lies within it."""
        return len(shape) == len(self.min) and all(
            low <= value <= high for low, value, high in zip(self.min, shape, self.max, strict=True)
        )


class Profile(Record):
    """One range for each input. A profile without inputs stands for the shapes of the static model."""

    name: str = "default"
    inputs: Mapping[str, ShapeRange] = {}
