"""`spec.targets`: the hardware that is to serve, and how much of it."""

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
]

MAX_TARGETS: Final = 32
DEFAULT_PROVIDER: Final = "cpu"
"""ONNX Runtime's execution provider where none is named."""

_LABEL_SUFFIX = re.compile(r"-(SHARED|MIG-(?P<profile>[0-9].*?)(-SHARED)?)$")
_Replicas = Annotated[int, Field(ge=0, le=10_000)]


class GpuSpec(ApiModel):
    """Which GPUs will do. Every field that is set must fit; one engine is built per GPU model found.

    Attributes:
        product: the model as the node label nvidia.com/gpu.product spells it, without `-SHARED` and MIG suffix.
        compute_capability: "8.9", in quotes.
        min_memory_bytes: the least memory of one GPU, or of one slice where `migProfile` is set; of the machine where
            CPU and GPU share it (GB10, Jetson).
        mig_profile: a slice ("1g.10gb"); omitted: whole GPUs only.
        count: GPUs for each pod; an engine uses one, so more only reserves them.
    """

    product: GpuProduct | None = None
    compute_capability: ComputeCapability | None = None
    min_memory_bytes: Annotated[ByteQuantity, between_bytes("1Mi", "16Ti")] | None = Field(
        default=None, alias="minMemory"
    )
    mig_profile: MigProfile | None = None
    count: Annotated[int, Field(ge=1, le=16)] = 1

    @model_validator(mode="after")
    def _name_the_bare_product(self) -> "GpuSpec":
        match = _LABEL_SUFFIX.search(self.product or "")
        if match is not None:
            reason = "expected the model without the suffix that sharing and MIG append to the label"
            hint = f"set gpu.migProfile to {match['profile']}" if match["profile"] else ""
            bare = (self.product or "")[: match.start()]
            raise_findings([Finding(reason, bare, ("product",), hint)])
        return self


class PodMetric(ApiModel):
    """A metric of the pods themselves, from the cluster's custom metrics API.

    Attributes:
        name: of the metric there.
        average_value: over all pods, that the autoscaler aims at.
    """

    name: Annotated[str, Field(min_length=1, max_length=253)]
    average_value: Annotated[ResourceQuantity, between_quantities("1n", "1E")]


class AutoscalingSpec(ApiModel):
    """Bounds for an autoscaler, which then owns the number of replicas.

    A HorizontalPodAutoscaler is made where a metric is named; without one, an autoscaler of the user's own (KEDA, ...)
    acts on the target's Deployment.

    Attributes:
        min_replicas: never fewer; 0 only where the autoscaler can wake a sleeping target.
        max_replicas: never more.
        cpu_utilization: in percent of the requested CPU, that the autoscaler aims at.
        pod_metric: another metric to scale by.
    """

    min_replicas: _Replicas = 1
    max_replicas: Annotated[int, Field(ge=1, le=10_000)]
    cpu_utilization: Annotated[int, Field(ge=1, le=1000)] | None = None
    pod_metric: PodMetric | None = None

    @model_validator(mode="after")
    def _be_ordered(self) -> "AutoscalingSpec":
        if self.min_replicas > self.max_replicas:
            reason = f"minReplicas {self.min_replicas} is larger than maxReplicas {self.max_replicas}"
            raise_findings([Finding(reason, str(self.max_replicas), ("minReplicas",))])
        return self


class TargetSpec(ApiModel):
    """One kind of hardware that serves the engine.

    Attributes:
        name: of the target; unique, and part of its Service's name.
        gpu: which GPUs will do; omitted: any GPU for the TensorRT backends, none for `onnxruntime`.
        backend: what builds and runs the engine.
        provider: ONNX Runtime's execution provider (`cpu`, `openvino`, ...); only for `onnxruntime`, where `cpu` is the
            default.
        backend_options: options of the library that runs the engine, by name (`intraOpThreads: "2"`, `spin: "false"`);
            the page on backends lists them. Values are strings.
        replicas: pods of this target; with `autoscaling` the autoscaler decides instead.
        autoscaling: bounds for an autoscaler.
        standby: serve only while no target before this one is Ready.
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
    def _be_consistent(self) -> "TargetSpec":
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
                hint = f"{meant}known are {', '.join(problem.known)}" if problem.known else ""
                yield Finding(problem.reason, path=("backendOptions", name), hint=hint)
        if self.autoscaling is not None and "replicas" in self.model_fields_set:
            hint = "remove one of the two"
            yield Finding("replicas and autoscaling exclude each other", path=("replicas",), hint=hint)


DEFAULT_TARGETS: Final = (
    TargetSpec(name="gpu"),
    TargetSpec(name="cpu", backend=Backend.ONNXRUNTIME, standby=True),
)
"""What an engine without `targets` gets: any GPU, and the CPU for as long as no GPU serves."""
