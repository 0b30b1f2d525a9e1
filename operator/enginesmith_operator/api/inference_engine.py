"""`InferenceEngine`: one ONNX model, the hardware that is to serve it, and how.

    InferenceEngine
    └── spec: model, precision, profiles          what is served              (model.py, precision.py, profiles.py)
              build, toolchain, verification      how engines come to be      (build.py, toolchain.py, verification.py)
              targets, serving, rollout           where and how they serve    (targets.py, serving.py)
              store, retention, podTemplate       what it stands on           (store.py, serving.py, pod_template.py)

The CRD and the reference page are generated from these types. Values of the contract are made in translate.py.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, Field, JsonValue

from enginesmith_operator.api.base import ApiModel, Finding, raise_findings
from enginesmith_operator.api.build import BuildSpec
from enginesmith_operator.api.metadata import ObjectMetadata
from enginesmith_operator.api.model import ModelSpec
from enginesmith_operator.api.pod_template import PodTemplate
from enginesmith_operator.api.precision import PrecisionSpec
from enginesmith_operator.api.profiles import MAX_PROFILES, ProfileSpec
from enginesmith_operator.api.serving import RetentionSpec, RolloutSpec, ServingSpec
from enginesmith_operator.api.store import StoreSpec
from enginesmith_operator.api.targets import DEFAULT_TARGETS, MAX_TARGETS, TargetSpec
from enginesmith_operator.api.toolchain import ToolchainSpec
from enginesmith_operator.api.verification import VerificationSpec

__all__ = ["API_VERSION", "KIND", "InferenceEngine", "InferenceEngineSpec", "warnings"]

API_VERSION: Final = "enginesmith.io/v1alpha1"
KIND: Final = "InferenceEngine"
_SMALL_WORKSPACE: Final = 512 << 20
_Named = TypeVar("_Named", ProfileSpec, TargetSpec)


def _unique_names(items: tuple[_Named, ...]) -> tuple[_Named, ...]:
    taken = {item.name for item in items}
    seen: Counter[str] = Counter()
    findings = []
    for index, item in enumerate(items):
        seen[item.name] += 1
        if seen[item.name] > 1:
            free = next(name for n in range(2, len(items) + 3) if (name := f"{item.name[:59]}-{n}") not in taken)
            findings.append(Finding("an earlier entry has this name", free, (index, "name")))
    raise_findings(findings)
    return items


class InferenceEngineSpec(ApiModel):
    """What to serve, where and how.

    Attributes:
        model: where the ONNX model comes from.
        precision: the arithmetic of the engine.
        profiles: which input shapes it takes; omitted: fine for a model whose shapes are all fixed.
        build: how engines are built.
        toolchain: which versions may build and serve.
        verification: how far an engine's answers may be from the model's.
        targets: the hardware that serves, in order of preference; omitted: any GPU (`gpu`, tensorrt), and a standby on
            the CPU (`cpu`, onnxruntime).
        serving: how one pod serves.
        rollout: how a new engine replaces the one that serves.
        store: where prepared models and engines are kept; omitted: the operator's default, or a folder in local mode.
        pod_template: what is added to the pods.
        retention: how long engines that no longer serve are kept.
    """

    model: ModelSpec
    precision: PrecisionSpec = PrecisionSpec()
    profiles: Annotated[tuple[ProfileSpec, ...], Field(max_length=MAX_PROFILES), AfterValidator(_unique_names)] = ()
    build: BuildSpec = BuildSpec()
    toolchain: ToolchainSpec = ToolchainSpec()
    verification: VerificationSpec = VerificationSpec()
    targets: Annotated[
        tuple[TargetSpec, ...], Field(min_length=1, max_length=MAX_TARGETS), AfterValidator(_unique_names)
    ] = DEFAULT_TARGETS
    serving: ServingSpec = ServingSpec()
    rollout: RolloutSpec = RolloutSpec()
    store: StoreSpec | None = None
    pod_template: PodTemplate = PodTemplate()
    retention: RetentionSpec = RetentionSpec()


class InferenceEngine(ApiModel):
    """An ONNX model, served as the right engine on every GPU that it names.

    Attributes:
        api_version: group and version of this kind.
        kind: of the object.
        metadata: name, namespace, labels and annotations.
        spec: what to serve, where and how.
        status: what the operator found and did; never written by a user.
    """

    api_version: Literal["enginesmith.io/v1alpha1"] = API_VERSION
    kind: Literal["InferenceEngine"] = KIND
    metadata: ObjectMetadata
    spec: InferenceEngineSpec
    status: Mapping[str, JsonValue] | None = None

    def to_document(self) -> dict[str, Any]:
        """Return the document as a user would write it: only what was set, amounts in their original spelling."""
        head: dict[str, Any] = {"apiVersion": self.api_version, "kind": self.kind}
        return head | self.model_dump(mode="json", by_alias=True, exclude_unset=True)


def warnings(spec: InferenceEngineSpec) -> tuple[str, ...]:
    """Return what is allowed and probably not meant, one sentence each, the field's path first."""
    found = []
    workspace = spec.build.workspace_bytes
    if workspace is not None and workspace < _SMALL_WORKSPACE:
        found.append(
            f"spec.build.workspace: {workspace} bytes are less than 512Mi: TensorRT drops tactics that need more, and "
            "the engine gets slower or cannot be built."
        )
    if spec.targets[0].standby:
        found.append("spec.targets[0].standby: no target stands before the first one, so it always serves.")
    if all(target.replicas == 0 and target.autoscaling is None for target in spec.targets):
        found.append("spec.targets: every target has 0 replicas: engines are built and nothing serves.")
    return tuple(found)
