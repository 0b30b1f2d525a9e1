"""`EngineBuild`: one build of one engine for one target. Its spec never changes; another build is another object.

    EngineBuild
    ├── spec: request                what is built: the builder's own request  (enginesmith_contract.build_request)
    │         image, store           with what, and where the result goes
    │         placement              on which hardware                         (BuildPlacement)
    │         backoffLimit, ...      how often, how long it stays
    └── status: phase, conditions    how far it is, or why it failed
              result                 digest, accuracy, latency

The operator makes one for each engine that the store lacks; a CI pipeline may write its own.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field

from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.verification import VerificationStatus
from enginesmith_operator.api.base import ApiModel
from enginesmith_operator.api.conditions import MAX_CONDITIONS, MAX_MESSAGE, StatusCondition, Timestamp
from enginesmith_operator.api.metadata import ObjectMetadata
from enginesmith_operator.api.model import SecretReference
from enginesmith_operator.api.pod_template import (
    EnvVar,
    LabelName,
    LabelValue,
    LocalObjectReference,
    ResourceRequirements,
    Toleration,
)
from enginesmith_operator.api.scalars import KubernetesName, Name, Sha256, Text
from enginesmith_operator.api.store import StoreSpec

__all__ = [
    "BuildFailure",
    "BuildPhase",
    "BuildPlacement",
    "BuildResult",
    "EngineBuild",
    "EngineBuildSpec",
    "EngineBuildStatus",
    "NodeLabel",
]

API_VERSION: Final = "enginesmith.io/v1alpha1"
_MAX_LOG: Final = 8192


class NodeLabel(ApiModel):
    """A label that a node has.

    Attributes:
        label: its key.
        value: its value.
        also: further labels that the same node has.
    """

    label: LabelName
    value: LabelValue
    also: Annotated[Mapping[LabelName, LabelValue], Field(max_length=32)] = {}


class BuildPlacement(ApiModel):
    """On which hardware the build runs, exactly.

    Attributes:
        pins: the node must have at least one of these labels; omitted: any node.
        arch: of the node, as Kubernetes spells it.
        node_selector: labels that the node must have beside.
        avoid_nodes: names of nodes that have the label and not the hardware to itself.
        gpu_resource: extended resource, of which the build takes one; omitted: it needs no GPU.
        tolerations: taints to put up with; that of GPU nodes is tolerated already.
        runtime_class_name: RuntimeClass, such as `nvidia`.
        priority_class_name: PriorityClass of the build's pod.
        queue_name: Kueue's LocalQueue that admits the build.
        service_account_name: ServiceAccount of the pod, which calls no API.
        image_pull_secrets: Secrets for the image's registry.
        env: environment variables of the builder.
        resources: of the builder's container; the GPU itself is added.
    """

    pins: Annotated[tuple[NodeLabel, ...], Field(max_length=32)] = ()
    arch: Annotated[str, Field(min_length=1, max_length=32)] = "amd64"
    node_selector: Annotated[Mapping[LabelName, LabelValue], Field(max_length=32)] = {}
    avoid_nodes: Annotated[tuple[KubernetesName, ...], Field(max_length=64)] = ()
    gpu_resource: LabelName | None = None
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    runtime_class_name: KubernetesName | None = None
    priority_class_name: KubernetesName | None = None
    queue_name: KubernetesName | None = None
    service_account_name: KubernetesName | None = None
    image_pull_secrets: Annotated[tuple[LocalObjectReference, ...], Field(max_length=16)] = ()
    env: Annotated[tuple[EnvVar, ...], Field(max_length=128)] = ()
    resources: ResourceRequirements = ResourceRequirements()


class EngineBuildSpec(ApiModel):
    """What is built, with what, and where. It never changes.

    Attributes:
        target: of the InferenceEngine that wants it.
        request: what the builder is told.
        image: that builds, by digest.
        store: how the pod reaches the store that `request.store` names.
        source_secret: credentials of the place that plugins come from.
        placement: on which hardware.
        backoff_limit: further attempts after a failure that may be the node's; a refusal of the builder is final.
        ttl_seconds_after_finished: how long the Job and its log stay, in seconds.
    """

    target: Name
    request: BuildRequest
    image: Text
    store: StoreSpec
    source_secret: SecretReference | None = None
    placement: BuildPlacement = BuildPlacement()
    backoff_limit: Annotated[int, Field(ge=0, le=20)] = 2
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] = 3600


class BuildPhase(StrEnum):
    """How far a build is."""

    PENDING = "Pending"
    BUILDING = "Building"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class BuildResult(ApiModel):
    """What a build left in the store.

    Attributes:
        engine_digest: SHA-256 of the engine.
        size_bytes: of its files.
        verification: whether its answers were held against the model's.
        difference: the largest measured difference (ratio); omitted: none was measured.
        latency_seconds: of one inference at each profile's opt, in seconds.
        build_seconds: that the builder itself took.
    """

    engine_digest: Sha256
    size_bytes: Annotated[int, Field(ge=0)] | None = None
    verification: VerificationStatus | None = None
    difference: float | None = None
    latency_seconds: Annotated[
        Mapping[Annotated[str, Field(max_length=63)], float], Field(max_length=16, alias="latencySeconds")
    ] = {}
    build_seconds: Annotated[float, Field(ge=0)] | None = None


class BuildFailure(ApiModel):
    """Why a build failed.

    Attributes:
        reason: one CamelCase word.
        message: the whole sentence.
        exit_code: of the builder; omitted: it never ran.
        retry: whether the same attempt may succeed later.
        log_tail: the last lines of its log.
    """

    reason: Annotated[str, Field(min_length=1, max_length=128)]
    message: Annotated[str, Field(max_length=MAX_MESSAGE)]
    exit_code: int | None = None
    retry: bool = False
    log_tail: Annotated[str, Field(max_length=_MAX_LOG)] = ""


class EngineBuildStatus(ApiModel):
    """How far the build is, or how it ended.

    Attributes:
        observed_generation: of the spec that was looked at.
        phase: the short of it.
        progress: the stage that runs.
        node: that the build's pod is or was on.
        image: that really ran, with the digest that the node pulled.
        attempts: pods that were started.
        started_at: when the first container ran.
        finished_at: when the build ended.
        duration_seconds: from start to end, in seconds.
        result: what is in the store now.
        failure: why there is none.
        conditions: observations, one of each type.
    """

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    phase: BuildPhase = BuildPhase.PENDING
    progress: Annotated[str, Field(max_length=256)] = ""
    node: Annotated[str, Field(max_length=253)] = ""
    image: Annotated[str, Field(max_length=2048)] = ""
    attempts: Annotated[int, Field(ge=0)] = 0
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    duration_seconds: Annotated[float, Field(ge=0)] | None = None
    result: BuildResult | None = None
    failure: BuildFailure | None = None
    conditions: Annotated[tuple[StatusCondition, ...], Field(max_length=MAX_CONDITIONS)] = ()


class EngineBuild(ApiModel):
    """One build of one engine for one target; it owns the Job that runs on that hardware.

    Attributes:
        api_version: group and version of this kind.
        kind: of the object.
        metadata: name, namespace, labels and annotations.
        spec: what is built, with what, and where.
        status: how far it is; never written by a user.
    """

    api_version: Literal["enginesmith.io/v1alpha1"] = API_VERSION
    kind: Literal["EngineBuild"] = "EngineBuild"
    metadata: ObjectMetadata
    spec: EngineBuildSpec
    status: EngineBuildStatus = EngineBuildStatus()
