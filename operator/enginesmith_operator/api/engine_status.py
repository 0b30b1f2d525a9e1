"""`status` of an InferenceEngine: the operator's memory, and what `kubectl get` shows.

    EngineStatus
    ├── serving, servingOn, targetNames   one line each, for the columns
    ├── model           the source's digest, resolved once
    ├── preparation     what the preparation's pod reported: its Job is gone after a while, this stays
    ├── targets[]       by name: what is wanted, what serves, what was rejected, on which nodes
    └── conditions[]    by type (conditions.py)

Everything here can be found out again but three things: the toolchain that was chosen, the engines that were rejected,
and the nodes that refused.
"""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, field_serializer, field_validator

from enginesmith_contract.backends import Toolchain
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
    "ModelStatus",
    "PreparationPhase",
    "PreparationStatus",
    "RejectedEngine",
    "StoredEngine",
    "TargetEngine",
    "TargetPhase",
    "TargetStatus",
]

MAX_ENGINES: Final = 16
"""Engines of one target that the status keeps: products of the target, or rejected ones."""
MAX_NODES: Final = 32
"""Names of nodes that the status shows; `readyReplicas` counts them all."""

_Line = Annotated[str, Field(max_length=1024)]
_Message = Annotated[str, Field(max_length=MAX_MESSAGE)]
_Reason = Annotated[str, Field(max_length=128)]
_Product = Annotated[str, Field(max_length=63)]
_Hash = Annotated[str, Field(max_length=64)]
_Tries = Annotated[int, Field(ge=0, le=1_000_000)]


class ModelStatus(ApiModel):
    """The model as it was found.

    Attributes:
        uri: that was resolved; another one in the spec is resolved anew.
        digest: of the model and its external weights.
        resolved_at: when it was looked at last.
    """

    uri: Annotated[str, Field(max_length=2048)]
    digest: Sha256
    resolved_at: Timestamp | None = None


class StoredEngine(ApiModel):
    """An engine that the store has.

    Attributes:
        key: of the engine.
        digest: of its files.
    """

    key: Sha256
    digest: Sha256


class PreparationPhase(StrEnum):
    """How far a preparation is."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class PreparationStatus(ApiModel):
    """What the preparation's pod reported.

    Attributes:
        request: the hash in its Job's name; another one means another preparation.
        phase: the short of it.
        key: of the preparation in the store.
        source_digest: of the model and its external weights.
        calibration_digest: of the calibration data.
        size_bytes: of the prepared model and its weights.
        max_batch_size: of joined requests; 0: joining was not proved.
        facts: of the prepared model.
        stored_engines: engines that the store had when the preparation ended, and those built since.
        warnings: what the user should know.
        failure: why there is no preparation.
        finished_at: when it ended.
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
        """Take the empty names of dimensions for none."""
        return _renamed(value, "", None)

    @field_serializer("facts", when_used="json-unless-none")
    def _write_facts(self, facts: ModelFacts) -> object:
        """Write no null into a list: `kubectl describe` would show it as <nil>."""
        return _renamed(facts.model_dump(mode="json", by_alias=True, exclude_none=True), None, "")


def _renamed(facts: object, old: str | None, new: str | None) -> object:
    """Return the document of a model's facts with `new` where a dimension is called `old`."""
    if not isinstance(facts, dict):
        return facts
    changed = dict(facts)
    for end in ("inputs", "outputs"):
        tensors = facts.get(end)
        if isinstance(tensors, list | tuple):
            changed[end] = [_with_symbols(one, old, new) for one in tensors]
    return changed


def _with_symbols(tensor: object, old: str | None, new: str | None) -> object:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("symbols"), list | tuple):
        return tensor
    return tensor | {"symbols": [new if name == old else name for name in tensor["symbols"]]}


class TargetPhase(StrEnum):
    """What becomes of a target, from "no" to serving."""

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
    """One engine of a target: one GPU product, one key.

    Attributes:
        key: that is wanted; omitted while the model's digest is not known.
        digest: of the stored engine.
        product: of the GPU; omitted: none is asked for.
        mig_profile: where the engine is for a slice.
        arch: of the nodes.
        stored: whether the store has it.
        serving: whether the target's pods take it.
        build: name of the EngineBuild.
    """

    key: Sha256 | None = None
    digest: Sha256 | None = None
    product: _Product | None = None
    mig_profile: Annotated[str, Field(max_length=32)] | None = None
    arch: Annotated[str, Field(max_length=32)] = "amd64"
    stored: bool = False
    serving: bool = False
    build: KubernetesName | None = None


class RejectedEngine(ApiModel):
    """An engine that was tried and failed; it is tried again once what its pods are made of changes.

    Attributes:
        key: of the engine.
        reason: one CamelCase word.
        message: the sentence of whoever rejected it.
        node: where that was.
        fingerprint: of what was known of that node; the engine is tried again once that changes.
        made_of: hash of what its pods were made of; the engine is tried again once that changes.
        retry_at: when the engine is tried again although nothing changed; omitted: never, since the engine is wrong.
        tries: how often it failed for a reason that may pass; the pause before the next try doubles with each.
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
    """A node that refused an engine; it is tried again once its GPU, partitions, driver or the engine's pods change.

    Attributes:
        name: of the node.
        reason: one CamelCase word.
        message: the sentence of the pod that refused.
        fingerprint: of what was known of the node when it refused.
        key: of the engine; omitted: whichever.
        made_of: hash of what the pod was made of.
        retry_at: when the node is tried again although nothing changed; omitted: never, since the engine does not fit.
        tries: how often the node failed for a reason that may pass; the pause before the next try doubles with each.
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
    """What becomes of one target.

    Attributes:
        name: of the target.
        phase: the short of it.
        reason: one CamelCase word for programs.
        message: one line for people.
        toolchain: chosen once and kept: version and image that build and serve this target.
        engines: one for each product that the target finds.
        desired: keys of the engines that are to serve.
        serving: keys of the engines that do.
        rejected: engines that were tried and refused.
        excluded: nodes that refused an engine of this target.
        nodes: that its pods are on, the first in order of their names.
        replicas: pods that are wanted; omitted: an autoscaler decides.
        ready_replicas: pods that answer.
        since: when `phase` last changed.
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


class EngineStatus(ApiModel):
    """What the operator found and did; never written by a user.

    Attributes:
        observed_generation: of the spec that was looked at.
        serving: how many targets serve of those that the spec asks to, as `2/3`; a standby stands in for the others.
        serving_on: which hardware serves, the targets in order.
        target_names: names of the targets.
        model: the source as it was found.
        preparation: what the preparation reported.
        targets: what becomes of each target.
        conditions: observations, one of each type.
    """

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    serving: Annotated[str, Field(max_length=63)] = ""
    serving_on: _Line = ""
    target_names: Annotated[str, Field(max_length=4096)] = ""
    model: ModelStatus | None = None
    preparation: PreparationStatus | None = None
    targets: Annotated[tuple[TargetStatus, ...], Field(max_length=MAX_TARGETS)] = ()
    conditions: Annotated[tuple[StatusCondition, ...], Field(max_length=MAX_CONDITIONS)] = ()
