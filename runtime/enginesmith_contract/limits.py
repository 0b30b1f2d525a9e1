"""How far an output may differ from its reference where the spec names no limit.

The limit of a precision is that of its arithmetic. Some models amplify the last bits of FP32 themselves: two FP32
implementations of one differ by more than that. The preparation measures by how much (see
`enginesmith_runtime.prepare.runs.rounding`), and such outputs get a limit of their own.
"""

from collections.abc import Mapping
from typing import Final

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.record import Record
from enginesmith_contract.tensors import ExpectedDifference

__all__ = ["NOT_FINITE", "Arithmetic", "expected_differences"]

NOT_FINITE: Final = 1e6
"""Stands for NaN and infinity in an expected difference: a status holds numbers only."""

# Twenty times the unit roundoff of the arithmetic (Higham, "Accuracy and Stability of Numerical Algorithms", table
# 2.1: fp16 and tf32 2^-11, bf16 2^-8; fp8 E4M3 2^-4, int8 half a step of 127), rounded: rounding errors of a deep
# network grow slowly, since most of them cancel. FP32's own would be 1e-6, which no other order of summation keeps.
_LIMITS: Final[Mapping[Precision, float]] = {
    Precision.FP32: 1e-3,
    Precision.TF32: 1e-2,
    Precision.FP16: 1e-2,
    Precision.BF16: 8e-2,
    Precision.INT8: 1e-1,
    Precision.FP8: 2.5e-1,
}
# An engine on a GPU was off by 0.5 to 3 times what the changed last bits showed (PP-OCRv4, three models).
_ROUNDING_MARGIN: Final = 10.0
# Beyond it, a limit would say nothing of the engine.
_MOST: Final = 1e-1
_REDUCED: Final = frozenset({Precision.FP16, Precision.BF16, Precision.INT8, Precision.FP8})
_MOST_EXPECTED: Final = 8


class Arithmetic(Record):
    """What an engine's answers can be expected to be off by.

    Attributes:
        precision: what the user asked for.
        own: of FP16, BF16, INT8 and FP8 those that the source itself computes in: the loosest limit counts.
        rounding: by output, its difference when the last bits of inputs and weights change.
    """

    precision: PrecisionPolicy = PrecisionPolicy()
    own: tuple[Precision, ...] = ()
    rounding: Mapping[str, float] = {}

    @property
    def is_reduced(self) -> bool:
        """Return whether decoded answers decide where there are samples: a ratio refuses good engines there."""
        return self.precision.default in _REDUCED

    @property
    def limit(self) -> float:
        """Return the limit of an output that amplifies nothing."""
        return max(_LIMITS[one] for one in (self.precision.default, *self.own))

    def limit_of(self, output: str) -> float:
        """Return the limit of an output for which the policy names none."""
        return max(self.limit, min(_ROUNDING_MARGIN * self.rounding.get(output, 0.0), _MOST))


def expected_differences(
    differences: Mapping[str, float], arithmetic: Arithmetic
) -> tuple[ExpectedDifference, ...] | None:
    """Return the largest of the differences that were seen on a CPU, each with its default limit; None: none was."""
    limits = {output: arithmetic.limit_of(output) for output in differences}
    worst = sorted(differences, key=lambda output: -differences[output] / limits[output])[:_MOST_EXPECTED]
    return (
        tuple(
            ExpectedDifference(output=output, difference=min(differences[output], NOT_FINITE), limit=limits[output])
            for output in worst
        )
        or None
    )
