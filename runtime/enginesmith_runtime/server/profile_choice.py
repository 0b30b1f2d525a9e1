"""Chooses the shape profile of the engine for a request.

The chosen profile contains the shapes of all inputs, and its `opt` is the nearest: it has the smallest sum of the
differences over all dimensions, as in Triton's TensorRT backend.
"""

from collections.abc import Mapping, Sequence

from enginesmith_contract.profiles import POINTS, Profile, ShapeRange
from enginesmith_contract.tensors import TensorSpec
from enginesmith_runtime.server.errors import Code, ProtocolError

__all__ = ["ProfileTable"]

Shape = tuple[int, ...]


class ProfileTable:
    """The profiles of one engine, with a range for every input.

    Attributes:
        value_inputs: Inputs that hold sizes. Their values and the shapes together determine the profile.
    """

    def __init__(self, inputs: Sequence[TensorSpec], profiles: Sequence[Profile]) -> None:
        self.profiles = tuple(profiles) or (Profile(),)
        self._inputs = tuple(inputs)
        self._ranges = tuple({spec.name: _range(spec, profile) for spec in inputs} for profile in self.profiles)
        self._equal_dimensions = self._find_equal_dimensions()
        self.value_inputs = tuple(
            spec.name for spec in self._inputs if any(ranges[spec.name].values is not None for ranges in self._ranges)
        )

    def ranges(self, name: str) -> tuple[ShapeRange, ...]:
        """Return the ranges of the input `name`, one for each profile."""
        return tuple(ranges[name] for ranges in self._ranges)

    def choose(self, shapes: Mapping[str, Shape]) -> int:
        """Return the index of the profile for these input shapes, which have the right ranks.

        Raises:
            ProtocolError: INVALID_ARGUMENT with the tensor, its shape and the range of the nearest profile.
        """
        for name, shape in shapes.items():
            if not any(ranges[name].contains(shape) for ranges in self._ranges):
                raise self._outside({name: shape})  # the other inputs may be valid
        self._check_symbols(shapes)
        fitting = self._fitting(shapes)
        match fitting:
            case [only]:
                return only
            case []:
                raise self._outside(shapes)
            case _:
                return min(fitting, key=lambda index: self._distance_to_opt(index, shapes))

    def choose_by_values(self, shapes: Mapping[str, Shape], values: Mapping[str, Sequence[int]]) -> int:
        """Return the index of the profile for these input shapes and the elements of `value_inputs`.

        Args:
            shapes: Shapes for which `choose` found a profile.
            values: Elements in row-major order, by the names of `value_inputs`.

        Raises:
            ProtocolError: INVALID_ARGUMENT with the tensor, element, value and the range of the nearest profile.
        """
        near = sorted(self._fitting(shapes), key=lambda index: self._distance_to_opt(index, shapes))
        outside = {index: self._first_outside(index, values) for index in near}
        found = next((index for index, place in outside.items() if place is None), None)
        if found is not None:
            return found
        nearest = min(near, key=lambda index: self._excess_of_values(index, values))
        name, element = outside[nearest] or ("", 0)
        accepted = self._ranges[nearest][name].values
        assert accepted is not None  # noqa: S101 - an input without a range has no element outside
        which = "the profile" if len(near) == 1 else "every profile; the nearest is"
        raise ProtocolError(
            Code.INVALID_ARGUMENT,
            f"input '{name}': element {element} is {values[name][element]}, outside the values of {which} "
            f"'{self.profiles[nearest].name}', which takes {_interval(accepted.min[element], accepted.max[element])}",
        )

    def most_rows(self, shapes: Mapping[str, Shape]) -> int:
        """Return the largest first dimension up to which every batch of these shapes has a profile.

        Args:
            shapes: Shapes for which `choose` found a profile, all with the same first dimension.
        """
        (most,) = {shape[0] for shape in shapes.values()}
        while True:
            further = {name: (most + 1, *shape[1:]) for name, shape in shapes.items()}
            fitting = self._fitting(further)
            if not fitting:
                return most
            most = max(min(self._ranges[index][name].max[0] for name in shapes) for index in fitting)

    def _fitting(self, shapes: Mapping[str, Shape]) -> list[int]:
        return [
            index
            for index, ranges in enumerate(self._ranges)
            if all(ranges[name].contains(shape) for name, shape in shapes.items())
        ]

    def _first_outside(self, index: int, values: Mapping[str, Sequence[int]]) -> tuple[str, int] | None:
        """Return the first input and element outside the profile, or None if all are inside."""
        for name, numbers in values.items():
            accepted = self._ranges[index][name].values
            element = None if accepted is None else accepted.first_outside(numbers)
            if element is not None:
                return name, element
        return None

    def _excess_of_values(self, index: int, values: Mapping[str, Sequence[int]]) -> int:
        ranges = ((self._ranges[index][name].values, numbers) for name, numbers in values.items())
        return sum(
            max(low - value, 0) + max(value - high, 0)
            for accepted, numbers in ranges
            if accepted is not None
            for low, value, high in zip(accepted.min, numbers, accepted.max, strict=True)
        )

    def _distance_to_opt(self, index: int, shapes: Mapping[str, Shape]) -> int:
        ranges = self._ranges[index]
        return sum(
            abs(opt - value)
            for name, shape in shapes.items()
            for opt, value in zip(ranges[name].opt, shape, strict=True)
        )

    def _outside(self, shapes: Mapping[str, Shape]) -> ProtocolError:
        index = min(
            range(len(self._ranges)),
            key=lambda index: sum(_excess(self._ranges[index][name], shape) for name, shape in shapes.items()),
        )
        name = next(name for name, shape in shapes.items() if not self._ranges[index][name].contains(shape))
        accepted, shape = self._ranges[index][name], shapes[name]
        dimension = next(
            axis for axis, value in enumerate(shape) if not accepted.min[axis] <= value <= accepted.max[axis]
        )
        which = "the profile" if len(self.profiles) == 1 else "every profile; the nearest is"
        return ProtocolError(
            Code.INVALID_ARGUMENT,
            f"input '{name}': shape {list(shape)} lies outside {which} '{self.profiles[index].name}', which takes "
            f"{list(accepted.min)} to {list(accepted.max)}: dimension {dimension} is {shape[dimension]}, not "
            f"{_interval(accepted.min[dimension], accepted.max[dimension])}",
        )

    def _check_symbols(self, shapes: Mapping[str, Shape]) -> None:
        for symbol, places in self._equal_dimensions.items():
            first, *others = ((name, shapes[name][axis]) for name, axis in places)
            for name, value in others:
                if value != first[1]:
                    raise ProtocolError(
                        Code.INVALID_ARGUMENT,
                        f"input '{name}': the model calls one dimension '{symbol}' here and in '{first[0]}', so they "
                        f"must be equal; the request has {value} and {first[1]}",
                    )

    def _find_equal_dimensions(self) -> dict[str, tuple[tuple[str, int], ...]]:
        """Return the positions of each symbol that names several dimensions which must be equal.

        Some exporters use one name for all open dimensions ("?"), so a symbol counts only if the profiles agree with
        it.
        """
        places: dict[str, list[tuple[str, int]]] = {}
        for spec in self._inputs:
            for axis, symbol in enumerate(spec.symbols):
                if symbol is not None:
                    places.setdefault(symbol, []).append((spec.name, axis))
        return {
            symbol: tuple(where)
            for symbol, where in places.items()
            if len(where) > 1 and all(_agree(ranges, where) for ranges in self._ranges)
        }


def _agree(ranges: Mapping[str, ShapeRange], places: Sequence[tuple[str, int]]) -> bool:
    return all(
        len({point[axis] for point, axis in ((ranges[name].at(which), axis) for name, axis in places)}) == 1
        for which in POINTS
    )


def _range(spec: TensorSpec, profile: Profile) -> ShapeRange:
    given = profile.inputs.get(spec.name)
    return given or ShapeRange.fixed(spec.shape)


def _excess(accepted: ShapeRange, shape: Shape) -> int:
    return sum(
        max(low - value, 0) + max(value - high, 0)
        for low, value, high in zip(accepted.min, shape, accepted.max, strict=True)
    )


def _interval(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"
