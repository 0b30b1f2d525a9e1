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
    """The limits of one output, in place of those of all outputs.

    Attributes:
        limit: the largest ratio that passes; an output of integers or ids with a limit and without `mismatches` is
            judged by ratio, and not by equality.
        mismatches: the largest share of integers, ids and booleans that may differ.
    """

    limit: float | None = None
    mismatches: float | None = None


class VerificationPolicy(Record):
    """Comparison of an engine's outputs with reference outputs. An engine beyond the limit is not served.

    Attributes:
        metric: `maxRelative` is max|a-b| / max|b| over one output, b the reference; over one slice of it where slices
            have ranges of their own.
        limit: the largest ratio that passes; None: by precision (see default_limit in the build's verify module).
        mismatches: the largest share of integers, ids and booleans that may differ; None: 0.
        inputs: how inputs are filled, by name; others are uniform in [0, 1], integers in what the model bears.
        outputs: limits of single outputs, by name.
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
    """The largest difference of one output over all references of one profile.

    An output that holds measures and ids has two: one of each kind.

    Attributes:
        difference: max|a-b| / max|b| (no unit); of ids and integers, too, which are judged by `mismatches`.
        scale: the largest absolute value in the references, in the output's own unit; None: not kept.
        point: where in the profile the difference was found ("min", "opt" or "max"); None: not kept.
        found: why nothing can be compared (NaN, another shape); None: it can be.
        mismatches: share of integers, ids and booleans that differ; None: judged by ratio.
        worst: the worst element with both values, in words; None: nothing differs, or it was not kept.
        silent: what of the output is too near to zero to be verified, in words; None: nothing.
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
    """What the gate found. `reason` says in a sentence why it was not run or failed, or what a pass does not prove.

    `metric`, `limit`, `mismatches` and `outputs` are those of the policy that it was judged by.
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
