"""What a CPU finds out about a model before any GPU is taken."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

from enginesmith_contract.backends import Precision, PrecisionPolicy
from enginesmith_contract.profiles import Profile
from enginesmith_contract.record import Record
from enginesmith_contract.store_layout import StoredFile
from enginesmith_contract.tensors import ModelFacts
from enginesmith_contract.verification import VerificationPolicy

__all__ = [
    "Advice",
    "Batching",
    "Exercise",
    "ExerciseStatus",
    "ModelSource",
    "Preparation",
    "PreparationRequest",
    "ReferenceSet",
    "Refusal",
    "describe_refusals",
]


_MOST_NAMED: Final = 3


class ModelSource(Record):
    """Where an ONNX model comes from.

    Attributes:
        uri: file, http(s), s3, gs, oss, oci or hf; a plain path in local mode.
        sha256: the digest that the user expects; of the model file alone where the weights are in separate files.
        options: passed to the source's client (endpoint, region); never credentials, which come by environment.
    """

    uri: str
    sha256: str | None = None
    options: Mapping[str, str] = {}


class PreparationRequest(Record):
    """All that a preparation depends on.

    Attributes:
        memory_bytes: budget of one reference run; a profile that needs more is `unverified`.
        seconds: budget of all reference runs together.
        tensorrt_versions: operator advice is given for each.
    """

    source: ModelSource
    profiles: tuple[Profile, ...] = ()
    precision: PrecisionPolicy = PrecisionPolicy()
    verification: VerificationPolicy = VerificationPolicy()
    memory_bytes: int = 4 << 30
    seconds: float = 300.0
    tensorrt_versions: tuple[str, ...] = ()


class ExerciseStatus(StrEnum):
    """Whether the model was seen to run with a shape."""

    PASSED = "passed"
    UNVERIFIED = "unverified"


class Exercise(Record):
    """One run of the model in ONNX Runtime at one point of a profile ("min", "opt" or "max").

    Attributes:
        answer_bytes: of all outputs as they travel. None: it did not run, or an older release ran it.
    """

    profile: str
    point: str
    status: ExerciseStatus
    seconds: float | None = None
    reason: str = ""
    answer_bytes: int | None = None


class ReferenceSet(Record):
    """Inputs and FP32 outputs of one exercise, as an .npz blob with keys `input:<name>` and `output:<name>`."""

    profile: str
    point: str
    file: StoredFile


class Batching(Record):
    """Whether f(a then b) = f(a) then f(b) on the first dimension was shown; batching is off unless it was."""

    proved: bool
    max_batch_size: int = 0
    reason: str = ""


class Advice(Record):
    """A doubt about one node, never a verdict: only the builder's parser knows.

    Attributes:
        source: "table" (operators by TensorRT version) or "tensorrt-rtx" (that parser's own word).
    """

    tensorrt: str
    node: str
    op: str
    source: str
    message: str


class Refusal(Record):
    """A node that TensorRT refuses, or builds as something else; ONNX Runtime takes it.

    Attributes:
        node: its name; the tensor's name for an input or output.
        op: its operator; "input" or "output" for a tensor.
        message: what is wrong, as a clause about the node.
        remedy: the cure, as an imperative.
    """

    node: str
    op: str
    message: str
    remedy: str


class Preparation(Record):
    """The result of a preparation: what every build of this model starts from.

    Attributes:
        source_digest: of the model and its external weights, as fetched.
        facts: of the prepared model; its inputs and outputs are what clients see.
        structure_digest: of the prepared model without its weights' values; an engine of the same one can be refitted
            in place of a build. None: an older release prepared it.
        model: the prepared model's files, the ONNX file first.
        profiles: the request's, or the static model's own shapes as one profile.
        precision: the policy that the model was prepared with; the verification's default limit follows from it.
        own_precisions: FP16 and BF16, where nodes of the source compute in them; as `precision`, for the limit.
        kept: nodes that stayed in FP32, with the reason.
        refusals: what no TensorRT builder takes: a build for one ends on them before it starts.
        warnings: one line each, for the user.
    """

    schema_version: int = 1
    preparation_key: str
    source_digest: str
    facts: ModelFacts
    structure_digest: str | None = None
    model: tuple[StoredFile, ...]
    profiles: tuple[Profile, ...]
    exercises: tuple[Exercise, ...]
    references: tuple[ReferenceSet, ...]
    batching: Batching
    advice: tuple[Advice, ...] = ()
    precision: PrecisionPolicy = PrecisionPolicy()
    own_precisions: tuple[Precision, ...] = ()
    kept: Mapping[str, str] = {}
    refusals: tuple[Refusal, ...] = ()
    warnings: tuple[str, ...] = ()


def describe_refusals(refusals: Iterable[Refusal]) -> tuple[str, ...]:
    """Return one line for each fault and cure: up to three nodes by name, what is wrong with them, the cure."""
    groups: dict[tuple[str, str], list[Refusal]] = {}
    for refusal in refusals:
        groups.setdefault((refusal.message, refusal.remedy), []).append(refusal)
    return tuple(f"{_name_some(group)}: {message}; {remedy}" for (message, remedy), group in groups.items())


def _name_some(group: list[Refusal]) -> str:
    named = [
        f"{one.op} {one.node!r}" if one.op in {"input", "output"} else f"node {one.node!r} ({one.op})"
        for one in group[:_MOST_NAMED]
    ]
    more = len(group) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
