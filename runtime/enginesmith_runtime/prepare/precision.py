"""Which precisions a model can be prepared for, and which of them change its graph (ADR 0005)."""

from typing import Final

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.errors import ModelError

__all__ = ["AVAILABLE", "needs_cast", "refuse_unavailable"]

AVAILABLE: Final = (Precision.FP32, Precision.TF32, Precision.FP16)
"""INT8, BF16 and FP8 have their names and no preparation yet."""


def refuse_unavailable(policy: PrecisionPolicy) -> None:
    """Refuse a precision that no preparation exists for.

    Raises:
        enginesmith_contract.errors.ModelError: `PrecisionNotAvailable`.
    """
    if policy.default not in AVAILABLE:
        raise ModelError(
            f"{policy.default.value} cannot be prepared yet",
            where="precision",
            why=f"there are {', '.join(precision.value for precision in AVAILABLE)}",
            remedy="choose one of these",
            reason="PrecisionNotAvailable",
        )


def needs_cast(policy: PrecisionPolicy) -> bool:
    """Whether the prepared graph differs from the source: TF32 is a flag of the build, FP32 is how models come."""
    return policy.default is Precision.FP16
