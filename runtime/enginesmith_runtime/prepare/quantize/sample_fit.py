"""Checks that samples fit the model: shapes must fit a profile, and numbers the dtypes of the inputs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from enginesmith_contract.errors import SpecError
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec
from enginesmith_runtime.prepare.quantize.sample_arrays import ArraySource
from enginesmith_runtime.prepare.runs.inputs import FLOATS, Array, as_floats, typed_values

__all__ = ["Layout", "Shapes", "does_not_fit", "lay_out", "typed"]

Shapes = Mapping[str, tuple[int, ...]]
"""One shape for each input, by name."""
_ANY_SIZE = 1 << 31


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Division of the arrays of one file into samples.

    Attributes:
        pieces: Number of samples.
        rows: Rows of each sample along axis 0; None if the whole array is one sample.
        adds_axis: Inputs whose arrays lack the batch axis.
    """

    pieces: int = 1
    rows: int | None = None
    adds_axis: frozenset[str] = frozenset()

    def read(self, name: str, source: ArraySource) -> Array:
        """Return the next sample of an input's array."""
        array = source.read(self.rows)
        return array[np.newaxis] if name in self.adds_axis else array

    def skip(self, sources: Mapping[str, ArraySource]) -> None:
        """Skip the next sample."""
        if self.rows is not None:
            for source in sources.values():
                source.skip(self.rows)


def lay_out(
    shapes: Shapes, facts: ModelFacts, profiles: Sequence[Profile], *, batched: bool, where: str, is_image: bool
) -> Layout:
    """Return the division of arrays with these shapes into samples that fit a profile.

    Raises:
        enginesmith_contract.errors.SpecError: `CalibrationDataDoesNotFit`.
    """
    ranges = [{spec.name: _range(profile, spec) for spec in facts.inputs} for profile in profiles]
    whole = [Layout()] if any(_contains(each, shapes) for each in ranges) else []
    rows = [layout for each in ranges if (layout := _by_rows(shapes, each, batched=batched)) is not None]
    added = [layout for each in ranges if (layout := _with_axes(shapes, each)) is not None]
    for found in (*rows, *whole, *added) if batched else (*whole, *rows, *added):
        return found
    remedy = "set calibration.images.size, or add a profile" if is_image else "add a profile, or remove the sample"
    why = _outside(shapes, facts, ranges, profiles)
    raise does_not_fit("the sample fits no profile", where, why, remedy)


def typed(array: Array, spec: TensorSpec, profiles: Iterable[Profile], where: str) -> Array:
    """Return an array in the dtype of its input.

    Raises:
        enginesmith_contract.errors.SpecError: `CalibrationDataDoesNotFit`.
    """
    values = _cast(array, spec, where)
    if spec.dtype in FLOATS:
        floats = as_floats(values, spec.dtype) if _is_bits(spec) else values
        given = array if array.dtype.kind == "f" or not _is_bits(spec) else floats
        if np.isnan(floats).any():
            raise does_not_fit(f"input {spec.name} has NaN", where, "", "correct or remove the sample")
        if np.isinf(floats).sum() > np.isinf(given).sum():  # minus infinity is a mask; a tensor with it gets no range
            raise _too_large(array, spec, where)
    limits = [found.values for profile in profiles if (found := profile.inputs.get(spec.name)) and found.values]
    numbers = values.reshape(-1).tolist() if limits else []
    if limits and all(limit.first_outside(numbers) is not None for limit in limits):
        why = f"it is {numbers[:4]}"
        raise does_not_fit(f"input {spec.name} leaves the values of its profile", where, why, "remove the sample")
    return values


def does_not_fit(what: str, where: str, why: str, remedy: str) -> SpecError:
    """Return the error of a sample that does not fit the model."""
    return SpecError(what, where=where, why=why, remedy=remedy, reason="CalibrationDataDoesNotFit")


