"""Default limits of the difference between an output and its reference.

The limit of a precision follows from the rounding of its arithmetic. Some models amplify the rounding errors of FP32,
so that two FP32 implementations differ by more than this limit. The preparation measures the amplification (see
`enginesmith_runtime.prepare.runs.rounding`), and such outputs get a limit of their own.
"""

from collections.abc import Mapping
from typing import Final

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.record import Record
from enginesmith_contract.tensors import ExpectedDifference

__all__ = ["NOT_FINITE", "Arithmetic", "expected_differences"]

NOT_FINITE: Final = 1e6
"""Value that replaces NaN and infinity in an expected difference, because a status can hold only numbers."""

# Twenty times the unit roundoff of the arithmetic (Higham, "Accuracy and Stability of Numerical Algorithms", table 2.1:
# fp16 and tf32 2^-11, bf16 2^-8; fp8 E4M3 2^-4, int8 half a step of 127), rounded: rounding errors of a deep network
# grow slowly, since most of them cancel. For FP32 it would be 1e-6, which another order of summation already exceeds.
_LIMITS: Final[Mapping[Precision, float]] = {
    Precision.FP32: 1e-3,
    Precision.TF32: 1e-2,
    Precision.FP16: 1e-2,
    Precision.BF16: 8e-2,
    Precision.INT8: 1e-1,
    Precision.FP8: 2.5e-1,
}
# The difference of an engine on a GPU was 0.5 to 3 times the measured amplification (PP-OCRv4, three models).
_ROUNDING_MARGIN: Final = 10.0
# A larger limit would accept almost any engine.
_MOST: Final = 1e-1
_REDUCED: Final = frozenset({Precision.FP16, Precision.BF16, Precision.INT8, Precision.FP8})
_MOST_EXPECTED: Final = 8


class Arithmetic(Record):
    """Arithmetic that determines the expected difference of an engine's outputs.

    Attributes:
        precision: Precision that the user asked for.
        own: Precisions among FP16, BF16, INT8 and FP8 that the source model itself computes in. The largest limit
            applies.
        rounding: Difference of each output, by name, when the last bits of inputs and weights change.
    """

    precision: PrecisionPolicy = PrecisionPolicy()
    own: tuple[Precision, ...] = ()
    rounding: Mapping[str, float] = {}

    @property
    def is_reduced(self) -> bool:
        """Return whether decoded answers decide if there are samples, since a ratio would refuse good engines."""
        return self.precision.default in _REDUCED

    @property
    def limit(self) -> float:
        """Return the limit of an output that does not amplify rounding errors."""
        return max(_LIMITS[one] for one in (self.precision.default, *self.own))

    def limit_of(self, output: str) -> float:
        """Return the limit of an output without a limit in the policy."""
        return max(self.limit, min(_ROUNDING_MARGIN * self.rounding.get(output, 0.0), _MOST))


def expected_differences(
    differences: Mapping[str, float], arithmetic: Arithmetic
) -> tuple[ExpectedDifference, ...] | None:
    """Return the largest differences measured on a CPU, each with its default limit, or None if there are none."""
    limits = {output: arithmetic.limit_of(output) for output in differences}
    worst = sorted(differences, key=lambda output: -differences[output] / limits[output])[:_MOST_EXPECTED]
    return (
        tuple(
            ExpectedDifference(output=output, difference=min(differences[output], NOT_FINITE), limit=limits[output])
            for output in worst
        )
        or None
    )
