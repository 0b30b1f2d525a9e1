"""What the references say of one output: where its values have scales of their own, and which of them are no measures.

One ratio for a whole output lets a box coordinate of 640 hide a score of 0.5 that should be 0.8. So the slices of an
axis are put into groups by their largest values over all references, and each group is held to its own scale.

A group begins at a slice whose largest value is 8 times below that of the slice next to it in size, or 8 times below
that of its group with a step of at least 2 to the slice next to it: 640, 100, 15, 2.4 and 0.4 are three groups.
Classes and pixels fall off evenly and stay in one group; coordinates and scores do not. Of few slices that differ as
much from those at their sides, as quantities of different units do and pixels of a map do not, every one that is 8
times below its group begins one. A unit that is 0 most of the time, since Relu cut it, is no quantity of its own.

Slices inside [0, 1] may hold probabilities, and the error of a sigmoid's 0.001 is that of the logit behind it. So they
count as one until a gap of 32 times parts them, and a group of them has 8 times its largest value as its scale, up to
2^-5. Slices of integers (class ids) have each their own scale; a few values that are none do not change that. A flat
list is read as rows, where all rows agree.

Three things make no group. Slices below 2^-10 (2^-13 inside [0, 1]), or 2^-24 of the largest value, are noise of their
neighbours; they are left out until the others have their groups. Slices that add up to 1 are one distribution.
Values of 8192 and more that are 256 times above every other value are masks (-1e9, float32's lowest), not measures.
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
_CHANCE: Final = 16.0  # k values of one kind are all smaller by a step with a chance of about 1 in step^k
_MOST_SLICES: Final = 2048
_MOST_UNITS: Final = 32
_FEW, _TAIL = 8, 4
_LEAST_UNEVEN_BITS: Final = 0.5  # between slices side by side, in the median
_LEAST_BITS_OF_UNITS: Final = 6.0  # from the smallest to the largest
_LEAST_VALUES_OF_UNITS: Final = 8
_LEAST_VALUES: Final = 3  # of a slice, zeros apart and over all references: fewer say nothing of its range
_MASKS_FROM: Final = 2.0**13
_MASKS_APART_BITS: Final = 8
_SUM_TOLERANCE: Final = 1e-2
_LEAST_INDEX: Final = 2.0
_LEAST_WHOLE: Final = 0.9  # share of integers among the values other than 0 of a slice of ids
_LEAST_FRACTION_BITS: Final = 12.0  # all 0 by chance once in 4,096 times
_COUNTER_SHARE: Final = 2.0**-12


_ROWS_OF: Final = range(5, 9)  # box, score, class id and what else a detection has
_LEAST_ROWS: Final = 8
_MOST_FLAT: Final = 2**16
_MOST_BITS_BETWEEN_HALVES: Final = 1.0
_LEAST_BITS_OF_ROWS: Final = 5.0  # from the smallest to the largest scale of a flat list


@dataclass(frozen=True, kw_only=True)
class OutputScales:
    """How the values of one output are judged.

    Attributes:
        axis: whose slices have a scale each; None: the output has one.
        scales: one for each slice, or one; never below `SMALLEST_SCALE`.
        integral: whether the values of a slice other than 0 are integers, nearly all of them, and reach 2: ids, counts.
        constant: whether these integers are one and the same: an id, or a bound that all values reach.
        exponents: sum over a slice's integers other than 0 of their binary exponents, of 7.0: 2.
        counts: how many values of a slice are not 0.
        narrow: whether the values of a slice other than 0 are positive and differ, by less than 2^-12: a counter.
        peak: the largest absolute value of a measure; 0 where there is none.
        masks_from: absolute value from which a value is a mask; infinity where there are none.
        silent: slices that are too near to zero to be verified, or hold too few values; empty where `axis` is None.
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
        """Return which slices hold integers, and not because their dtype has no fraction there.

        Args:
            whole_bits: exponent from which the dtype has no fraction: 23 for FP32.
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
    """What the references hold along one axis, or altogether: one value for each slice.

    `counts` leaves zeros out; so do those of integers: how many (`wholes`), the smallest and the largest magnitude.
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
    """Return how an output is judged whose answers in all reference runs are given, of one rank."""
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
    """Return the scales of a flat list of equal rows, one for each position; None where it is no such list."""
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
    """Whether half of the rows say the same of each position: values of one kind differ by chance only."""
    if half.axis != found.axis or (half.integral != found.integral).any():
        return False
    apart = found.integral.any() or np.ptp(np.log2(half.scales)) >= _LEAST_BITS_OF_ROWS
    return bool(apart and np.abs(np.log2(half.scales / found.scales)).max() <= _MOST_BITS_BETWEEN_HALVES)


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
    """Return which slices, as a column, hold nothing but positive, different integers as large as masks."""
    if flat.size == 0 or not np.isfinite(masks_from):
        return np.zeros((len(flat), 1), np.bool_)
    ids = np.isfinite(flat) & ((flat >= masks_from) | (flat == 0)) & (flat == np.rint(flat))
    least = np.where(flat > 0, flat, np.inf).min(axis=1)
    return np.asarray(ids.all(axis=1) & (least < flat.max(axis=1)))[:, None]


