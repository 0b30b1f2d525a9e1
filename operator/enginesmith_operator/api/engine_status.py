"""`status` of an InferenceEngine: what the operator must remember, and what `kubectl get` shows.

    EngineStatus
    ├── serving, servingOn, targetNames   one line each, for the columns
    ├── model           the source's digest, resolved once
    ├── preparation     results of the preparation's pod, kept after its Job is deleted
    ├── refusedPrecisions[]   why a precision of the spec is not used
    ├── inherited[]     values that come from EnginePolicies
    ├── targets[]       by name: engines that should serve, that serve, that were rejected, and nodes
    └── conditions[]    by type (conditions.py)

The operator can compute all of this again, with three exceptions: the chosen toolchain, the rejected engines and the
excluded nodes.
"""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, field_serializer, field_validator

from enginesmith_contract.backends import Precision, Toolchain
from enginesmith_contract.failure import Failure
from enginesmith_contract.tensors import ModelFacts
from enginesmith_operator.api.base import ApiModel
from enginesmith_operator.api.conditions import MAX_CONDITIONS, MAX_MESSAGE, StatusCondition, Timestamp
from enginesmith_operator.api.scalars import KubernetesName, Name, Sha256
from enginesmith_operator.api.targets import MAX_TARGETS

__all__ = [
    "MAX_ENGINES",
    "MAX_NODES",
    "EngineStatus",
    "ExcludedNode",
    "InheritedDefault",
    "ModelStatus",
    "PrecisionRefusal",
    "PreparationPhase",
    "PreparationStatus",
    "RejectedEngine",
    "StoredEngine",
    "TargetEngine",
    "TargetPhase",
    "TargetStatus",
]

MAX_ENGINES: Final = 16
"""Maximum number of engines of one target in each list of the status."""
MAX_NODES: Final = 32
"""Maximum number of node names in each list of the status; `readyReplicas` counts the pods of all nodes."""

_Line = Annotated[str, Field(max_length=1024)]
_Message = Annotated[str, Field(max_length=MAX_MESSAGE)]
_Reason = Annotated[str, Field(max_length=128)]
_Product = Annotated[str, Field(max_length=63)]
_Hash = Annotated[str, Field(max_length=64)]
_Tries = Annotated[int, Field(ge=0, le=1_000_000)]


class ModelStatus(ApiModel):
    """Model as it was resolved.

    Attributes:
        uri: URI that was resolved. If `spec.model.uri` changes, it is resolved again.
        digest: SHA-256 over the model file and its external weights.
        resolved_at: Time at which the source was last checked.
    """

    uri: Annotated[str, Field(max_length=2048)]
    digest: Sha256
    resolved_at: Timestamp | None = None


class StoredEngine(ApiModel):
    """Engine that the store has.

    Attributes:
        key: Key of the stored engine.
        digest: SHA-256 of the stored engine file.
    """

    key: Sha256
    digest: Sha256


class PreparationPhase(StrEnum):
    """Phase of a preparation."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class PreparationStatus(ApiModel):
    """Results that the preparation's pod reported.

    Attributes:
        request: Hash of the preparation request, which is part of the Job's name. Another hash means another
            preparation.
        phase: Current phase of the preparation.
        key: Key of the preparation in the store.
        source_digest: SHA-256 over the model file and its external weights.
        calibration_digest: SHA-256 of the calibration data.
        size_bytes: Size of the prepared model and its weights in bytes.
        max_batch_size: Largest batch that joined requests may form. 0 if joined requests were not proved to give the
            same outputs.
        facts: Inputs, outputs and other facts of the prepared model.
        stored_engines: Engines that the store had when the preparation ended, and engines built since then.
        warnings: Warnings about the model, one line each.
        failure: Reason why the preparation failed. Omitted unless it failed.
        finished_at: Time at which the preparation ended.
    """

    request: Annotated[str, Field(max_length=64)]
    phase: PreparationPhase = PreparationPhase.PENDING
    key: Sha256 | None = None
    source_digest: Sha256 | None = None
    calibration_digest: Sha256 | None = None
    size_bytes: Annotated[int, Field(ge=0)] | None = None
    max_batch_size: Annotated[int, Field(ge=0)] = 0
    facts: ModelFacts | None = None
    stored_engines: Annotated[tuple[StoredEngine, ...], Field(max_length=256)] = ()
    warnings: Annotated[tuple[_Line, ...], Field(max_length=64)] = ()
    failure: Failure | None = None
    finished_at: Timestamp | None = None

    @field_validator("facts", mode="before")
    @classmethod
    def _read_facts(cls, value: object) -> object:
        """Parse the empty name of a dimension as None."""
        return _renamed(value, "", None)

    @field_serializer("facts", when_used="json-unless-none")
    def _write_facts(self, facts: ModelFacts) -> object:
        """Write an empty name in place of null, which `kubectl describe` would show as <nil>."""
        return _renamed(facts.model_dump(mode="json", by_alias=True, exclude_none=True), None, "")


def _renamed(facts: object, old: str | None, new: str | None) -> object:
    """Return the document of a model's facts with `new` in place of each dimension name `old`."""
    if not isinstance(facts, dict):
        return facts
    changed = dict(facts)
    for end in ("inputs", "outputs"):
        tensors = facts.get(end)
        if isinstance(tensors, list | tuple):
            changed[end] = [_with_symbols(tensor, old, new) for tensor in tensors]
    return changed


