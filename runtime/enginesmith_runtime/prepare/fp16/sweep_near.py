"""Creates nearly equal values: in inputs of one shape, in rows of a batch, in steps of a second axis, in ids."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.prepare.jobs import Feed
from enginesmith_runtime.prepare.runs.inputs import FLOATS, Array, typed_values

__all__ = ["nearly_equal"]

_NEAR: Final = 1e-3
_LARGEST: Final[Mapping[DType, float]] = {DType.INT8: 127, DType.UINT8: 255}
_LARGEST_COUNT: Final = 5000
_MOST_SHARED_AXES: Final = 2


def nearly_equal(
    feed: Feed, ordinary: Mapping[str, Array], names: tuple[str, ...], alike: Mapping[str, Array]
) -> dict[str, Array]:
    """Return inputs that differ by a thousandth of their range. Integers differ by 0 or 1. Ids have similar rows.

    Args:
        feed: Feed of the model.
        ordinary: Ordinary values by input, which give the shapes.
        names: Numeric inputs that the user has not described.
        alike: Pairs of ids by input.
    """
    random = np.random.default_rng(1)
    bases: dict[tuple[object, ...], npt.NDArray[np.float64]] = {}
    filled: dict[str, Array] = {}
    for number, spec in enumerate(feed.facts.inputs):
        shape = ordinary[spec.name].shape
        limits = _limits(spec, feed, names)
        if spec.name in alike and spec.name not in {*feed.values, *feed.given}:
            places, pairs = np.arange(int(np.prod(shape))), alike[spec.name]
            chosen = pairs[places % len(pairs), (number + places // len(pairs)) % 2]
            filled[spec.name] = typed_values(chosen.reshape(shape), spec.dtype)
        elif limits is not None:
            shared = tuple(1 if axis < min(len(shape) - 1, _MOST_SHARED_AXES) else n for axis, n in enumerate(shape))
            base = bases.setdefault((shared, *limits), np.asarray(random.uniform(*limits, shared)))
            steps = random.standard_normal(shape) * (limits[1] - limits[0]) * _NEAR
            noise = steps if spec.dtype in FLOATS else np.rint(random.random(shape))
            filled[spec.name] = typed_values(np.clip(base + noise, *limits), spec.dtype)
    return filled


def _limits(spec: TensorSpec, feed: Feed, names: tuple[str, ...]) -> tuple[float, float] | None:
    """Return the range of values for an input, or None if it does not change."""
    if spec.name in feed.values:
        known = spec.dtype not in {DType.BOOL, DType.BYTES} and spec.name not in feed.index_bounds
        return feed.values[spec.name].range if known else None
    if spec.name not in names:
        return None
    return (0.0, 1.0 if spec.dtype in FLOATS else _LARGEST.get(spec.dtype, _LARGEST_COUNT))
