"""How an engine's answers are held against the reference's."""

from collections.abc import Mapping
from enum import StrEnum

from enginesmith_contract.record import Record

__all__ = ["InputValues", "OutputDifference", "Verification", "VerificationPolicy", "VerificationStatus"]


class InputValues(Record):
    """Values that fill one input for the reference run. Exactly one field must be set.

    Attributes:
        range: Smallest and largest value. Values are distributed uniformly between them; integers include both. A range
            keeps token ids inside an embedding table.
        constant: Value of every element.
        npz: URI of an .npz file with an array that has the input's name. Its shape must fit a profile.
    """

    range: tuple[float, float] | None = None
    constant: float | None = None
    npz: str | None = None


class VerificationPolicy(Record):
    """Comparison of an engine's outputs with reference outputs. An engine beyond the limit is not served.

    Attributes:
        metric: Measure of the difference. `maxRelative` is max|a-b| / max|b| over one output, where b is the reference.
        limit: Largest difference that passes, as a ratio. If None, it depends on the precision: 0.001 for fp32, 0.01
            for tf32 and fp16, 0.08 for bf16, 0.1 for int8, 0.25 for fp8.
        inputs: Values of inputs, by input name. Other inputs get uniform values in [0, 1], or integers that the model
            accepts.
    """

    metric: str = "maxRelative"
    limit: float | None = None
    inputs: Mapping[str, InputValues] = {}


class VerificationStatus(StrEnum):
    """Result of a verification. After `NOT_RUN` the runtime verifies the engine before it is Ready."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "notRun"


class OutputDifference(Record):
    """Largest difference of one output over all references of one profile (ratio, no unit).

    Attributes:
        scale: Largest absolute value in the references, in the output's own unit; None if it was not kept.
        point: Point of the profile with the difference ("min", "opt" or "max"); None if it was not kept.
        found: Reason why nothing can be compared (NaN, another shape); None if everything can.
    """

    output: str
    profile: str
    difference: float
    scale: float | None = None
    point: str | None = None
    found: str | None = None


class Verification(Record):
    """Result of a verification. `reason` says why it was not run or failed, or what a pass does not prove."""

    status: VerificationStatus
    metric: str = "maxRelative"
    limit: float | None = None
    differences: tuple[OutputDifference, ...] = ()
    reason: str = ""
