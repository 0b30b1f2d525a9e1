"""Learns from the references of one output which slices have their own scale, and which values are not measures.

With one ratio for a whole output, a box coordinate of 640 would hide a score of 0.5 that should be 0.8. So the slices
of an axis are grouped by their largest values over all references, and each group has its own scale.

A group begins at a slice whose largest value is 8 times below that of the slice next to it in size, or 8 times below
that of its group with a step of at least 2 to the slice next to it: 640, 100, 15, 2.4 and 0.4 are three groups. The
values of classes and pixels decrease evenly and stay in one group; those of coordinates and scores do not. If few
slices differ strongly from their neighbours, as quantities of different units do, every slice that is 8 times below its
group begins a new one. A unit that is mostly 0 because of a Relu is not a separate quantity.

Slices inside [0, 1] may hold probabilities, and the error of a sigmoid's 0.001 is that of the logit before it. So they
form one group unless a gap of 32 times separates them, and the scale of such a group is 8 times its largest value, up
to 2^-5. Each slice of integers (class ids) has its own scale, even if a few values are not integers. A flat list is
read as rows if all rows agree.

Three cases do not form groups. Slices below 2^-10 (2^-13 inside [0, 1]), or 2^-24 of the largest value, are noise of
their neighbours; they are ignored until the others are grouped. Slices that add up to 1 are one distribution. Values of
8192 and more that are 256 times above every other value are masks (-1e9, float32's lowest), not measures.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
_SMALLEST_PROBABILITY: Final = 2.0**-5  # the scale of a group of its own inside [0, 1] is this at least,
_PROBABILITY_ROOM: Final = 8.0  # or this many times its largest value
_PROBABILITIES_APART: Final = 32.0
_GROUPS_APART: Final = 8.0
_STEP_OF_UNITS: Final = 2.0
_CHANCE: Final = 16.0  # the chance that k values of one kind are all smaller by a step is about 1 in step^k
_MOST_SLICES: Final = 2048
_MOST_UNITS: Final = 32
_FEW, _TAIL = 8, 4
_LEAST_UNEVEN_BITS: Final = 0.5  # median difference of neighbouring slices
_LEAST_BITS_OF_UNITS: Final = 6.0  # from the smallest to the largest
_LEAST_VALUES_OF_UNITS: Final = 8
_LEAST_VALUES: Final = 3  # values other than 0 of a slice that are needed to know its range
_MASKS_FROM: Final = 2.0**13
_MASKS_APART_BITS: Final = 8
_SUM_TOLERANCE: Final = 1e-2
_LEAST_INDEX: Final = 2.0
_LEAST_WHOLE: Final = 0.9  # share of integers among the values other than 0 of an id slice
_LEAST_FRACTION_BITS: Final = 12.0  # all 0 by chance once in 4,096 times
_COUNTER_SHARE: Final = 2.0**-12


_ROWS_OF: Final = range(5, 9)  # box, score, class id and other values of a detection
_LEAST_ROWS: Final = 8
_MOST_FLAT: Final = 2**16
_MOST_BITS_BETWEEN_HALVES: Final = 1.0
_LEAST_BITS_OF_ROWS: Final = 5.0  # from the smallest to the largest scale of a flat list


@dataclass(frozen=True, kw_only=True)
class OutputScales:
    """How the values of one output are judged.

    Attributes:
        axis: Axis whose slices have separate scales; None if the output has one scale.
        scales: Scale of each slice, or one scale; never below `SMALLEST_SCALE`.
        integral: Whether nearly all values of a slice other than 0 are integers, and the largest is at least 2 (ids,
            counts).
        constant: Whether these integers are all equal: an id, or a bound that all values reach.
        exponents: Sum of the binary exponents of a slice's integers other than 0 (2 for 7.0).
        counts: Number of values of a slice that are not 0.
        narrow: Whether the values of a slice other than 0 are positive and differ by less than 2^-12, as a counter's.
        peak: Largest absolute value of a measure; 0 if there is none.
        masks_from: Absolute value from which a value is a mask; infinity if there are no masks.
        silent: Slices that are too close to zero to be verified, or have too few values; empty if `axis` is None.
    """

    axis: int | None
    scales: Floats
    integral: Flags
    constant: Flags
    exponents: Floats
    counts: Floats
    narrow: Flags
    peak: float
    masks_from: float
    silent: tuple[int, ...] = ()

    def integers(self, whole_bits: int) -> Flags:
        """Return which slices hold integers for another reason than a dtype without fractions at their size.

        Args:
            whole_bits: Exponent from which the dtype has no fraction: 23 for FP32.
        """
        peaks = self.scales  # integers of at least 2 have no floor
        fractions = whole_bits * self.counts - self.exponents
        told = np.asarray(self.peak <= 2.0 ** (whole_bits - 1)) | (fractions >= _LEAST_FRACTION_BITS) | self.narrow
        return np.asarray(self.integral & told & (peaks <= 2.0 ** (whole_bits + 1)))

    def spread(self, values: npt.NDArray[np.generic], rank: int) -> npt.NDArray[np.generic]:
        """Return one value for each slice in a shape that broadcasts against the output."""
        if self.axis is None:
            return values.reshape((1,) * rank)
        return values.reshape(tuple(-1 if axis == self.axis else 1 for axis in range(rank)))


@dataclass(frozen=True, kw_only=True)
class _Slices:
    """Statistics of the references, one value for each slice of an axis, or one for all.

    `counts` does not include zeros, nor do the number (`wholes`) and the magnitudes of integers.
    """

    peaks: Floats
    lows: Floats
    highs: Floats
    counts: Floats
    wholes: Floats
    exponents: Floats
    least: Floats
    most: Floats


def learn_scales(references: Sequence[Reals]) -> OutputScales:
    """Return the scales of an output from its values in all reference runs, which have one rank."""
    masks_from = _find_masks(references)
    whole = _describe(references, None, masks_from)
    peak = float(whole.peaks[0])
    are_ids = bool(_ids(whole)[0])
    whole_ids = are_ids and bool(whole.wholes[0] == whole.counts[0])
    best = OutputScales(
        axis=None,
        scales=np.maximum(whole.peaks, SMALLEST_SCALE),
        integral=np.array([are_ids]),
        constant=whole.least >= whole.most,
        exponents=whole.exponents,
        counts=whole.counts,
        narrow=_narrow(whole),
        peak=peak,
        masks_from=masks_from,
    )
    widest = 1.0
    for axis in _channel_axes(references):
        slices = _describe(references, axis, masks_from)
        scales = _group(slices, peak)
        ratio = float(scales.max() / scales.min())
        integral = _ids(slices) | whole_ids
        silent = _find_silent(slices, scales, peak)
        mixed = bool(integral.any() and not integral.all())
        if ratio > widest or (ratio == widest and best.axis is None and (mixed or (silent and not are_ids))):
            widest = ratio
            best = OutputScales(
                axis=axis,
                scales=scales,
                integral=integral,
                constant=slices.least >= slices.most,
                exponents=slices.exponents,
                counts=slices.counts,
                narrow=_narrow(slices),
                peak=peak,
                masks_from=masks_from,
                silent=silent,
            )
    if widest == 1 and not best.integral.any():
        return _learn_flat(references) or best
    return best


def _learn_flat(references: Sequence[Reals]) -> OutputScales | None:
    """Return the scales of a flat list of equal rows, one for each position, or None if it is not such a list."""
    shape = references[0].shape if references else ()
    size = max(shape, default=0)
    alike = all(values.shape == shape and values.size == size for values in references)
    if not alike or size > _MOST_FLAT or _is_distribution(references, shape.index(size)):
        return None
    for row in _ROWS_OF:
        if size % row or size // row < _LEAST_ROWS:
            continue
        rows = [values.reshape(-1, row) for values in references]
        found, *halves = (
            learn_scales(part) for part in (rows, [one[::2] for one in rows], [one[1::2] for one in rows])
        )
        if found.axis == 1 and all(_agree(found, half) for half in halves):
            return replace(
                found,
                axis=shape.index(size),
                scales=np.tile(found.scales, size // row),
                integral=np.tile(found.integral, size // row),
                constant=np.tile(found.constant, size // row),
                exponents=np.tile(found.exponents, size // row),
                counts=np.tile(found.counts, size // row),
                narrow=np.tile(found.narrow, size // row),
                silent=tuple(np.flatnonzero(np.tile(np.isin(np.arange(row), found.silent), size // row)).tolist()),
            )
    return None


def _agree(found: OutputScales, half: OutputScales) -> bool:
    """Whether half of the rows give the same scale for each position, as values of one kind do."""
    if half.axis != found.axis or (half.integral != found.integral).any():
        return False
    apart = found.integral.any() or np.ptp(np.log2(half.scales)) >= _LEAST_BITS_OF_ROWS
    return bool(apart and np.abs(np.log2(half.scales / found.scales)).max() <= _MOST_BITS_BETWEEN_HALVES)


def _find_masks(references: Sequence[Reals]) -> float:
    """Return the power of two from which values are masks: above a gap of 256 times at 8192 or more."""
    exponents: set[int] = set()
    for values in references:
        used = np.abs(values[np.isfinite(values) & (values != 0)])
        exponents |= {int(exponent) for exponent in np.unique(np.frexp(used)[1])}
    ordered = sorted(exponents)
    for below, above in pairwise(ordered):
        # The exponent e of frexp is that of values in [2^(e-1), 2^e).
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
        if len(sizes) != 1 or not 1 < sizes.pop() <= _MOST_SLICES:  # one slice is no slice
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
        wholes=np.sum([part.wholes for part in parts], axis=0),
        exponents=np.sum([part.exponents for part in parts], axis=0),
        least=np.min([part.least for part in parts], axis=0),
        most=np.max([part.most for part in parts], axis=0),
    )


def _describe_one(values: Reals, axis: int | None, masks_from: float) -> _Slices:
    flat = values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    flat = np.where((np.abs(flat) < masks_from) | _large_ids(flat, masks_from), flat, 0.0)
    lows = flat.min(axis=1, initial=0.0).astype(np.float64)
    highs = flat.max(axis=1, initial=0.0).astype(np.float64)
    counts = np.asarray((flat != 0).sum(axis=1), np.float64)
    integers = (flat == np.rint(flat)) & (flat != 0)
    wholes = np.asarray(integers.sum(axis=1), np.float64)
    exponents, least, most = np.zeros(len(flat)), np.full(len(flat), np.inf), np.zeros(len(flat))
    used = wholes >= _LEAST_WHOLE * counts
    magnitudes, among = np.abs(flat[used]), integers[used]
    exponents[used] = (np.frexp(magnitudes)[1] - 1).sum(axis=1, where=among)
    least[used] = magnitudes.min(axis=1, where=among, initial=np.inf)
    most[used] = magnitudes.max(axis=1, where=among, initial=0)
    return _Slices(
        peaks=np.maximum(highs, -lows),
        lows=lows,
        highs=highs,
        counts=counts,
        wholes=wholes,
        exponents=exponents,
        least=least,
        most=most,
    )


def _large_ids(flat: Reals, masks_from: float) -> Flags:
    """Return, as a column, which slices hold only positive, different integers as large as masks."""
    if flat.size == 0 or not np.isfinite(masks_from):
        return np.zeros((len(flat), 1), np.bool_)
    ids = np.isfinite(flat) & ((flat >= masks_from) | (flat == 0)) & (flat == np.rint(flat))
    least = np.where(flat > 0, flat, np.inf).min(axis=1)
    return np.asarray(ids.all(axis=1) & (least < flat.max(axis=1)))[:, None]


def _find_silent(slices: _Slices, scales: Floats, peak: float) -> tuple[int, ...]:
    """Return the slices in which the reference, or too many of its values, is close to zero relative to the scale."""
    few = (slices.counts < _LEAST_VALUES) & (scales >= slices.peaks * _GROUPS_APART)
    return tuple(int(index) for index in np.flatnonzero(few | (slices.peaks < _silence(slices, peak))))


def _silence(slices: _Slices, peak: float) -> Floats:
    unit = (slices.lows >= 0) & (slices.highs <= 1)
    return np.maximum(SMALLEST_SCALE / np.where(unit, _PROBABILITY_ROOM, 1), peak * _SMALLEST_SHARE)


def _group(slices: _Slices, peak: float) -> Floats:
    """Return the largest value of each slice's group, with the minimum for separate groups."""
    ids = _ids(slices)
    scales = np.where(ids, slices.peaks, SMALLEST_SCALE)
    unit = ~ids & (slices.lows >= 0) & (slices.highs <= 1)
    apart = _can_stand_apart(slices, ids, peak)
    peaks = _joined_probabilities(slices, unit, apart)
    steps = _steps(slices, ids, peak)
    groups: list[list[int]] = []
    # Among slices inside [0, 1], the one that is most likely to begin a group comes first.
    for index in (int(index) for index in np.lexsort((steps, -peaks)) if apart[index]):
        if not groups or _begins(peaks[index], peaks[groups[-1]], float(steps[index])):
            groups.append([])
        groups[-1].append(index)
    floors = [
        min(_PROBABILITY_ROOM * peaks[group[0]], _SMALLEST_PROBABILITY)
        if number > 0 and unit[group].all()
        else SMALLEST_SCALE
        for number, group in enumerate(groups)
    ]
    _join(groups, np.flatnonzero(~ids & ~apart), peaks)
    for group, floor in zip(groups, floors or [SMALLEST_SCALE], strict=False):
        scales[group] = max(float(slices.peaks[group].max()), floor)
    return scales


