"""Facts about a value for the search for mixed rows: the axis of its rows, and its shape as products of names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

__all__ = ["MINUS_ONE", "ONE", "ROWS", "Dim", "RowValue", "broadcast", "product", "reshaped"]

ROWS: Final = "enginesmith_rows"


class Dim(NamedTuple):
    """A size: a number times the product of sorted names."""

    number: int
    names: tuple[str, ...] = ()

    def times(self, other: "Dim") -> "Dim":
        """Return the product."""
        return Dim(self.number * other.number, tuple(sorted((*self.names, *other.names))))

    def over(self, other: "Dim") -> "Dim | None":
        """Return the quotient, or None if it is not known to be an integer."""
        names = list(self.names)
        for name in other.names:
            if name not in names:
                return None
            names.remove(name)
        if other.number == 0 or self.number % other.number:
            return None
        return Dim(self.number // other.number, tuple(names))


ONE: Final = Dim(1)
MINUS_ONE: Final = Dim(-1)


@dataclass(frozen=True, kw_only=True)
class RowValue:
    """A value of a graph.

    Attributes:
        dims: Shape of the value; None if its rank is not known.
        rows: Axis of the rows, each as one block; None if the value does not depend on contents of inputs.
        numbers: Elements of integers that follow from shapes; None for an unknown element.
        is_lost: Whether the value depends on inputs but the position of the rows is not known.
        counts_rows: Whether its elements may depend on the number of rows.
    """

    dims: tuple[Dim, ...] | None
    rows: int | None = None
    numbers: tuple[Dim | None, ...] | None = None
    is_lost: bool = False
    counts_rows: bool = False

    @property
    def from_end(self) -> int:
        """Return the position of the rows' axis from the end; 1 is the last axis."""
        return len(self.dims or ()) - (self.rows or 0)

    @classmethod
    def lost(cls) -> Self:
        """Return a value without known facts."""
        return cls(dims=None, is_lost=True)


def product(dims: Iterable[Dim]) -> Dim:
    """Return the product of sizes."""
    result = ONE
    for dim in dims:
        result = result.times(dim)
    return result


def broadcast(shapes: Sequence[tuple[Dim, ...]], from_end: int, rows: Dim) -> list[Dim | None]:
    """Return the shape of an elementwise result with `rows` at an axis. Unknown sizes are None."""
    rank = max(len(shape) for shape in shapes)
    sizes: list[Dim | None] = []
    for axis in range(rank):
        place = rank - axis
        here = {shape[-place] for shape in shapes if len(shape) >= place} - {ONE}
        sizes.append(rows if place == from_end else here.pop() if len(here) == 1 else None if here else ONE)
    return sizes


def reshaped(
    value: RowValue, target: Sequence[Dim | None], *, is_zero_kept: bool
) -> tuple[list[Dim | None], int] | None:
    """Return the shape and the axis of the rows after a Reshape, or None if rows may be divided.

    Rows are not divided if the number of blocks before their axis is unchanged and their axis is a multiple of their
    number.
    """
    dims = value.dims or ()
    sizes = list(target)
    if not is_zero_kept:
        sizes = [dims[axis] if size == Dim(0) and axis < len(dims) else size for axis, size in enumerate(sizes)]
    if MINUS_ONE in sizes:
        at = sizes.index(MINUS_ONE)
        others = [size for axis, size in enumerate(sizes) if axis != at]
        known = [size for size in others if size is not None]
        sizes[at] = product(dims).over(product(known)) if len(known) == len(others) else None
    before = product(dims[: value.rows])
    for axis, size in enumerate(sizes):
        ahead = [one for one in sizes[:axis] if one is not None]
        if len(ahead) < axis:
            return None
        if size is not None and ROWS in size.names and product(ahead) == before:
            return sizes, axis
    return None
