"""`EngineBuild`: one build of one engine for one target. Its spec is immutable; another build is another object.

    EngineBuild
    ├── spec: request                input of the builder                  (enginesmith_contract.build_request)
    │         image, store           runtime image, and store of the result
    │         placement              hardware of the build                 (BuildPlacement)
    │         backoffLimit, ...      retries, and how long the Job is kept
    └── status: phase, conditions    progress, or the reason of the failure
              result                 digest, accuracy, latency

The operator creates one for each engine that the store lacks. A CI pipeline may create its own.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field

from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.timing_cache import TimingCacheUse
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
from enginesmith_operator.api.scalars import KubernetesName, Name, PriorityClassName, Sha256, Text
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
    """Label that a node has.

    Attributes:
        label: Key of the node label.
        value: Value of the node label.
        also: Additional labels that the same node has.
    """

    label: LabelName
    value: LabelValue
    also: Annotated[Mapping[LabelName, LabelValue], Field(max_length=32)] = {}


class BuildPlacement(ApiModel):
    """Exact hardware on which the build runs, and settings of its pod.

    Attributes:
        pins: Node labels of which the node must have at least one. If omitted, any node is suitable.
        arch: CPU architecture of the node as Kubernetes spells it, such as `amd64` or `arm64`.
        node_selector: Additional labels the node must have.
        avoid_nodes: Names of nodes that have the labels but must not run the build, for example because their GPUs are
            shared.
        gpu_resource: Extended resource, such as `nvidia.com/gpu`, of which the build takes one. If omitted, the build
            needs no GPU.
        tolerations: Taints that the pod tolerates. The taint `nvidia.com/gpu` is always tolerated.
        runtime_class_name: Name of the pod's RuntimeClass, such as `nvidia`.
        priority_class_name: Name of the PriorityClass of the build's pod.
        queue_name: Name of the Kueue LocalQueue that admits the build.
        service_account_name: Name of the pod's ServiceAccount. The pod does not call the Kubernetes API.
        image_pull_secrets: Secrets with credentials for the image's registry.
        env: Environment variables of the builder.
        resources: CPU, memory and other resources of the builder's container. The GPU is added automatically.
        metric_resources: CPU, memory and local storage of the metric container. Omitted if there is none.
    """

    pins: Annotated[tuple[NodeLabel, ...], Field(max_length=32)] = ()
    arch: Annotated[str, Field(min_length=1, max_length=32)] = "amd64"
    node_selector: Annotated[Mapping[LabelName, LabelValue], Field(max_length=32)] = {}
    avoid_nodes: Annotated[tuple[KubernetesName, ...], Field(max_length=64)] = ()
    gpu_resource: LabelName | None = None
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    runtime_class_name: KubernetesName | None = None
    priority_class_name: PriorityClassName | None = None
    queue_name: KubernetesName | None = None
    service_account_name: KubernetesName | None = None
    image_pull_secrets: Annotated[tuple[LocalObjectReference, ...], Field(max_length=16)] = ()
    env: Annotated[tuple[EnvVar, ...], Field(max_length=128)] = ()
    resources: ResourceRequirements = ResourceRequirements()
    metric_resources: ResourceRequirements | None = None


class EngineBuildSpec(ApiModel):
    """Engine to build, with the image, the store and the hardware of the build. The spec is immutable.

    Attributes:
        target: Name of the target, in the InferenceEngine, that needs the engine.
        request: Input of the builder: the engine key, everything that the key is computed from, and the build options.
        image: Runtime image that runs the build, pinned by digest.
        store: Store that `request.store` names, with what the pod needs to reach it.
        source_secret: Secret with credentials for downloading plugins.
        placement: Exact hardware on which the build runs, and settings of its pod.
        backoff_limit: Number of retries after a failure that the node may have caused. A build that the builder refuses
            is not retried.
        ttl_seconds_after_finished: Seconds for which the Job and its log are kept after the build ends.
        awaits_preparation: Whether the builder may start before the store has the preparation. It waits for it for up
            to 120 s, with its GPU.
    """

    target: Name
    request: BuildRequest
    image: Text
    store: StoreSpec
    source_secret: SecretReference | None = None
    placement: BuildPlacement = BuildPlacement()
    backoff_limit: Annotated[int, Field(ge=0, le=20)] = 2
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] = 3600
    awaits_preparation: bool | None = None


class BuildPhase(StrEnum):
    """Phase of a build."""

    PENDING = "Pending"
    BUILDING = "Building"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class BuildResult(ApiModel):
    """Engine that the build stored, with measurements.

    Attributes:
        engine_digest: SHA-256 of the engine file.
        size_bytes: Size of the engine's files in bytes.
        verification: Result of the comparison of the engine's outputs with the references.
        difference: Largest difference from the references, as a ratio. Omitted if none was measured.
        agreement: Smallest agreement of one output with the FP32 model on held-out samples, as a share of the answers.
            Omitted if there are no samples.
        judged_on: Inputs that the verification ran on, such as `generated inputs` or `24 held-out samples`.
        warning: Text on measures that look wrong, and on what the verification does not show. Omitted if there
            are none.
        metric: Value of the metric container. Omitted if there is none.
        latency_seconds: Latency of one inference in seconds at the `opt` shapes, by profile name.
        build_seconds: Time that the builder itself took, in seconds.
        timing_cache: Timings that came from the cache of earlier builds on the same GPU model, and timings that the
            build measured. Omitted if the backend has no timing cache.
    """

    engine_digest: Sha256
    size_bytes: Annotated[int, Field(ge=0)] | None = None
    verification: VerificationStatus | None = None
    difference: float | None = None
    agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    judged_on: Annotated[str, Field(max_length=128)] | None = None
    warning: Annotated[str, Field(max_length=1024)] | None = None
    metric: float | None = None
    latency_seconds: Annotated[
        Mapping[Annotated[str, Field(max_length=63)], float], Field(max_length=16, alias="latencySeconds")
    ] = {}
    build_seconds: Annotated[float, Field(ge=0)] | None = None
    timing_cache: TimingCacheUse | None = None


class BuildFailure(ApiModel):
    """Reason why a build failed.

    Attributes:
        reason: One CamelCase word for programs that says why the build failed.
        message: Full error message for people.
        exit_code: Exit code of the builder. Omitted if the builder did not run.
        retry: Whether the same build may succeed later without a change by the user.
        log_tail: Last lines of the builder's log.
    """

    reason: Annotated[str, Field(min_length=1, max_length=128)]
    message: Annotated[str, Field(max_length=MAX_MESSAGE)]
    exit_code: int | None = None
    retry: bool = False
    log_tail: Annotated[str, Field(max_length=_MAX_LOG)] = ""


class EngineBuildStatus(ApiModel):
    """Observed state of the build, written by the operator.

    Attributes:
        observed_generation: Value of `metadata.generation` that this status describes.
        phase: Current phase of the build.
        progress: Current stage of the build.
        node: Name of the node that runs or ran the build's pod.
        image: Runtime image that ran, with the digest that the node pulled.
        attempts: Number of pods that were started.
        started_at: Time at which the first container started.
        finished_at: Time at which the build ended.
        duration_seconds: Seconds from the start to the end of the build.
        result: Engine that the build stored, with measurements. Omitted until the build succeeds.
        failure: Reason why the build failed. Omitted unless it failed.
        conditions: Observations of the object's state, one for each condition type.
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
    """One build of one engine for one target. It owns the Job that runs on the target's hardware.

    Attributes:
        api_version: API group and version of this kind.
        kind: Name of this kind.
        metadata: Name, namespace, labels and annotations of the object.
        spec: Engine to build, with the image, the store and the hardware of the build.
        status: Observed state of the build, written by the operator.
    """

    api_version: Literal["enginesmith.io/v1alpha1"] = API_VERSION
    kind: Literal["EngineBuild"] = "EngineBuild"
    metadata: ObjectMetadata
    spec: EngineBuildSpec
    status: EngineBuildStatus = EngineBuildStatus()
