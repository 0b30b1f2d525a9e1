"""Shape profiles: which input shapes an engine takes, and which one it is tuned for."""

from collections.abc import Mapping

from enginesmith_contract.record import Record

__all__ = ["Profile", "ShapeRange"]


class ShapeRange(Record):
    """The shapes of one input: every dimension between `min` and `max`, tuned for `opt` (TensorRT's terms)."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def contains(self, shape: tuple[int, ...]) -> bool:
        """Whether `shape` has the range's rank and every dimension lies within it."""
        return len(shape) == len(self.min) and all(
            low <= value <= high for low, value, high in zip(self.min, shape, self.max, strict=True)
        )


class Profile(Record):
    """One range for each input. A profile with no inputs is the static model's own shapes."""

    name: str = "default"
    inputs: Mapping[str, ShapeRange] = {}
