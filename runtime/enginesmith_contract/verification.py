"""How an engine's answers are held against the reference's."""

from collections.abc import Mapping
from enum import StrEnum

from enginesmith_contract.record import Record

__all__ = ["InputValues", "OutputDifference", "Verification", "VerificationPolicy", "VerificationStatus"]


class InputValues(Record):
    """What an input is filled with for the reference run; exactly one of the three ways.

    Attributes:
        range: uniform between the two, both included for integers; token ids stay inside an embedding this way.
        constant: one value everywhere.
        npz: URI of an .npz file with an array of the input's name; its shape must fit a profile.
    """

    range: tuple[float, float] | None = None
    constant: float | None = None
    npz: str | None = None


class VerificationPolicy(Record):
    """The gate of an engine.

    Attributes:
        metric: `maxRelative` is max|a-b| / max|b| over one output, b the reference.
        limit: the largest difference that passes; None: by precision (see default_limit in the build's verify module).
        inputs: how inputs are filled, by name; others are uniform in [0, 1], integers in what the model bears.
    """

    metric: str = "maxRelative"
    limit: float | None = None
    inputs: Mapping[str, InputValues] = {}


class VerificationStatus(StrEnum):
    """`NOT_RUN`: no hardware here could run it; the runtime verifies against the stored references before Ready."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "notRun"


class OutputDifference(Record):
    """The largest difference of one output over all references of one profile (ratio, no unit).

    Attributes:
        scale: the largest absolute value in the references, in the output's own unit; None: not kept.
        point: where in the profile the difference was found ("min", "opt" or "max"); None: not kept.
        found: why nothing can be compared (NaN, another shape); None: it can be.
    """

    output: str
    profile: str
    difference: float
    scale: float | None = None
    point: str | None = None
    found: str | None = None


class Verification(Record):
    """What the gate found. `reason` says in a sentence why it was not run or failed, or what a pass does not prove."""

    status: VerificationStatus
    metric: str = "maxRelative"
    limit: float | None = None
    differences: tuple[OutputDifference, ...] = ()
    reason: str = ""
