"""How the outputs of an engine are compared with the reference outputs."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

from enginesmith_contract.errors import SpecError
from enginesmith_contract.metric_container import MetricContainer, MetricVerdict
from enginesmith_contract.record import Record

__all__ = [
    "DEFAULT_AGREEMENT",
    "DEFAULT_AGREEMENT_OF_VALUES",
    "GENERATED_INPUTS",
    "Decode",
    "FirstFall",
    "InputValues",
    "OutputAgreement",
    "OutputDifference",
    "OutputGate",
    "Verification",
    "VerificationPolicy",
    "VerificationStatus",
    "check_outputs",
]


DEFAULT_AGREEMENT: Final = 0.97
"""Default share of decoded answers on held-out samples that must be equal to those of the FP32 model.

PP-OCRv4 in INT8 agreed in 0.96 to 0.99 of the answers with good ranges, and in 0.98 to 1.00 with its most sensitive
nodes kept. With one range 50 times too narrow or 100 times too wide it agreed in at most 0.90.
"""

DEFAULT_AGREEMENT_OF_VALUES: Final = 0.9
"""Default share for measures. PP-OCRv4 before the sigmoid agreed in 0.94 to 1.00, with a wrong range in 0.81."""

GENERATED_INPUTS: Final = "generated inputs"
"""Value of `judged_on` for an engine that was verified without samples."""


class Decode(StrEnum):
    """Answer that a client takes from the values of an output."""

    ARGMAX = "argmax"
    """Index of the largest value along the class axis."""
    THRESHOLD = "threshold"
    """Whether a value is above a threshold."""
    IDS = "ids"
    """The value itself: an id, a label or a text."""
    VALUES = "values"
    """A measure. Two values are the same answer if they differ by at most the ratio `limit`."""


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
        agreement: Smallest share of decoded answers that must be the FP32 model's, on held-out samples.
        decode: Answer that a client takes from the output. If None, it is inferred from the reference outputs.
        axis: Class axis of decode `argmax`. If None, it is inferred.
        threshold: Threshold of decode `threshold`. If None, 0.5.
    """

    limit: float | None = None
    mismatches: float | None = None
    agreement: float | None = None
    decode: Decode | None = None
    axis: int | None = None
    threshold: float | None = None


class VerificationPolicy(Record):
    """Comparison of an engine's outputs with reference outputs. An engine beyond the limit is not served.

    Attributes:
        metric: Measure of the difference. `maxRelative` is max|a-b| / max|b| over one output, or over one slice of it
            if slices have different ranges, where b is the reference.
        limit: Largest ratio that passes. If None, it is larger for outputs that amplify rounding errors, and for the
            others it depends on the precision: 0.001 for fp32, 0.01 for tf32 and fp16, 0.08 for bf16, 0.1 for int8,
            0.25 for fp8.
        mismatches: Largest share of integers, ids and booleans that may differ from the references. If None, 0.
        agreement: Smallest share of decoded answers that must be the FP32 model's, on held-out samples. If None, 0.97,
            and 0.9 for measures. It decides for fp16, bf16, int8 and fp8 if there are samples. Only a `limit` or
            `mismatches` that is set then decides as well.
        inputs: Values of inputs, by input name. Other inputs get uniform values in [0, 1], or integers that the model
            accepts.
        outputs: Limits of single outputs, by output name.
        metric_container: Container that decides. Of the other limits, only those that are set then decide as well.
    """

    metric: str = "maxRelative"
    limit: float | None = None
    mismatches: float | None = None
    agreement: float | None = None
    inputs: Mapping[str, InputValues] = {}
    outputs: Mapping[str, OutputGate] | None = None
    metric_container: MetricContainer | None = None

    def agreement_of(self, output: str, decode: Decode) -> float:
        """Return the smallest agreement of an output that passes."""
        default = DEFAULT_AGREEMENT_OF_VALUES if decode is Decode.VALUES else DEFAULT_AGREEMENT
        return next(limit for limit in (self.asked_agreement_of(output), default) if limit is not None)

    def asked_agreement_of(self, output: str) -> float | None:
        """Return the smallest agreement of an output that the policy itself sets."""
        own = (self.outputs or {}).get(output, OutputGate()).agreement
        return self.agreement if own is None else own


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
        found: Reason why nothing can be compared (NaN, another shape); None if everything can be compared.
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