def _joined_probabilities(slices: _Slices, unit: Flags, apart: Flags) -> Floats:
    """Return the largest values of slices. Slices inside [0, 1] without a gap between them share one value."""
    peaks = np.where(unit, slices.peaks[unit].max(initial=0.0), slices.peaks)
    often = slices.counts * 2 >= slices.counts.max(initial=0.0)
    before = top = np.inf
    for index in (int(index) for index in np.argsort(-slices.peaks) if unit[index] and apart[index]):
        own = slices.peaks[index]
        top = own if before == np.inf or (often[index] and before >= own * _PROBABILITIES_APART) else top
        peaks[index], before = top, own
    return peaks


def _join(groups: list[list[int]], others: npt.NDArray[np.intp], peaks: Floats) -> None:
    """Add ungrouped slices to the smallest group that is as large, such as a silent class to the other classes."""
    largest = [peaks[group[0]] for group in groups]
    for index in map(int, others):
        if not groups:
            groups.append([])
        groups[max(sum(peaks[index] <= one for one in largest) - 1, 0)].append(index)


def _begins(own: float, group: Floats, step: float) -> bool:
    """Whether a slice begins a group after `group`, which has descending largest values of slices."""
    before = float(group[-1])
    if before >= own * _GROUPS_APART:
        return True
    if group[0] < own * _GROUPS_APART or before < own * step:
        return False
    # Towards the border of a map, values decrease faster and faster.
    return len(group) <= _FEW or step == 1 or before / own > group[-_TAIL] / before


