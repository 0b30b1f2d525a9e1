"""`spec.targets`: the hardware that serves, and the number of replicas."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Final

from pydantic import Field, model_validator

from enginesmith_contract.backend_options import check_option
from enginesmith_contract.backend_traits import traits
from enginesmith_contract.backends import Backend
from enginesmith_operator.api.base import ApiModel, Finding, raise_findings
from enginesmith_operator.api.bounds import between_bytes, between_quantities
from enginesmith_operator.api.quantities import ByteQuantity, ResourceQuantity
from enginesmith_operator.api.scalars import ComputeCapability, GpuProduct, Identifier, MigProfile, Name

__all__ = [
    "DEFAULT_PROVIDER",
    "DEFAULT_TARGETS",
    "MAX_TARGETS",
    "AutoscalingSpec",
    "GpuSpec",
    "PodMetric",
    "TargetSpec",
    "needs_gpu",
]

MAX_TARGETS: Final = 32
DEFAULT_PROVIDER: Final = "cpu"
"""Default execution provider of ONNX Runtime."""

_LABEL_SUFFIX = re.compile(r"-(SHARED|MIG-(?P<profile>[0-9].*?)(-SHARED)?)$")
_Replicas = Annotated[int, Field(ge=0, le=10_000)]


class GpuSpec(ApiModel):
    """GPUs this target accepts. A GPU must match every field that is set. Each GPU product gets its own engine.

    Attributes:
        product: GPU product as in the node label `nvidia.com/gpu.product`, without `-SHARED` and MIG suffix.
        compute_capability: CUDA compute capability as a quoted string, such as "8.9".
        min_memory_bytes: Minimum memory of one GPU, or of one MIG slice if `mig_profile` is set. If CPU and GPU share
            memory (GB10, Jetson), the memory of the machine.
        mig_profile: MIG profile of the slice, such as "1g.10gb". If omitted, only whole GPUs match.
        count: Number of GPUs for each pod. An engine uses one GPU; more GPUs are reserved but not used.
    """

    product: GpuProduct | None = None
    compute_capability: ComputeCapability | None = None
    min_memory_bytes: Annotated[ByteQuantity, between_bytes("1Mi", "16Ti")] | None = Field(
        default=None, alias="minMemory"
    )
    mig_profile: MigProfile | None = None
    count: Annotated[int, Field(ge=1, le=16)] = 1

    @model_validator(mode="after")
    def _require_bare_product(self) -> "GpuSpec":
        match = _LABEL_SUFFIX.search(self.product or "")
        if match is not None:
            reason = "expected the GPU product without the suffix that sharing and MIG append to the label"
            hint = f"set gpu.migProfile to {match['profile']}" if match["profile"] else ""
            bare = (self.product or "")[: match.start()]
            raise_findings([Finding(reason, bare, ("product",), hint)])
        return self


class PodMetric(ApiModel):
    """Metric of the pods from the cluster's custom metrics API.

    Attributes:
        name: Name of the metric.
        average_value: Target value of the metric, averaged over all pods.
    """

    name: Annotated[str, Field(min_length=1, max_length=253)]
    average_value: Annotated[ResourceQuantity, between_quantities("1n", "1E")]


class AutoscalingSpec(ApiModel):
    """Bounds for an autoscaler, which then controls the number of replicas.

    If `cpuUtilization` or `podMetric` is set, the operator creates a HorizontalPodAutoscaler. Otherwise another
    autoscaler (such as KEDA) may act on the target's Deployment.

    Attributes:
        min_replicas: Minimum number of replicas. 0 requires an autoscaler that can scale up from zero.
        max_replicas: Maximum number of replicas.
        cpu_utilization: Target CPU utilization in percent of the requested CPU.
        pod_metric: Metric of the pods to scale by.
    """

    min_replicas: _Replicas = 1
    max_replicas: Annotated[int, Field(ge=1, le=10_000)]
    cpu_utilization: Annotated[int, Field(ge=1, le=1000)] | None = None
    pod_metric: PodMetric | None = None

    @model_validator(mode="after")
    def _require_ordered(self) -> "AutoscalingSpec":
        if self.min_replicas > self.max_replicas:
            reason = f"minReplicas {self.min_replicas} is larger than maxReplicas {self.max_replicas}"
            raise_findings([Finding(reason, str(self.max_replicas), ("minReplicas",))])
        return self


class TargetSpec(ApiModel):
    """One kind of hardware that serves the engine.

    Attributes:
        name: Unique name of the target, which is part of its Service's name.
        gpu: GPUs this target accepts. If omitted, any GPU for the TensorRT backends and none for `onnxruntime`.
        backend: Library that builds and runs the engine.
        provider: ONNX Runtime execution provider, such as `cpu` (the default) or `openvino`. Only for the backend
            `onnxruntime`.
        backend_options: Options of the backend by name, such as `intraOpThreads` or `spin` (docs/backends.md). Values
            are strings.
        replicas: Number of pods of this target. It must not be set together with `autoscaling`.
        autoscaling: Bounds for an autoscaler, which then controls the number of replicas. If it names a metric, the
            operator creates a HorizontalPodAutoscaler.
        standby: Whether the target serves only while no earlier target is Ready.
    """

    name: Name
    gpu: GpuSpec | None = None
    backend: Backend = Backend.TENSORRT
    provider: Identifier | None = None
    backend_options: Annotated[
        Mapping[Annotated[str, Field(max_length=63)], Annotated[str, Field(max_length=256)]], Field(max_length=32)
    ] = {}
    replicas: _Replicas = 1
    autoscaling: AutoscalingSpec | None = None
    standby: bool = False

    @property
    def provider_or_default(self) -> str | None:
        """Return the execution provider to use; None for the TensorRT backends."""
        if not traits(self.backend).execution_providers:
            return None
        return self.provider or DEFAULT_PROVIDER

    @model_validator(mode="after")
    def _require_consistent(self) -> "TargetSpec":
        raise_findings(self._findings())
        return self

    def _findings(self) -> Iterator[Finding]:
        if self.provider is not None and not traits(self.backend).execution_providers:
            hint = "remove provider, or set backend to onnxruntime"
            yield Finding(f"the backend {self.backend} has no execution providers", path=("provider",), hint=hint)
        for name, value in self.backend_options.items():
            problem = check_option(self.backend, name, value)
            if problem is not None:
                close = get_close_matches(name, problem.known, n=1)
                meant = f"did you mean {close[0]}? " if close else ""
                hint = f"{meant}known options are {', '.join(problem.known)}" if problem.known else ""
                yield Finding(problem.reason, path=("backendOptions", name), hint=hint)
        if self.autoscaling is not None and "replicas" in self.model_fields_set:
            hint = "remove one of the two"
            yield Finding("replicas and autoscaling must not be set together", path=("replicas",), hint=hint)


def needs_gpu(target: TargetSpec) -> bool:
    """Whether the target means GPUs; ONNX Runtime without `gpu` means CPUs."""
    return target.gpu is not None or traits(target.backend).runs_on_gpu


DEFAULT_TARGETS: Final = (
    TargetSpec(name="gpu"),
    TargetSpec(name="cpu", backend=Backend.ONNXRUNTIME, standby=True),
)
"""Default targets: any GPU, and the CPU while no GPU serves."""