def _with_symbols(tensor: object, old: str | None, new: str | None) -> object:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("symbols"), list | tuple):
        return tensor
    return tensor | {"symbols": [new if name == old else name for name in tensor["symbols"]]}


class PrecisionRefusal(ApiModel):
    """Precision of the spec that a later one of `precision.fallback` replaces.

    Attributes:
        precision: Precision that is not used.
        reason: One CamelCase word for programs that says why the precision is not used.
        message: Error message of the preparation or of the build, or the measured latencies.
        made_of: Hash of the parts of the spec that the precision was tried with. It is tried again when they change.
        source_digest: SHA-256 over the model file and its external weights. The precision is tried again when it
            changes.
        build: Name of the failed EngineBuild. The precision is tried again when the object is deleted.
        key: Key of the engine that was refused.
    """

    precision: Precision
    reason: _Reason
    message: _Line = ""
    made_of: _Hash = ""
    source_digest: Sha256 | None = None
    build: KubernetesName | None = None
    key: Sha256 | None = None


class TargetPhase(StrEnum):
    """Phase of a target, from refused to serving."""

    REFUSED = "Refused"
    PREPARING = "Preparing"
    BUILDING = "Building"
    WAITING_FOR_GPU = "WaitingForGPU"
    ROLLING_OUT = "RollingOut"
    SERVING = "Serving"
    STANDBY = "Standby"
    IDLE = "Idle"
    FAILED = "Failed"


class TargetEngine(ApiModel):
    """One engine of a target: one GPU product, one engine key.

    Attributes:
        key: Engine key. Omitted while the model's digest is unknown.
        digest: SHA-256 of the stored engine file.
        product: GPU product that the engine is for. Omitted if the engine needs no GPU.
        mig_profile: MIG profile of the slice that the engine is for, such as `1g.10gb`. Omitted for a whole GPU.
        arch: CPU architecture of the nodes as Kubernetes spells it, such as `amd64` or `arm64`.
        stored: Whether the store has the engine.
        serving: Whether the target's pods serve the engine.
        serving_quick: Whether the target's pods serve the engine's quick version (`spec.build.quickStart`) until the
            engine is built.
        build: Name of the EngineBuild that builds the engine.
    """

    key: Sha256 | None = None
    digest: Sha256 | None = None
    product: _Product | None = None
    mig_profile: Annotated[str, Field(max_length=32)] | None = None
    arch: Annotated[str, Field(max_length=32)] = "amd64"
    stored: bool = False
    serving: bool = False
    serving_quick: bool = False
    build: KubernetesName | None = None


class RejectedEngine(ApiModel):
    """Engine that was tried and failed. It is tried again when the configuration of its pods changes.

    Attributes:
        key: Key of the rejected engine.
        reason: One CamelCase word for programs that says why the engine was rejected.
        message: Error message from the process that rejected the engine.
        node: Name of the node on which the engine was rejected.
        fingerprint: Hash of the GPU product, driver and GPU partitions of the node that rejected the engine. The engine
            is tried again when it changes.
        made_of: Hash of the configuration of the engine's pods. The engine is tried again when it changes.
        retry_at: Time at which the engine is tried again although nothing changed. If omitted, the failure is
            permanent.
        tries: Number of temporary failures of the engine. The pause before the next attempt doubles with each one.
    """

    key: Sha256
    reason: _Reason
    message: _Message = ""
    node: Annotated[str, Field(max_length=253)] = ""
    fingerprint: _Hash = ""
    made_of: _Hash = ""
    retry_at: Timestamp | None = None
    tries: _Tries = 0


