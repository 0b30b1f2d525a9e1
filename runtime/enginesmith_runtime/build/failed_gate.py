"""The error of an engine that fails the gate, with what can be done."""

from collections.abc import Mapping
from typing import Final

from enginesmith_contract.backends import Precision
from enginesmith_contract.errors import VerificationError
from enginesmith_contract.limits import Arithmetic
from enginesmith_contract.verification import GENERATED_INPUTS, Verification, VerificationStatus
from enginesmith_runtime.build.kept_layers import advice_on_layers
from enginesmith_runtime.comparison.compare import OTHER_SHAPE

__all__ = ["raise_if_failed"]

_REAL_INPUTS: Final = "give verification.inputs that look like real ones"
_OWN_INPUTS: Final = "see that verification.inputs look like real ones"
_CURES: Final[Mapping[Precision, str]] = {
    Precision.FP32: "{inputs} (the model amplifies rounding, or the engine is wrong)",
    Precision.TF32: "{inputs}, choose fp32",
}
_CURE_OF_LESS: Final = "{layers}, choose a wider precision"
_CURE_OF_ALL: Final = (
    "or raise verification.limit if the task allows it (verification.mismatches for integers, ids and booleans;"
    " verification.outputs for one output)"
)
_CURE_OF_SAMPLES: Final = (
    "calibrate with data that looks like the requests and has all of their answers, {layers}, choose a wider precision,"
    " or lower verification.agreement, or set verification.limit where the agreement proves little, if the task allows"
    " it (verification.outputs for one output, which can also declare how it is decoded)"
)
_CURE_OF_SHAPES: Final = (
    "let the model end before the node that selects (NonMaxSuppression, NonZero) and select in the client: one value"
    " that is nearly at the border changes the size of such an output, which no limit allows. Or choose fp32"
)


def raise_if_failed(verification: Verification, arithmetic: Arithmetic) -> None:
    """Turn a failed verification into an error.

    Raises:
        VerificationError: with the worst output, its difference, the limit and what can be done.
    """
    if verification.status is not VerificationStatus.FAILED:
        return
    inputs = _REAL_INPUTS if verification.judged_on in {None, GENERATED_INPUTS} else _OWN_INPUTS
    by_ratio = f"{_CURES.get(arithmetic.precision.default, _CURE_OF_LESS)}, {_CURE_OF_ALL}"
    cure = by_ratio if verification.agreements is None else _CURE_OF_SAMPLES
    found = [one.found for one in verification.differences if one.found]
    found += [one.found for one in verification.agreements or () if one.found]
    if found and all(OTHER_SHAPE in words for words in found) and arithmetic.is_reduced:
        cure = _CURE_OF_SHAPES
    raise VerificationError(
        "the engine's answers differ from the ONNX model's",
        where="verification",
        why=verification.reason,
        remedy=cure.format(layers=advice_on_layers(arithmetic.precision), inputs=inputs),
    )
