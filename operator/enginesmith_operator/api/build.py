"""`spec.build`: knobs of the builder and of the Job that runs it."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from enginesmith_operator.api.base import ApiModel
from enginesmith_operator.api.model import ModelUri
from enginesmith_operator.api.pod_template import ResourceRequirements
from enginesmith_operator.api.quantities import ByteQuantity, Duration, SpelledSeconds
from enginesmith_operator.api.scalars import KubernetesName, Sha256

__all__ = ["BuildSpec", "HardwareCompatibility", "PluginSpec", "default_workspace_bytes"]

_GIB: Final = 1 << 30
_WORKSPACE_PER_MODEL_BYTE: Final = 4


class HardwareCompatibility(StrEnum):
    """On which other GPUs an engine may run. All but `none` cost speed."""

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
    """A library with TensorRT plugins. It runs inside builder and server, so its digest is never optional.

    Attributes:
        uri: of the shared library, as `spec.model.uri`.
        sha256: of its bytes.
    """

    uri: ModelUri
    sha256: Sha256


class BuildSpec(ApiModel):
    """How an engine is built.

    Attributes:
        workspace_bytes: scratch memory that one tactic may take; omitted: by the model's size, 1 to 2 GiB.
        optimization_level: 0 (quick to build) to 5 (quick to run), TensorRT's own scale.
        timeout_seconds: after this the builder is stopped; the Job's own deadline is 60 s later.
        hardware_compatibility: on which other GPUs the engine may run.
        version_compatible: an engine that a newer TensorRT can load; slower.
        weight_streaming: weights may stay in the host's memory.
        refittable: weights can be replaced without a build.
        plugins: plugin libraries in loading order.
        epoch: raise it for a fresh build of unchanged inputs.
        resources: CPU, memory and other resources of the build Job's container; the GPU itself is added. The
            preparation takes the same CPU and memory.
        priority_class_name: of the build Job's pod.
        queue_name: Kueue's LocalQueue that admits the build Job.
    """

    workspace_bytes: ByteQuantity | None = Field(default=None, alias="workspace")
    optimization_level: Annotated[int, Field(ge=0, le=5)] = 3
    timeout_seconds: Duration = Field(default=SpelledSeconds(1800.0, "30m"), alias="timeout")
    hardware_compatibility: HardwareCompatibility = HardwareCompatibility.NONE
    version_compatible: bool = False
    weight_streaming: bool = False
    refittable: bool = False
    plugins: Annotated[tuple[PluginSpec, ...], Field(max_length=16)] = ()
    epoch: Annotated[int, Field(ge=0, le=(1 << 31) - 1)] = 0
    resources: ResourceRequirements = ResourceRequirements()
    priority_class_name: KubernetesName | None = None
    queue_name: KubernetesName | None = None


def default_workspace_bytes(model_size_bytes: int) -> int:
    """Return the workspace of a model for which the user names none: four times its size, within 1 and 2 GiB."""
    return max(_GIB, min(2 * _GIB, _WORKSPACE_PER_MODEL_BYTE * model_size_bytes))