class ExcludedNode(ApiModel):
    """Node that refused an engine. It is tried again when its GPU, its driver or the engine's pods change.

    Attributes:
        name: Name of the excluded node.
        reason: One CamelCase word for programs that says why the node was excluded.
        message: Error message from the pod that refused the engine.
        fingerprint: Hash of the node's GPU product, driver and GPU partitions when it refused the engine.
        key: Key of the refused engine. If omitted, the node is excluded for every engine.
        made_of: Hash of the configuration of the pod that refused the engine.
        retry_at: Time at which the node is tried again although nothing changed. If omitted, the engine does not fit
            the node.
        tries: Number of temporary failures on the node. The pause before the next attempt doubles with each one.
    """

    name: Annotated[str, Field(max_length=253)]
    reason: _Reason
    message: _Message = ""
    fingerprint: _Hash = ""
    key: Sha256 | None = None
    made_of: _Hash = ""
    retry_at: Timestamp | None = None
    tries: _Tries = 0


class TargetStatus(ApiModel):
    """Observed state of one target.

    Attributes:
        name: Name of the target.
        phase: Current phase of the target.
        reason: One CamelCase word for programs that says why the target is in this phase.
        message: One line of text for people that explains the reason.
        toolchain: Toolchain version and image that build and serve this target. They are chosen once and kept.
        engines: Engines of the target, one for each GPU product that its nodes have.
        desired: Keys of the engines that should serve.
        serving: Keys of the engines that are serving.
        rejected: Engines that were tried and rejected.
        excluded: Nodes that refused an engine of this target.
        nodes: Names of the nodes that run the target's pods, in alphabetical order, at most 32.
        replicas: Number of pods that should run. Omitted if an autoscaler decides.
        ready_replicas: Number of pods that are Ready.
        since: Time at which `phase` last changed.
    """

    name: Name
    phase: TargetPhase
    reason: _Reason = ""
    message: _Message = ""
    toolchain: Toolchain | None = None
    engines: Annotated[tuple[TargetEngine, ...], Field(max_length=MAX_ENGINES)] = ()
    desired: Annotated[tuple[Sha256, ...], Field(max_length=MAX_ENGINES)] = ()
    serving: Annotated[tuple[Sha256, ...], Field(max_length=MAX_ENGINES)] = ()
    rejected: Annotated[tuple[RejectedEngine, ...], Field(max_length=MAX_ENGINES)] = ()
    excluded: Annotated[tuple[ExcludedNode, ...], Field(max_length=MAX_NODES)] = ()
    nodes: Annotated[tuple[KubernetesName, ...], Field(max_length=MAX_NODES)] = ()
    replicas: Annotated[int, Field(ge=0)] | None = None
    ready_replicas: Annotated[int, Field(ge=0)] = 0
    since: Timestamp | None = None


class InheritedDefault(ApiModel):
    """Field that the spec leaves out, with the default of an EnginePolicy.

    Attributes:
        field: Path of the field.
        value: Value that is used.
        policy: Name of the EnginePolicy, or names if several give the same default.
    """

    field: Annotated[str, Field(max_length=63)]
    value: _Line
    policy: _Line


class EngineStatus(ApiModel):
    """Observed state of the InferenceEngine, written by the operator.

    Attributes:
        observed_generation: Value of `metadata.generation` that this status describes.
        serving: Number of targets that serve, out of those that should, as `2/3`. A standby that replaces all of them
            counts as one.
        serving_on: Hardware that serves, in the order of the targets.
        target_names: Names of the targets, separated by commas.
        model: Model as it was resolved.
        preparation: Results that the preparation's pod reported.
        refused_precisions: Precisions of the spec that are not used, in its order.
        inherited: Fields that the spec leaves out and whose values come from EnginePolicies.
        targets: Observed state of each target.
        conditions: Observations of the object's state, one for each condition type.
    """

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    serving: Annotated[str, Field(max_length=63)] = ""
    serving_on: _Line = ""
    target_names: Annotated[str, Field(max_length=4096)] = ""
    model: ModelStatus | None = None
    preparation: PreparationStatus | None = None
    refused_precisions: Annotated[tuple[PrecisionRefusal, ...], Field(max_length=5)] = ()
    inherited: Annotated[tuple[InheritedDefault, ...], Field(max_length=16)] = ()
    targets: Annotated[tuple[TargetStatus, ...], Field(max_length=MAX_TARGETS)] = ()
    conditions: Annotated[tuple[StatusCondition, ...], Field(max_length=MAX_CONDITIONS)] = ()