def _find_silent(slices: _Slices, scales: Floats, peak: float) -> tuple[int, ...]:
    """Return the slices in which the reference is hardly above zero, or too few values are, for the scale they have."""
    few = (slices.counts < _LEAST_VALUES) & (scales >= slices.peaks * _GROUPS_APART)
    return tuple(int(index) for index in np.flatnonzero(few | (slices.peaks < _silence(slices, peak))))


def _silence(slices: _Slices, peak: float) -> Floats:
    unit = (slices.lows >= 0) & (slices.highs <= 1)
    return np.maximum(SMALLEST_SCALE / np.where(unit, _PROBABILITY_ROOM, 1), peak * _SMALLEST_SHARE)


def _group(slices: _Slices, peak: float) -> Floats:
    """Return the largest value of each slice's group, with the floor of a group of its own."""
    ids = _ids(slices)
    scales = np.where(ids, slices.peaks, SMALLEST_SCALE)
    unit = ~ids & (slices.lows >= 0) & (slices.highs <= 1)
    apart = _can_stand_apart(slices, ids, peak)
    peaks = _joined_probabilities(slices, unit, apart)
    steps = _steps(slices, ids, peak)
    groups: list[list[int]] = []
    # The slice that can best begin a group comes first of those inside [0, 1].
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
    """Return the largest values of slices; of those inside [0, 1] that of all that no gap parts from them."""
    peaks = np.where(unit, slices.peaks[unit].max(initial=0.0), slices.peaks)
    often = slices.counts * 2 >= slices.counts.max(initial=0.0)
    before = top = np.inf
    for index in (int(index) for index in np.argsort(-slices.peaks) if unit[index] and apart[index]):
        own = slices.peaks[index]
        top = own if before == np.inf or (often[index] and before >= own * _PROBABILITIES_APART) else top
        peaks[index], before = top, own
    return peaks


def _join(groups: list[list[int]], others: npt.NDArray[np.intp], peaks: Floats) -> None:
    """Add slices that make no group to the smallest group that is as large: a silent class to the other classes."""
    largest = [peaks[group[0]] for group in groups]
    for index in map(int, others):
        if not groups:
            groups.append([])
        groups[max(sum(peaks[index] <= one for one in largest) - 1, 0)].append(index)


def _begins(own: float, group: Floats, step: float) -> bool:
    """Whether a slice begins a group after `group`, whose largest values fall; all are those of slices."""
    before = float(group[-1])
    if before >= own * _GROUPS_APART:
        return True
    if group[0] < own * _GROUPS_APART or before < own * step:
        return False
    # The rim of a map falls faster and faster.
    return len(group) <= _FEW or step == 1 or before / own > group[-_TAIL] / before


def _can_stand_apart(slices: _Slices, ids: Flags, peak: float) -> Flags:
    return np.asarray(~ids & (slices.peaks >= _silence(slices, peak)) & (slices.counts >= _LEAST_VALUES))


def _steps(slices: _Slices, ids: Flags, peak: float) -> Floats:
    """Return how far below the slice next to it in size each must be to begin a group, where it is far below its own.

    Few values are small by chance; infinity where a slice is mostly 0 and others are not.
    """
    steps = np.maximum(_STEP_OF_UNITS, (_CHANCE * ids.size) ** (1.0 / np.maximum(slices.counts, 1.0)))
    if _are_units(slices, ids, peak):
        steps = np.where(slices.counts >= _LEAST_VALUES_OF_UNITS, 1.0, steps)
    return np.where(slices.counts * 2 >= slices.counts.max(initial=0.0), steps, np.inf)


def _are_units(slices: _Slices, ids: Flags, peak: float) -> bool:
    """Whether slices side by side differ as quantities of different units do."""
    used = slices.peaks[_can_stand_apart(slices, ids, peak)]
    if not 1 < used.size <= _MOST_UNITS:  # one slice has none at its side
        return False
    bits = np.log2(used)
    return bool(np.ptp(bits) >= _LEAST_BITS_OF_UNITS and np.median(np.abs(np.diff(bits))) >= _LEAST_UNEVEN_BITS)


def _narrow(slices: _Slices) -> Flags:
    spread = slices.peaks - slices.least
    return np.asarray((slices.lows >= 0) & (spread > 0) & (spread <= slices.peaks * _COUNTER_SHARE))


def _ids(slices: _Slices) -> Flags:
    # Many values may reach one bound, which is an integer, and others not.
    varied = (slices.wholes >= _LEAST_WHOLE * slices.counts) & (slices.least < slices.most)
    integral = (slices.wholes == slices.counts) | varied
    return np.asarray(integral & (slices.peaks >= _LEAST_INDEX) & (slices.counts >= _LEAST_VALUES))