def _cast(array: Array, spec: TensorSpec, where: str) -> Array:
    if spec.dtype is DType.BYTES and array.dtype.kind in "US":
        texts = np.char.decode(array.astype(np.bytes_), "utf-8") if array.dtype.kind == "S" else array
        return texts.astype(object)
    if _is_bits(spec) and array.dtype.kind == "f":
        return typed_values(array, spec.dtype)
    if array.dtype.kind not in "biuf" or not np.can_cast(array.dtype, spec.dtype.numpy, casting="same_kind"):
        why = f"the array is {array.dtype}, the input {spec.dtype}"
        raise does_not_fit(f"input {spec.name} has another dtype", where, why, f"save it as {spec.dtype}")
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(array.astype(spec.dtype.numpy, copy=False)).reshape(array.shape)
    if array.dtype.kind in "iu" and spec.dtype not in FLOATS and not np.array_equal(values, array):
        raise _too_large(array, spec, where)
    return values


def _too_large(array: Array, spec: TensorSpec, where: str) -> SpecError:
    why = f"the array is {array.dtype}, the input {spec.dtype}"
    return does_not_fit(f"input {spec.name} has numbers that its dtype cannot hold", where, why, "correct the sample")


def _is_bits(spec: TensorSpec) -> bool:
    return spec.dtype is DType.BF16


def _range(profile: Profile, spec: TensorSpec) -> ShapeRange:
    """Return the profile's range of an input, or the fixed shape in the model."""
    low = tuple(max(size, 0) for size in spec.shape)
    high = tuple(size if size >= 0 else _ANY_SIZE for size in spec.shape)
    return profile.inputs.get(spec.name) or ShapeRange(min=low, opt=low, max=high)


def _contains(ranges: Mapping[str, ShapeRange], shapes: Shapes) -> bool:
    return all(ranges[name].contains(shape) for name, shape in shapes.items())


def _by_rows(shapes: Shapes, ranges: Mapping[str, ShapeRange], *, batched: bool) -> Layout | None:
    """Return the division into samples with the same number of rows, or None if there are not more rows."""
    counts = {shape[0] if shape else 0 for shape in shapes.values()}
    if len(counts) != 1 or not all(each.min for each in ranges.values()):
        return None
    count = counts.pop()
    rows = max(1, *(each.min[0] for each in ranges.values()))
    fixed = all(each.min[0] == each.max[0] for each in ranges.values())
    if not (batched or fixed):
        # The axis may be a time axis, so a sample has as many rows as the profile allows.
        rows = min(each.max[0] for each in ranges.values())
    if count <= rows:
        return None
    fits = _contains(ranges, {name: (rows, *shape[1:]) for name, shape in shapes.items()})
    return Layout(pieces=count // rows, rows=rows) if fits else None


def _with_axes(shapes: Shapes, ranges: Mapping[str, ShapeRange]) -> Layout | None:
    """Return one sample. A batch axis is added to arrays without it, because a raw tensor always has it."""
    lacking = frozenset(name for name, shape in shapes.items() if len(shape) < len(ranges[name].min))
    full = {name: (1, *shape) if name in lacking else shape for name, shape in shapes.items()}
    return Layout(adds_axis=lacking) if _contains(ranges, full) else None


def _outside(
    shapes: Shapes, facts: ModelFacts, ranges: Sequence[Mapping[str, ShapeRange]], profiles: Sequence[Profile]
) -> str:
    """Return the first input that fits no profile, and the ranges of the profiles."""
    names = [spec.name for spec in facts.inputs]
    wrong = next((name for name in names if not any(each[name].contains(shapes[name]) for each in ranges)), names[0])
    takes = "; ".join(
        f"profile {profile.name!r} takes {list(each[wrong].min)} to {list(each[wrong].max)}"
        for profile, each in zip(profiles, ranges, strict=True)
    )
    return f"{wrong} is {list(shapes[wrong])}, and {takes or 'there is none'}"
