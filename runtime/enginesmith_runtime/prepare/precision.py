"""Precisions that change a model's graph, and their requirements (ADR 0005)."""

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.errors import SpecError

__all__ = ["needs_cast", "refuse_uncalibrated"]


def refuse_uncalibrated(policy: PrecisionPolicy) -> None:
    """Refuse INT8 and FP8 without calibration data.

    Raises:
        enginesmith_contract.errors.SpecError: `CalibrationDataMissing`.
    """
    if policy.quantises and policy.calibration is None:
        raise SpecError(
            f"{policy.default.value} needs calibration data",
            where="precision",
            why="the ranges of tensors are computed from samples",
            remedy="set precision.calibration",
            reason="CalibrationDataMissing",
        )


def needs_cast(policy: PrecisionPolicy) -> bool:
    """Whether nodes are cast. TF32 is a flag of the build, FP32 needs no cast, INT8 and FP8 have their own stage."""
    return policy.default in {Precision.FP16, Precision.BF16}
