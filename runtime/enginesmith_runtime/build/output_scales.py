"""What the references say of one output: where its values have scales of their own, and which of them are no measures.

One ratio for a whole output lets a box coordinate of 640 hide a score of 0.5 that should be 0.8. So the slices of an
axis are put into groups by their largest values over all references, and each group is held to its own scale.

A group begins at a slice whose largest value is 8 times below that of the slice next to it in size. Classes and pixels
fall off evenly and stay in one group; coordinates and scores do not. Slices inside [0, 1] count as one: they may hold
probabilities, and the error of a sigmoid's 0.001 is that of the logit behind it. Slices of integers (class ids) have
each their own scale.

Three things make no group. Slices that stay below 2^-10, or below 2^-24 of the largest value, are rounding noise of
their neighbours. Slices that add up to 1 are one distribution. Values of 8192 and more that are 256 times above every
other value are masks (-1e9, float32's lowest), not measures.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["SMALLEST_SCALE", "OutputScales", "learn_scales"]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Reals = npt.NDArray[np.floating[Any]]

SMALLEST_SCALE: Final = 2.0**-10
_SMALLEST_SHARE: Final = 2.0**-24  # of the largest value: the rounding of FP32 there
_SMALLEST_PROBABILITY: Final = 2.0**-5  # the scale of a group of its own inside [0, 1] is this at least
_GROUPS_APART: Final = 8.0
_MOST_SLICES: Final = 1024
_LEAST_VALUES: Final = 3  # of a slice, zeros apart and over all references: fewer say nothing of its range
_MASKS_FROM: Final = 2.0**13
_MASKS_APART_BITS: Final = 8
_SUM_TOLERANCE: Final = 1e-2
_LEAST_INDEX: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class OutputScales:
    """How the values of one output are judged.

    Attributes:
        axis: whose slices have a scale each; None: the output has one.
        scales: one for each slice, or one; never below `SMALLEST_SCALE`.
        integral: whether all references of a slice are integers and reach 2: ids and counts.
        peak: the largest absolute value of a measure; 0 where there is none.
        masks_from: absolute value from which a value is a mask; infinity where there are none.
        silent: slices that are too near to zero to be verified, or hold too few values; empty where `axis` is None.
    """

    axis: int | None
    scales: Floats
    integral: Flags
    peak: float
    masks_from: float
    silent: tuple[int, ...] = ()

    def spread(self, values: npt.NDArray[np.generic], rank: int) -> npt.NDArray[np.generic]:
        """Return one value for each slice in a shape that broadcasts against the output."""
        if self.axis is None:
            return values.reshape((1,) * rank)
        return values.reshape(tuple(-1 if axis == self.axis else 1 for axis in range(rank)))


@dataclass(frozen=True, kw_only=True)
class _Slices:
    """What the references hold along one axis, or altogether: one value for each slice; `counts` leaves zeros out."""

    peaks: Floats
    lows: Floats
    highs: Floats
    counts: Floats
    integral: Flags


def learn_scales(references: Sequence[Reals]) -> OutputScales:
    """Return how an output is judged whose answers in all reference runs are given, of one rank."""
    masks_from = _find_masks(references)
    whole = _describe(references, None, masks_from)
    peak = float(whole.peaks[0])
    best = OutputScales(
        axis=None,
        scales=np.maximum(whole.peaks, SMALLEST_SCALE),
        integral=_ids(whole),
        peak=peak,
        masks_from=masks_from,
    )
    widest = 1.0
    for axis in _channel_axes(references):
        slices = _describe(references, axis, masks_from)
        scales = _group(slices, peak)
        ratio = float(scales.max() / scales.min())
        integral = _ids(slices)
        silent = _find_silent(slices, scales, peak)
        mixed = bool(integral.any() and not integral.all())
        if ratio > widest or (ratio == widest and best.axis is None and (mixed or silent)):
            widest = ratio
            best = OutputScales(
                axis=axis, scales=scales, integral=integral, peak=peak, masks_from=masks_from, silent=silent
            )
    return best


def _find_masks(references: Sequence[Reals]) -> float:
    """Return the power of two from which values are masks: above every gap of 256 times at 8192 or more."""
    exponents: set[int] = set()
    for values in references:
        used = np.abs(values[np.isfinite(values) & (values != 0)])
        exponents |= {int(exponent) for exponent in np.unique(np.frexp(used)[1])}
    ordered = sorted(exponents)
    for below, above in pairwise(ordered):
        # frexp's exponent e stands for values in [2^(e-1), 2^e).
        if above - below > _MASKS_APART_BITS and 2.0 ** (above - 1) >= _MASKS_FROM:
            return 2.0 ** (above - 1)
    return np.inf


def _channel_axes(references: Sequence[Reals]) -> list[int]:
    """Return the axes whose slices may be channels, the last first."""
    ranks = {values.ndim for values in references}
    if len(ranks) != 1:
        return []
    axes = []
    for axis in reversed(range(ranks.pop())):
        sizes = {values.shape[axis] for values in references}
        if len(sizes) != 1 or not 2 <= sizes.pop() <= _MOST_SLICES:  # noqa: PLR2004 - one slice is no slice
            continue
        if not _is_distribution(references, axis):
            axes.append(axis)
    return axes


def _is_distribution(references: Sequence[Reals], axis: int) -> bool:
    return all(
        bool((values >= 0).all() and (np.abs(values.sum(axis=axis) - 1.0) <= _SUM_TOLERANCE).all())
        for values in references
    )


def _describe(references: Sequence[Reals], axis: int | None, masks_from: float) -> _Slices:
    parts = [_describe_one(values, axis, masks_from) for values in references]
    return _Slices(
        peaks=np.max([part.peaks for part in parts], axis=0),
        lows=np.min([part.lows for part in parts], axis=0),
        highs=np.max([part.highs for part in parts], axis=0),
        counts=np.sum([part.counts for part in parts], axis=0),
        integral=np.all([part.integral for part in parts], axis=0),
    )


def _describe_one(values: Reals, axis: int | None, masks_from: float) -> _Slices:
    measures = np.where(np.isfinite(values) & (np.abs(values) < masks_from), values, 0.0)
    flat = measures.reshape(1, -1) if axis is None else np.moveaxis(measures, axis, 0).reshape(values.shape[axis], -1)
    lows = flat.min(axis=1, initial=0.0).astype(np.float64)
    highs = flat.max(axis=1, initial=0.0).astype(np.float64)
    integral = np.asarray((flat == np.rint(flat)).all(axis=1))
    counts = np.asarray((flat != 0).sum(axis=1), np.float64)
    return _Slices(peaks=np.maximum(highs, -lows), lows=lows, highs=highs, counts=counts, integral=integral)


def _find_silent(slices: _Slices, scales: Floats, peak: float) -> tuple[int, ...]:
    """Return the slices in which the reference is hardly above zero, or too few values are, for the scale they have."""
    few = (slices.counts < _LEAST_VALUES) & (scales >= slices.peaks * _GROUPS_APART)
    return tuple(int(index) for index in np.flatnonzero(few | (slices.peaks < _silence(peak))))


def _silence(peak: float) -> float:
    return max(SMALLEST_SCALE, peak * _SMALLEST_SHARE)


def _group(slices: _Slices, peak: float) -> Floats:
    """Return the largest value of each slice's group, with the floor of a group of its own."""
    ids = _ids(slices)
    scales = np.where(ids, slices.peaks, SMALLEST_SCALE)
    unit = ~ids & (slices.lows >= 0) & (slices.highs <= 1)
    peaks = np.where(unit, slices.peaks[unit].max(initial=0.0), slices.peaks)
    order = [int(index) for index in np.argsort(-peaks, kind="stable") if not ids[index]]
    groups: list[list[int]] = []
    before = math.inf
    for index in order:
        own = float(peaks[index])
        begins = own >= _silence(peak) and slices.counts[index] >= _LEAST_VALUES and before >= own * _GROUPS_APART
        if begins or not groups:
            groups.append([])
        groups[-1].append(index)
        before = own
    for number, group in enumerate(groups):
        floor = _SMALLEST_PROBABILITY if number > 0 and unit[group].all() else SMALLEST_SCALE
        scales[group] = max(float(slices.peaks[group].max()), floor)
    return scales


def _ids(slices: _Slices) -> Flags:
    return np.asarray(slices.integral & (slices.peaks >= _LEAST_INDEX) & (slices.counts >= _LEAST_VALUES))
