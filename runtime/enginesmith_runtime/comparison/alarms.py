"""Measures of a whole output over all samples. They raise alarms but do not decide.

With real data one element of a good engine can differ by max|b|, so a ratio cannot decide. These sums over all elements
separate broken from working engines. On PP-OCRv4, working INT8 had a cosine of 0.985 to 0.998, a mean relative error of
0.02 to 0.06 and more than 12 dB; broken ranges had 0.60 to 0.72, 0.60 to 1.67 and less than 5 dB.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from enginesmith_contract.verification import OutputAgreement
from enginesmith_runtime.comparison.output_scales import Floats

__all__ = ["Similarity", "alarms_of", "sqnr"]

_LEAST_COSINE: Final = 0.95
_MOST_RELATIVE_ERROR: Final = 0.2
_LEAST_DB: Final = 10.0
_MOST_DB: Final = 200.0


@dataclass(kw_only=True)
class Similarity:
    """Sums over the finite values of one output, over all samples."""

    product: float = 0.0
    actual: float = 0.0
    reference: float = 0.0
    noise: float = 0.0
    absolute_error: float = 0.0
    absolute: float = 0.0

    def add(self, a: Floats, b: Floats) -> None:
        """Add the values of one sample: engine and reference, with equal shapes."""
        finite = np.isfinite(a) & np.isfinite(b)
        x, y = a[finite], b[finite]
        # Do not use BLAS: for arrays of this size its threads cost more than they gain.
        self.product += float((x * y).sum())
        self.actual += float((x * x).sum())
        self.reference += float((y * y).sum())
        error = np.abs(x - y)
        self.noise += float((error * error).sum())
        self.absolute_error += float(error.sum())
        self.absolute += float(np.abs(y).sum())

    @property
    def cosine(self) -> float | None:
        """Return the cosine, or None if the reference is zero."""
        if not self.reference:
            return None
        return self.product / math.sqrt(self.actual * self.reference) if self.actual else 0.0

    @property
    def mean_relative_error(self) -> float | None:
        """Return the sum of errors over the sum of the reference's absolute values, or None if that is zero."""
        return self.absolute_error / self.absolute if self.absolute else None

    @property
    def sqnr_db(self) -> float | None:
        """Return the ratio in decibels, or None if nothing differs or the reference is zero."""
        return sqnr(self.reference, self.noise) if self.noise and self.reference else None


def sqnr(signal: float, noise: float) -> float:
    """Return the signal-to-quantization-noise ratio in decibels, at most 200, because JSON has no infinity."""
    if not noise:
        return _MOST_DB
    if not signal or not math.isfinite(noise):
        return -_MOST_DB
    return max(-_MOST_DB, min(_MOST_DB, 10 * math.log10(signal / noise)))


def alarms_of(one: OutputAgreement) -> Iterator[str]:
    """Yield one clause for each suspicious measure of an output."""
    if one.cosine is not None and one.cosine < _LEAST_COSINE:
        yield f"cosine {one.cosine:.3g}, usual above {_LEAST_COSINE:g}"
    if one.mean_relative_error is not None and one.mean_relative_error > _MOST_RELATIVE_ERROR:
        yield f"mean relative error {one.mean_relative_error:.3g}, usual below {_MOST_RELATIVE_ERROR:g}"
    if one.sqnr_db is not None and one.sqnr_db < _LEAST_DB:
        yield f"SQNR {one.sqnr_db:.1f} dB, usual above {_LEAST_DB:g} dB"
