"""Results of a preparation: facts about a model that are found on a CPU before a build uses a GPU."""

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
    """Source of an ONNX model.

    Attributes:
        uri: URI of the model (file, http(s), s3, gs, oss, oci, hf or ms); a plain path in local mode.
        sha256: Digest that the user expects. It is the digest of the model file alone if the weights are in separate
            files.
        options: Options of the source's client (endpoint, region). Credentials come from the environment and are never
            here.
        signature: File with the signature, relative to the model's folder, or "cosign". None stands for
            `signatures.DEFAULT_SIGNATURE`.
        signers: Public keys in PEM, by name. One of them must have signed the model. If None, no signature is checked.
    """

    uri: str
    sha256: str | None = None
    options: Mapping[str, str] = {}
    signature: str | None = None
    signers: Mapping[str, str] | None = None


class PreparationRequest(Record):
    """Everything a preparation depends on.

    Attributes:
        preprocess: Normalisation of image inputs that is added to the prepared model. Profiles and input values then
            describe the pixels.
        memory_bytes: Memory budget of one reference run in bytes. A profile that needs more is `unverified`.
        seconds: Time budget of all reference runs together.
        tensorrt_versions: TensorRT versions to give operator advice for.
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
        answer_bytes: Size of all outputs in a response. None if the model did not run, or an older release ran it.
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
        profile: First profile that allows the shapes of the inputs.
        point: "min", "opt" or "max", or the name of the sample.
        kind: Where the inputs come from; None if they are generated.
    """

    profile: str
    point: str
    file: StoredFile
    kind: ReferenceKind | None = None

    @property
    def is_sample(self) -> bool:
        """Whether the inputs are one of the user's held-out samples."""
        return self.kind is ReferenceKind.SAMPLE


class Batching(Record):
    """Proof that f(a then b) = f(a) then f(b) on the first dimension. Batching is off without it."""

    proved: bool
    max_batch_size: int = 0
    reason: str = ""


class Advice(Record):
    """A possible problem of one node. It is not a verdict, because only the builder's parser knows.

    Attributes:
        source: "table" (operators by TensorRT version) or "tensorrt-rtx" (message of that parser).
    """

    tensorrt: str
    node: str
    op: str
    source: str
    message: str


class Refusal(Record):
    """A node that TensorRT refuses or builds with another meaning. ONNX Runtime supports it.

    Attributes:
        node: Name of the node, or of the tensor if it is an input or output.
        op: Operator of the node; "input" or "output" for a tensor.
        message: Clause about the node that says what is wrong.
        remedy: Action that helps, as an imperative.
    """

    node: str
    op: str
    message: str
    remedy: str


class Preparation(Record):
    """The result of a preparation, from which every build of this model starts.

    Attributes:
        source_digest: Digest of the model and its external weights, as fetched.
        facts: Facts about the prepared model. Clients see its inputs and outputs.
        structure_digest: Digest of the prepared model without the values of its weights. An engine with the same
            structure can be refitted instead of a build. None if an older release prepared the model.
        model: Files of the prepared model, the ONNX file first.
        onnxruntime_model: Files of the model for ONNX Runtime, whose INT8 kernels need another graph than TensorRT;
            None if ONNX Runtime uses `model`.
        calibration_digest: Digest of the calibration data; None if there is none.
        profiles: Profiles of the request, or one profile with the shapes of a static model.
        precision: Precision policy of the preparation. The default limits of the verification follow from it.
        own_precisions: Precisions among FP16, BF16, INT8 and FP8 that the source model itself computes in, for the
            limit.
        rounding: Difference of each output, by name, when the last bits of inputs and weights change; None if it was
            not measured.
        kept: Nodes that stayed in a higher precision, each with the reason.
        onnxruntime_kept: Nodes of `onnxruntime_model` that stayed in a higher precision; None if an older release
            prepared the model, or there is no such model.
        auto_keep: Result of the search for nodes to keep; None if the request has no search.
        first_fall: First tensor of the quantised model whose SQNR falls, on held-out samples; None if no SQNR falls.
        onnxruntime_first_fall: First tensor of `onnxruntime_model` whose SQNR falls; None if no SQNR falls.
        refusals: Nodes that no TensorRT builder accepts. A build for TensorRT fails because of them before it starts.
        warnings: Warnings for the user, one line each; see `warnings_for`.
        tensorrt_warnings: Warnings that apply to `model` but not to `onnxruntime_model`.
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
        """Return the warnings about the models that backends build from."""
        backends = tuple(dict.fromkeys(backends))
        of_tensorrt = () if all(map(self._is_special, backends)) else self.tensorrt_warnings
        shortfalls = dict.fromkeys(line for one in backends if (line := self.shortfall_for(one)) is not None)
        return (*self.warnings, *of_tensorrt, *shortfalls)

    def shortfall_for(self, backend: Backend) -> str | None:
        """Return why `precision.autoKeep` missed its target in the backend's model, or None if it did not."""
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
        """Return the arithmetic that determines default limits."""
        return Arithmetic(precision=self.precision, own=self.own_precisions, rounding=self.rounding or {})


def describe_refusals(refusals: Iterable[Refusal]) -> tuple[str, ...]:
    """Return one line for each fault and remedy: up to three nodes by name, what is wrong with them, and the remedy."""
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
