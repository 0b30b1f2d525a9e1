"""What a CPU finds out about a model before any GPU is taken."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

from enginesmith_contract.auto_keep import AutoKeepResult
from enginesmith_contract.backend_traits import traits
from enginesmith_contract.backends import Backend, Precision, PrecisionPolicy
from enginesmith_contract.limits import Arithmetic
from enginesmith_contract.preprocess import Preprocess
from enginesmith_contract.profiles import Profile
from enginesmith_contract.record import Record
from enginesmith_contract.store_layout import StoredFile
from enginesmith_contract.tensors import ModelFacts
from enginesmith_contract.verification import FirstFall, VerificationPolicy

__all__ = [
    "Advice",
    "Batching",
    "Exercise",
    "ExerciseStatus",
    "ModelSource",
    "Preparation",
    "PreparationRequest",
    "ReferenceKind",
    "ReferenceSet",
    "Refusal",
    "describe_refusals",
]


_MOST_NAMED: Final = 3


class ModelSource(Record):
    """Where an ONNX model comes from.

    Attributes:
        uri: file, http(s), s3, gs, oss, oci, hf or ms; a plain path in local mode.
        sha256: the digest that the user expects; of the model file alone where the weights are in separate files.
        options: passed to the source's client (endpoint, region); never credentials, which come by environment.
        signature: file with the signature, from the model's folder, or "cosign"; None: `signatures.DEFAULT_SIGNATURE`.
        signers: public keys in PEM by name, of which one must have signed the model; None: no signature is looked for.
    """

    uri: str
    sha256: str | None = None
    options: Mapping[str, str] = {}
    signature: str | None = None
    signers: Mapping[str, str] | None = None


class PreparationRequest(Record):
    """All that a preparation depends on.

    Attributes:
        preprocess: normalisation of image inputs that the prepared model has; profiles and input values are those of
            the pixels then.
        memory_bytes: budget of one reference run; a profile that needs more is `unverified`.
        seconds: budget of all reference runs together.
        tensorrt_versions: operator advice is given for each.
    """

    source: ModelSource
    preprocess: tuple[Preprocess, ...] | None = None
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


class ReferenceKind(StrEnum):
    """Where the inputs of a reference come from."""

    GENERATED = "generated"
    SAMPLE = "sample"


class ReferenceSet(Record):
    """Inputs and FP32 outputs of one run, as an .npz blob with keys `input:<name>` and `output:<name>`.

    Attributes:
        profile: first profile that has the inputs' shapes.
        point: "min", "opt" or "max"; the name of the sample where it is one.
        kind: None: generated.
    """

    profile: str
    point: str
    file: StoredFile
    kind: ReferenceKind | None = None

    @property
    def is_sample(self) -> bool:
        """Whether the inputs are a held-out sample of the user's."""
        return self.kind is ReferenceKind.SAMPLE


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
        onnxruntime_model: as `model`, for ONNX Runtime, whose INT8 kernels take another graph than TensorRT's; None:
            it takes `model`.
        calibration_digest: of the calibration data; None where there is none.
        profiles: the request's, or the static model's own shapes as one profile.
        precision: the policy that the model was prepared with; the verification's default limit follows from it.
        own_precisions: of FP16, BF16, INT8 and FP8 those that the source itself computes in, for the limit.
        rounding: by output, its difference when the last bits of inputs and weights change; None: not measured.
        kept: nodes that stayed in a higher precision, with the reason.
        onnxruntime_kept: as `kept`, in `onnxruntime_model`; None: an older release prepared it, or there is none.
        auto_keep: what the search for nodes to keep found; None: it was not asked for.
        first_fall: first tensor of the quantised model whose SQNR falls, on held-out samples; None: none does.
        onnxruntime_first_fall: as `first_fall`, of `onnxruntime_model`.
        refusals: what no TensorRT builder takes: a build for one ends on them before it starts.
        warnings: one line each, for the user; see `warnings_for`.
        tensorrt_warnings: as `warnings`, where they hold for `model` and not for `onnxruntime_model`.
    """

    schema_version: int = 1
    preparation_key: str
    source_digest: str
    facts: ModelFacts
    structure_digest: str | None = None
    model: tuple[StoredFile, ...]
    onnxruntime_model: tuple[StoredFile, ...] | None = None
    calibration_digest: str | None = None
    profiles: tuple[Profile, ...]
    exercises: tuple[Exercise, ...]
    references: tuple[ReferenceSet, ...]
    batching: Batching
    advice: tuple[Advice, ...] = ()
    precision: PrecisionPolicy = PrecisionPolicy()
    own_precisions: tuple[Precision, ...] = ()
    rounding: Mapping[str, float] | None = None
    kept: Mapping[str, str] = {}
    onnxruntime_kept: Mapping[str, str] | None = None
    first_fall: FirstFall | None = None
    onnxruntime_first_fall: FirstFall | None = None
    auto_keep: AutoKeepResult | None = None
    refusals: tuple[Refusal, ...] = ()
    warnings: tuple[str, ...] = ()
    tensorrt_warnings: tuple[str, ...] = ()

    def files_for(self, backend: Backend) -> tuple[StoredFile, ...]:
        """Return the prepared model that a backend builds from, the ONNX file first."""
        return (self.onnxruntime_model or self.model) if self._is_special(backend) else self.model

    def kept_for(self, backend: Backend) -> Mapping[str, str]:
        """Return the nodes that stay in a higher precision in the model that a backend builds from, with reasons."""
        own = self.onnxruntime_kept if self._is_special(backend) else None
        return self.kept if own is None else own

    def first_fall_for(self, backend: Backend) -> FirstFall | None:
        """Return the first tensor whose SQNR falls in the model that a backend builds from."""
        return self.onnxruntime_first_fall if self._is_special(backend) else self.first_fall

    def warnings_for(self, backends: Iterable[Backend]) -> tuple[str, ...]:
        """Return what there is to say of the models that backends build from."""
        backends = tuple(dict.fromkeys(backends))
        of_tensorrt = () if all(map(self._is_special, backends)) else self.tensorrt_warnings
        shortfalls = dict.fromkeys(line for one in backends if (line := self.shortfall_for(one)) is not None)
        return (*self.warnings, *of_tensorrt, *shortfalls)

    def shortfall_for(self, backend: Backend) -> str | None:
        """Return what `precision.autoKeep` did not reach in the model that a backend builds from; None: nothing."""
        if self.auto_keep is None:
            return None
        if self._is_special(backend):
            own = self.auto_keep.onnxruntime
            return None if own is None else self.auto_keep.shortfall("ONNX Runtime", own)
        return self.auto_keep.shortfall("TensorRT", self.auto_keep.tensorrt)

    def _is_special(self, backend: Backend) -> bool:
        """Whether the backend builds from `onnxruntime_model`."""
        return self.onnxruntime_model is not None and bool(traits(backend).execution_providers)

    @property
    def arithmetic(self) -> Arithmetic:
        """Return what default limits follow from."""
        return Arithmetic(precision=self.precision, own=self.own_precisions, rounding=self.rounding or {})


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