class OutputAgreement(Record):
    """Decoded answers of one output over all held-out samples, compared with those of the FP32 model.

    Answers that are the background (the value of most positions, such as blank) in both are not counted. Answers at
    positions of a map or a sequence may move by one position.

    Attributes:
        decode: How answers were taken from values.
        inferred: Reason why `decode` was inferred; None if the policy declares it.
        axis: Class axis of `argmax`.
        threshold: Threshold of `threshold`.
        samples: Number of samples.
        answers: Number of answers that were counted.
        agreement: Share of them that are the same; None if none was counted.
        limit: Smallest agreement that passes.
        worst: Text that names the sample with the most different answers; None if none differs.
        unproved: Reason why the agreement proves little; None if there is none. In that case alarms decide as well.
        cosine: Cosine of all values and the reference's; None if the output has no measures or is zero.
        mean_relative_error: Sum of absolute errors over the sum of absolute reference values, as `cosine`.
        sqnr_db: Signal-to-quantization-noise ratio in decibels, as `cosine`; None if no value differs.
        found: Fault that decides by itself (NaN, infinity, another shape), with the sample's name; None if none.
    """

    output: str
    decode: Decode
    inferred: str | None = None
    axis: int | None = None
    threshold: float | None = None
    samples: int
    answers: int
    agreement: float | None = None
    limit: float | None = None
    worst: str | None = None
    unproved: str | None = None
    cosine: float | None = None
    mean_relative_error: float | None = None
    sqnr_db: float | None = None
    found: str | None = None

    def decoded_by(self) -> str:
        """Return how answers were taken from values, and why, as text."""
        axis = "" if self.axis is None else f" along axis {self.axis}"
        threshold = "" if self.threshold is None else f" {self.threshold:g}"
        return f"{self.decode}{axis}{threshold}, {f'inferred: {self.inferred}' if self.inferred else 'declared'}"


class FirstFall(Record):
    """First tensor of the prepared model whose signal-to-quantization-noise ratio (SQNR) falls.

    Attributes:
        tensor: Name of the tensor in the model.
        node: Node that makes the tensor, or that quantises it if its range is at fault.
        op: Operator of the node.
        sqnr_db: SQNR of the tensor in decibels, over a few samples.
        before_db: SQNR of the inputs of the node in decibels.
        range: Largest absolute value that the quantised tensor can hold; None if it is not quantised.
        largest: Largest absolute value that the samples have there; None if it is not quantised.
    """

    tensor: str
    node: str
    op: str
    sqnr_db: float
    before_db: float
    range: float | None = None
    largest: float | None = None

    def sentence(self) -> str:
        """Return the tensor and its fall as text."""
        words = f"tensor {self.tensor!r} ({self.op} {self.node!r}): {self.sqnr_db:.1f} dB after {self.before_db:.1f} dB"
        if self.range is None or self.largest is None:
            return words
        return f"{words}; its range is {self.range:.3g}, the values of the samples reach {self.largest:.3g}"


class Verification(Record):
    """Result of a verification. `reason` says why it was not run or failed, or what a pass does not prove.

    `metric`, `limit`, `mismatches`, `agreement` and `outputs` are those of the policy that was used. If there are
    agreements, they decide, and a `limit` that is None was an alarm only.

    Attributes:
        judged_on: Inputs of the run: "generated inputs", inputs of files, or the number of held-out samples; None if it
            was not run.
        agreements: Agreement of each output on the held-out samples; None if there are none.
        alarms: Suspicious measures that do not decide, and a note if there are few samples, one sentence each; None if
            there are none.
        first_fall: First tensor whose SQNR falls; None if none does, or if it was not looked for.
        shortfall: Text on what `precision.autoKeep` did not reach; None if it reached its aim, or was not asked for.
        metric_verdict: Verdict of the user's metric; None if there is no metric.
    """

    status: VerificationStatus
    metric: str = "maxRelative"
    limit: float | None = None
    mismatches: float | None = None
    agreement: float | None = None
    outputs: Mapping[str, OutputGate] | None = None
    differences: tuple[OutputDifference, ...] = ()
    reason: str = ""
    judged_on: str | None = None
    agreements: tuple[OutputAgreement, ...] | None = None
    alarms: tuple[str, ...] | None = None
    first_fall: FirstFall | None = None
    shortfall: str | None = None
    metric_verdict: MetricVerdict | None = None

    @property
    def least_agreement(self) -> float | None:
        """Return the smallest agreement over all outputs, or None if none was measured."""
        shares = [one.agreement for one in self.agreements or () if one.agreement is not None]
        return min(shares, default=None)


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
