"""What a failed verification says of the layers that keep a higher precision."""

from enginesmith_contract.backends import PrecisionPolicy
from enginesmith_contract.verification import Verification, VerificationStatus

__all__ = ["advice_on_layers", "with_shortfall"]


def with_shortfall(verification: Verification, shortfall: str | None) -> Verification:
    """Return a verification that keeps what `precision.autoKeep` did not reach, and says so where it failed.

    Args:
        verification: a new one, whose reason does not name the shortfall.
        shortfall: None: there is none.
    """
    if shortfall is None:
        return verification
    has_failed = verification.status is VerificationStatus.FAILED
    reason = f"{verification.reason}; {shortfall}" if has_failed else verification.reason
    return verification.model_copy(update={"reason": reason, "shortfall": shortfall})


def advice_on_layers(precision: PrecisionPolicy) -> str:
    """Return which fields keep layers in a higher precision; one that is set already is not advised."""
    if precision.auto_keep is not False:
        return "name the layers that lose precision in precision.keep, since precision.autoKeep did not keep enough"
    return f"keep the layers that lose precision ({', or '.join(precision.unused_keep_fields)})"
