"""Computes ranges from histograms, and refuses histograms that give no good range.

Builders accept every range: a range of zero becomes scale 1, and a range that is a hundred times too wide leaves two
steps. So data that cannot give a good range is refused here, with the names of the tensors.
"""

from collections.abc import Mapping
from typing import Final, assert_never

import numpy as np
import numpy.typing as npt

from enginesmith_contract.calibration import Calibration, CalibrationMethod
from enginesmith_contract.errors import SpecError
from enginesmith_runtime.prepare.quantize.histograms import BINS, Histogram

__all__ = ["INT8_LEVELS", "WIDEST", "choose_range", "refuse_same_samples", "refuse_unusable"]

INT8_LEVELS: Final = 127
"""Number of positive values of symmetric INT8."""
WIDEST: Final = 20.0
"""Ratio of the largest |v| of a tensor to the median over samples, above which a sample is an outlier."""
_CANDIDATES: Final = 160
# Smallest range relative to the largest absolute value. A smaller one would clip too much.
_NARROWEST: Final = 1 / 64
_SAID: Final = 5


def choose_range(histogram: Histogram, calibration: Calibration, levels: int = INT8_LEVELS) -> float:
    """Return the absolute value of the largest quantised number.

    Args:
        histogram: Histogram of the tensor, with a value other than 0.
        calibration: Calibration with the method.
        levels: Number of positive values of the quantised type.
    """
    match calibration.method:
        case CalibrationMethod.MIN_MAX:
            return histogram.amax
        case CalibrationMethod.PERCENTILE:
            return _percentile(histogram, calibration.percentile)
        case CalibrationMethod.MSE:
            return _least_error(histogram, levels)
        case _:
            assert_never(calibration.method)


def refuse_unusable(histograms: Mapping[str, Histogram]) -> None:
    """Refuse tensors with data that gives no useful range.

    Raises:
        enginesmith_contract.errors.SpecError: `CalibrationUnusable` with each such tensor.
    """
    faults = [f"{name}: {fault}" for name, each in histograms.items() if (fault := _fault(each))]
    if faults:
        raise _unusable(faults)


def refuse_same_samples(histograms: Mapping[str, Histogram]) -> None:
    """Refuse data that repeats one sample, because its ranges do not fit other data and held-out copies prove nothing.

    Args:
        histograms: Histograms of inputs and outputs of layers. The largest value of only an input may be equal in all
            samples.

    Raises:
        enginesmith_contract.errors.SpecError: `CalibrationUnusable`.
    """
    counts = {len(each.largest) for each in histograms.values()}
    if max(counts, default=0) > 1 and all(len(np.unique(each.largest)) == 1 for each in histograms.values()):
        raise _unusable([f"all {max(counts)} samples are the same: each tensor has one largest value in all of them"])


def _fault(histogram: Histogram) -> str:
    """Return the problem of a tensor's data, or ""."""
    if histogram.not_finite:
        return f"NaN or infinity in sample {histogram.not_finite}"
    if not len(histogram.largest) or histogram.amax == 0:
        return f"0 in all {len(histogram.largest)} samples"
    if histogram.lowest == histogram.highest:
        return f"the constant {histogram.lowest:g} in all {len(histogram.largest)} samples"
    median = float(np.median(histogram.largest[histogram.largest > 0]))
    if histogram.amax > WIDEST * median:
        return (
            f"it reaches {histogram.amax:.3g} in sample {histogram.widest_sample}, more than {WIDEST:g} times "
            f"{median:.3g}, the median over the samples"
        )
    return ""


def _unusable(faults: list[str]) -> SpecError:
    more = len(faults) - _SAID
    said = faults[:_SAID] + ([f"and {more} more tensors"] if more > 0 else [])
    return SpecError(
        "the calibration data gives no range",
        where="precision.calibration",
        why="\n".join(said) if len(said) > 1 else said[0],
        remedy="correct the calibration data, or keep the operators that read it in FP16 (precision.keep)",
        reason="CalibrationUnusable",
    )


def _percentile(histogram: Histogram, percent: float) -> float:
    """Return the percentile of the values other than 0, interpolated linearly inside a bin."""
    shares = np.cumsum(histogram.counts)
    wanted = shares[-1] * percent / 100
    index = int(np.searchsorted(shares, wanted))
    before = int(shares[index - 1]) if index else 0
    width = histogram.limit / BINS
    value = (index + (wanted - before) / int(histogram.counts[index])) * width
    return min(float(value), histogram.amax)


def _least_error(histogram: Histogram, levels: int) -> float:
    """Return the range with the smallest squared error of rounding and clipping, among ranges in steps of 2.7 %."""
    candidates = np.geomspace(histogram.amax * _NARROWEST, histogram.amax, _CANDIDATES)
    errors = [_squared_error(histogram, float(amax), levels) for amax in candidates]
    return float(candidates[int(np.argmin(errors))])


def _squared_error(histogram: Histogram, amax: float, levels: int) -> float:
    """Return the sum of the squared errors of all values with this range."""
    width = histogram.limit / BINS
    centres = (np.arange(BINS) + 0.5) * width
    step = amax / levels
    rounded = np.minimum(np.rint(centres / step), levels) * step
    errors: npt.NDArray[np.float64] = (centres - rounded) ** 2
    # A bin has values of several steps, so use their mean error and not the error of its centre.
    if step < 2 * width:
        errors = np.where(centres < amax, step**2 / 12, errors)
    return float(errors @ histogram.counts)
