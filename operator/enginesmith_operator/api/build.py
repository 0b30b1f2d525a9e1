"""`spec.build`: settings of the builder and of the Job that runs it."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, model_validator

from enginesmith_operator.api.base import ApiModel, Finding, raise_findings
from enginesmith_operator.api.bounds import between_bytes, between_durations
from enginesmith_operator.api.model import ModelUri
from enginesmith_operator.api.pod_template import ResourceRequirements
from enginesmith_operator.api.quantities import ByteQuantity, Duration, SpelledSeconds
from enginesmith_operator.api.scalars import KubernetesName, PriorityClassName, Sha256

__all__ = [
    "LARGEST_DEFAULT_WORKSPACE",
    "QUICK_LEVEL",
    "BuildSpec",
    "HardwareCompatibility",
    "PluginSpec",
    "default_workspace_bytes",
]

QUICK_LEVEL: Final = 0
"""Optimization level of a quick engine (`quickStart`)."""
_GIB: Final = 1 << 30
LARGEST_DEFAULT_WORKSPACE: Final = 2 * _GIB
"""Workspace of large models that name none, in bytes."""
_WORKSPACE_PER_MODEL_BYTE: Final = 4


class HardwareCompatibility(StrEnum):
    """Other GPUs on which an engine may run. Every value except `none` makes the engine slower."""

    NONE = "none"
    AMPERE_PLUS = "amperePlus"
    SAME_COMPUTE_CAPABILITY = "sameComputeCapability"

    @property
    def contract_value(self) -> str:
        """Return the spelling of `enginesmith_contract.build_request.BuildOptions`."""
        return _CONTRACT_VALUES[self]


_CONTRACT_VALUES: Final = {
    HardwareCompatibility.NONE: "none",
    HardwareCompatibility.AMPERE_PLUS: "ampere-plus",
    HardwareCompatibility.SAME_COMPUTE_CAPABILITY: "same-compute-capability",
}


class PluginSpec(ApiModel):
    """Library with TensorRT plugins. It runs inside the builder and the server, so its digest is required.

    Attributes:
        uri: URI of the shared library, with the same schemes as `spec.model.uri`.
        sha256: SHA-256 of the library file, as 64 hexadecimal digits in lower case.
    """

    uri: ModelUri
    sha256: Sha256


class BuildSpec(ApiModel):
    """Settings of the builder and of the Job that runs it.

    Attributes:
        workspace_bytes: Scratch memory that one TensorRT tactic may use. If omitted, four times the model's size, but
            at least 1 GiB and at most 2 GiB.
        optimization_level: TensorRT's builder optimization level: 0 builds fastest, 5 gives the fastest engine.
        quick_start: Whether a quick engine of optimization level 0 is built first and serves until the full engine is
            built. This happens only where neither the full engine nor an earlier one is there to serve. With
            `spec.model.sha256`, its builder starts while the model is being prepared. Only for targets with the backend
            `tensorrt`.
        timeout_seconds: Time after which the builder stops. The Job's own deadline is 60 s later. If omitted, 30m, or
            the default of an EnginePolicy.
        hardware_compatibility: Other GPUs on which the engine may run.
        version_compatible: Whether newer TensorRT versions can load the engine. Such an engine is slower.
        weight_streaming: Whether weights may stay in host memory and be streamed to the GPU.
        refittable: Whether the engine's weights can be replaced without a rebuild.
        plugins: Plugin libraries, in loading order.
        epoch: Number in the engine key. Raise it to rebuild engines although nothing else changed.
        resources: CPU, memory and other resources of the build Job's container. The GPU is added automatically. The
            preparation Job gets the same CPU and memory.
        priority_class_name: Name of the PriorityClass of the build Job's pod.
        queue_name: Name of the Kueue LocalQueue that admits the build Job.
    """

    workspace_bytes: Annotated[ByteQuantity, between_bytes("1Mi", "1Ti")] | None = Field(
        default=None, alias="workspace"
    )
    optimization_level: Annotated[int, Field(ge=0, le=5)] = 3
    quick_start: bool = False
    timeout_seconds: Annotated[Duration, between_durations("1s", "168h")] = Field(
        default=SpelledSeconds(1800.0, "30m"), alias="timeout"
    )
    hardware_compatibility: HardwareCompatibility = HardwareCompatibility.NONE
    version_compatible: bool = False
    weight_streaming: bool = False
    refittable: bool = False
    plugins: Annotated[tuple[PluginSpec, ...], Field(max_length=16)] = ()
    epoch: Annotated[int, Field(ge=0, le=(1 << 31) - 1)] = 0
    resources: ResourceRequirements = ResourceRequirements()
    priority_class_name: PriorityClassName | None = None
    queue_name: KubernetesName | None = None

    @model_validator(mode="after")
    def _refuse_quick_start_of_quick_engines(self) -> "BuildSpec":
        if self.quick_start and self.optimization_level <= QUICK_LEVEL:
            reason = f"every engine is built at level {QUICK_LEVEL}, so a quick engine would be the same"
            hint = "remove quickStart, or raise optimizationLevel"
            raise_findings([Finding(reason, "false", ("quickStart",), hint)])
        return self


def default_workspace_bytes(model_size_bytes: int) -> int:
    """Return the default workspace of a model: four times its size, but at least 1 GiB and at most 2 GiB."""
    return max(_GIB, min(LARGEST_DEFAULT_WORKSPACE, _WORKSPACE_PER_MODEL_BYTE * model_size_bytes))
