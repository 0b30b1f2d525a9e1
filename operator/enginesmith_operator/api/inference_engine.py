"""`InferenceEngine`: one ONNX model, the hardware that serves it, and the settings for both.

    InferenceEngine
    └── spec: model, precision, profiles          the model                   (model.py, precision.py, profiles.py)
              build, toolchain, verification      how engines are built       (build.py, toolchain.py, verification.py)
              targets, serving, rollout           where and how they serve    (targets.py, serving.py)
              store, retention, podTemplate       where engines are kept      (store.py, serving.py, pod_template.py)

The CRD and the reference page are generated from these types. translate.py converts them into values of the
contract.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, Field, JsonValue, model_validator

from enginesmith_contract.backend_traits import traits
from enginesmith_contract.backends import Precision
from enginesmith_contract.matrix.load import load_matrix
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
            findings.append(Finding("an earlier entry has the same name", free, (index, "name")))
    raise_findings(findings)
    return items


class InferenceEngineSpec(ApiModel):
    """Model to serve, the hardware that serves it, and how its engines are built and replaced.

    Attributes:
        model: Source of the ONNX model.
        precision: Numeric precision of the engine: one word such as `fp16`, or a mapping.
        profiles: Optimization profiles, which say the input shapes that the engine accepts. Not needed if all shapes of
            the model are fixed.
        build: Settings of the builder and of the Job that runs it.
        toolchain: Versions that may build and serve the engines.
        verification: Comparison of each engine's outputs with reference outputs.
        targets: Hardware that serves the engine, in order of preference. If omitted, there are two targets: `gpu` with
            any GPU (backend `tensorrt`), and the standby `cpu` (backend `onnxruntime`).
        serving: Settings of the server in each pod.
        rollout: Settings for the replacement of the serving engine by a new one.
        store: Store for prepared models and engines. If omitted, the operator's default store, or a folder in local
            mode.
        pod_template: Settings added to the pods that prepare, build and serve.
        retention: Number and age of engines to keep after they stop serving.
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

    @model_validator(mode="after")
    def _require_levels_for_quick_start(self) -> "InferenceEngineSpec":
        if self.build.quick_start and not any(traits(one.backend).optimization_levels for one in self.targets):
            backends = ", ".join(dict.fromkeys(one.backend.value for one in self.targets))
            reason = f"no target has a backend whose builds a low optimization level shortens (found {backends})"
            raise_findings([Finding(reason, "false", ("build", "quickStart"), "remove quickStart")])
        return self

    @model_validator(mode="after")
    def _require_a_backend_for_every_fallback(self) -> "InferenceEngineSpec":
        raise_findings(
            Finding(
                f"no target has a backend that runs {precision}",
                path=("precision", "fallback", index),
                hint="remove the entry, or add a target with another backend",
            )
            for index, precision in enumerate(self.precision.fallback)
            if not any(_runs(target, precision) for target in self.targets)
        )
        return self

    @model_validator(mode="after")
    def _require_samples_for_answers(self) -> "InferenceEngineSpec":
        if self.precision.calibration is not None:
            return self
        outputs = (self.verification.outputs or {}).items()
        raise_findings(
            Finding(
                "has no effect without calibration data: decoded answers are compared on its held-out samples",
                path=("verification", *path),
                hint="set precision.calibration, or remove the field",
            )
            for path, value in (
                (("agreement",), self.verification.agreement),
                *((("outputs", name, "agreement"), gate.agreement) for name, gate in outputs),
                *((("outputs", name, "decode"), gate.decode) for name, gate in outputs),
            )
            if value is not None
        )
        return self


class InferenceEngine(ApiModel):
    """ONNX model that is built into an engine for each target's hardware and served there.

    Attributes:
        api_version: API group and version of this kind.
        kind: Name of this kind.
        metadata: Name, namespace, labels and annotations of the object.
        spec: Model to serve, the hardware that serves it, and how its engines are built and replaced.
        status: Observed state of the InferenceEngine, written by the operator.
    """

    api_version: Literal["enginesmith.io/v1alpha1"] = API_VERSION
    kind: Literal["InferenceEngine"] = KIND
    metadata: ObjectMetadata
    spec: InferenceEngineSpec
    status: Mapping[str, JsonValue] | None = None

    def to_document(self) -> dict[str, Any]:
        """Return the document as a user would write it: only set fields, amounts in their original spelling."""
        head: dict[str, Any] = {"apiVersion": self.api_version, "kind": self.kind}
        return head | self.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _runs(target: TargetSpec, precision: Precision) -> bool:
    """Whether a target's backend may run a precision; what the GPU has is for the plan to judge."""
    provider = target.provider_or_default
    rows = (row for row in load_matrix().provider_precisions if provider is not None and row.provider == provider)
    return all(entry.runs for row in rows for entry in row.precisions if entry.precision == precision)


def warnings(spec: InferenceEngineSpec) -> tuple[str, ...]:
    """Return warnings about values that are valid but probably unintended: the field's path, then a sentence."""
    found = []
    workspace = spec.build.workspace_bytes
    if workspace is not None and workspace < _SMALL_WORKSPACE:
        found.append(
            f"spec.build.workspace: {workspace} bytes are less than 512Mi: TensorRT skips tactics that need more, so "
            "the engine may be slower or the build may fail."
        )
    if spec.targets[0].standby:
        found.append("spec.targets[0].standby: there is no earlier target, so the first target always serves.")
    if all(target.replicas == 0 and target.autoscaling is None for target in spec.targets):
        found.append("spec.targets: every target has 0 replicas, so engines are built but nothing serves.")
    return tuple(found)
