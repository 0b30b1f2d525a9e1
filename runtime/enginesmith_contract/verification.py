"""How an engine's answers are held against the reference's."""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from enginesmith_contract.errors import SpecError
from enginesmith_contract.record import Record

__all__ = [
    "InputValues",
    "OutputDifference",
    "OutputGate",
    "Verification",
    "VerificationPolicy",
    "VerificationStatus",
    "check_outputs",
]


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


class OutputGate(Record):
    """Limits of one output, which replace the limits of all outputs.

    Attributes:
        limit: Largest ratio that passes. An output of integers or ids that has `limit` and no `mismatches` is compared
            by ratio instead of equality.
        mismatches: Largest share of integers, ids and booleans that may differ from the references.
    """

    limit: float | None = None
    mismatches: float | None = None


class VerificationPolicy(Record):
    """Comparison of an engine's outputs with reference outputs. An engine beyond the limit is not served.

    Attributes:
        metric: Measure of the difference. `maxRelative` is max|a-b| / max|b| over one output, or over one slice of it
            if slices have different ranges, where b is the reference.
        limit: Largest ratio that passes. If None, it depends on the precision: 0.001 for fp32, 0.01 for tf32 and fp16,
            0.08 for bf16, 0.1 for int8, 0.25 for fp8.
        mismatches: Largest share of integers, ids and booleans that may differ from the references. If None, 0.
        inputs: Values of inputs, by input name. Other inputs get uniform values in [0, 1], or integers that the model
            accepts.
        outputs: Limits of single outputs, by output name.
    """

    metric: str = "maxRelative"
    limit: float | None = None
    mismatches: float | None = None
    inputs: Mapping[str, InputValues] = {}
    outputs: Mapping[str, OutputGate] | None = None


class VerificationStatus(StrEnum):
    """Result of a verification. After `NOT_RUN` the runtime verifies the engine before it is Ready."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "notRun"


class OutputDifference(Record):
    """Largest difference of one output over all references of one profile.

    An output that has measures and ids has two entries: one of each kind.

    Attributes:
        difference: Ratio max|a-b| / max|b|, without a unit; also of ids and integers, which are judged by `mismatches`.
        scale: Largest absolute value in the references, in the output's own unit; None if it was not kept.
        point: Point of the profile with the difference ("min", "opt" or "max"); None if it was not kept.
        found: Reason why nothing can be compared (NaN, another shape); None if everything can.
        mismatches: Share of integers, ids and booleans that differ; None if the output is judged by ratio.
        worst: Text that names the worst element with both values; None if nothing differs, or if it was not kept.
        silent: Text that names the parts of the output that are too close to zero to be verified; None if there are
            none.
    """

    output: str
    profile: str
    difference: float
    scale: float | None = None
    point: str | None = None
    found: str | None = None
    mismatches: float | None = None
    worst: str | None = None
    silent: str | None = None


class Verification(Record):
    """Result of a verification. `reason` says why it was not run or failed, or what a pass does not prove.

    `metric`, `limit`, `mismatches` and `outputs` are those of the policy that was used.
    """

    status: VerificationStatus
    metric: str = "maxRelative"
    limit: float | None = None
    mismatches: float | None = None
    outputs: Mapping[str, OutputGate] | None = None
    differences: tuple[OutputDifference, ...] = ()
    reason: str = ""


def check_outputs(policy: VerificationPolicy, outputs: Iterable[str]) -> None:
    """Refuse limits of outputs that the model does not have.

    Raises:
        SpecError: `UnknownOutput`.
    """
    known = tuple(dict.fromkeys(outputs))
    for name in policy.outputs or {}:
        if name not in known:
            raise SpecError(
                "the model has no such output",
                where=f"verification.outputs.{name}",
                why=f"it has {', '.join(known)}",
                remedy="correct verification.outputs",
                reason="UnknownOutput",
            )