def _can_stand_apart(slices: _Slices, ids: Flags, peak: float) -> Flags:
    return np.asarray(~ids & (slices.peaks >= _silence(slices, peak)) & (slices.counts >= _LEAST_VALUES))


def _steps(slices: _Slices, ids: Flags, peak: float) -> Floats:
    """Return the factor below the next larger slice at which a slice that is far below its group begins a new one.

    It depends on the number of values, which may be small by chance. It is infinity if only this slice is mostly 0.
    """
    steps = np.maximum(_STEP_OF_UNITS, (_CHANCE * ids.size) ** (1.0 / np.maximum(slices.counts, 1.0)))
    if _are_units(slices, ids, peak):
        steps = np.where(slices.counts >= _LEAST_VALUES_OF_UNITS, 1.0, steps)
    return np.where(slices.counts * 2 >= slices.counts.max(initial=0.0), steps, np.inf)


def _are_units(slices: _Slices, ids: Flags, peak: float) -> bool:
    """Whether neighbouring slices differ like quantities of different units."""
    used = slices.peaks[_can_stand_apart(slices, ids, peak)]
    if not 1 < used.size <= _MOST_UNITS:  # a single slice has no neighbour
        return False
    bits = np.log2(used)
    return bool(np.ptp(bits) >= _LEAST_BITS_OF_UNITS and np.median(np.abs(np.diff(bits))) >= _LEAST_UNEVEN_BITS)


def _narrow(slices: _Slices) -> Flags:
    spread = slices.peaks - slices.least
    return np.asarray((slices.lows >= 0) & (spread > 0) & (spread <= slices.peaks * _COUNTER_SHARE))


def _ids(slices: _Slices) -> Flags:
    # Many values may reach an integer bound while others are no integers.
    varied = (slices.wholes >= _LEAST_WHOLE * slices.counts) & (slices.least < slices.most)
    integral = (slices.wholes == slices.counts) | varied
    return np.asarray(integral & (slices.peaks >= _LEAST_INDEX) & (slices.counts >= _LEAST_VALUES))
