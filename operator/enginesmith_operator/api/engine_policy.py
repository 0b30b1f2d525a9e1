"""`EnginePolicy`: what the InferenceEngines of some namespaces may ask for. The platform team writes it.

All policies that select a namespace hold together. The ValidatingAdmissionPolicy of the chart checks the fields of a
spec, `enginesmith_operator.planning.policies` the same fields and what only a plan knows: GPUs of nodes and toolchains.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from enginesmith_contract.backends import Precision
from enginesmith_operator.api.base import ApiModel, Finding, finding_error, raise_findings
from enginesmith_operator.api.bounds import between_bytes, between_durations
from enginesmith_operator.api.build import HardwareCompatibility
from enginesmith_operator.api.metadata import ObjectMetadata
from enginesmith_operator.api.model import MODEL_SCHEMES
from enginesmith_operator.api.patterns import (
    HostPattern,
    ImagePattern,
    MigChoice,
    NamePattern,
    ProductPattern,
    matches_any,
)
from enginesmith_operator.api.pod_template import LabelName, LabelValue
from enginesmith_operator.api.quantities import ByteQuantity, Duration
from enginesmith_operator.api.scalars import KubernetesName
from enginesmith_operator.api.store import StoreSpec

__all__ = [
    "DefaultBuild",
    "DefaultVerification",
    "EnginePolicy",
    "EnginePolicySpec",
    "ModelSourceRule",
    "NamespaceSelector",
    "PodTemplateField",
    "PolicyDefaults",
    "PolicyLimits",
    "PolicyMetadata",
    "PolicyVerification",
]

_MOST: Final = 64
_MOST_SOURCES: Final = 16
"""The API server compares each with each URI of a spec, and bounds the cost."""
_SCHEMES: Final = tuple(scheme for scheme in MODEL_SCHEMES if scheme != "file")


def _check_scheme(value: str) -> str:
    if value not in _SCHEMES:
        raise finding_error(Finding(f"expected one of the schemes {', '.join(_SCHEMES)}"))
    return value


_Scheme = Annotated[str, AfterValidator(_check_scheme), WithJsonSchema({"type": "string", "enum": list(_SCHEMES)})]
_UNCALIBRATED: Final = (Precision.FP32, Precision.TF32, Precision.FP16, Precision.BF16)


def _check_uncalibrated(value: Precision) -> Precision:
    if value not in _UNCALIBRATED:
        raise finding_error(Finding(f"{value} needs calibration data, which only an InferenceEngine names"))
    return value


_UncalibratedPrecision = Annotated[
    Precision,
    AfterValidator(_check_uncalibrated),
    WithJsonSchema({"type": "string", "enum": [one.value for one in _UNCALIBRATED]}),
]
_Url = Annotated[str, Field(min_length=1, max_length=512)]


class PodTemplateField(StrEnum):
    """Field of `spec.podTemplate`."""

    ENV = "env"
    IMAGE_PULL_SECRETS = "imagePullSecrets"
    NODE_SELECTOR = "nodeSelector"
    PRIORITY_CLASS_NAME = "priorityClassName"
    RESOURCES = "resources"
    RUNTIME_CLASS_NAME = "runtimeClassName"
    SERVICE_ACCOUNT_NAME = "serviceAccountName"
    TOLERATIONS = "tolerations"


class NamespaceSelector(ApiModel):
    """Namespaces that a policy holds for. A namespace must match every field that is set.

    Attributes:
        names: Names of namespaces, of which one must match. `*` stands for any characters.
        match_labels: Labels that the namespace must have.
    """

    names: Annotated[tuple[NamePattern, ...], Field(min_length=1, max_length=_MOST)] | None = None
    match_labels: Annotated[Mapping[LabelName, LabelValue], Field(max_length=32)] = {}

    def selects(self, namespace: str, labels: Mapping[str, str] | None) -> bool:
        """Whether a namespace matches; one whose labels are not known (None) is taken to have them."""
        named = self.names is None or matches_any(namespace, self.names)
        return named and (labels is None or all(labels.get(key) == value for key, value in self.match_labels.items()))


class ModelSourceRule(ApiModel):
    """One kind of source that a URI may name.

    Attributes:
        scheme: Scheme of the URI.
        names: Parts that may follow the scheme, up to the next `/`: the bucket, the host with its port, the registry,
            the owner of the repository, or the claim. `*` stands for letters, digits, `-`, `.` and `_`. If omitted,
            anything.
        endpoints: URLs of which `spec.model.options.endpoint` must be one. If omitted, this option must not be set.
    """

    scheme: _Scheme
    names: Annotated[tuple[HostPattern, ...], Field(max_length=_MOST_SOURCES)] | None = None
    endpoints: Annotated[tuple[_Url, ...], Field(max_length=_MOST_SOURCES)] | None = None


class PolicyVerification(ApiModel):
    """Bounds of the accuracy gate that every engine has to pass.

    Attributes:
        largest_limit: Largest `limit` of `spec.verification` and its outputs. If set, `spec.verification.limit` must be
            set.
        largest_mismatches: Largest `mismatches` of `spec.verification` and its outputs.
        smallest_agreement: Smallest `agreement` of `spec.verification` and its outputs. If set,
            `spec.verification.agreement` must be set for a spec with calibration data.
    """

    largest_limit: Annotated[float, Field(gt=0, le=1000)] | None = None
    largest_mismatches: Annotated[float, Field(ge=0, le=1)] | None = None
    smallest_agreement: Annotated[float, Field(ge=0, le=1)] | None = None


class PolicyLimits(ApiModel):
    """Largest amounts that an InferenceEngine, or all of a namespace, may ask for.

    Attributes:
        build_timeout: Largest `spec.build.timeout`.
        workspace: Largest `spec.build.workspace`. If it is below 2Gi, the field must be set, because its default is up
            to 2Gi.
        concurrent_builds: Largest number of builds of a namespace that run or wait for a GPU at the same time. Others
            wait until one of them ends.
        gpus: Largest number of GPUs that the servers and builds of a namespace take together; a MIG slice counts as
            one. A spec whose targets ask for more is refused. Replicas and builds for which none is left wait.
    """

    build_timeout: Annotated[Duration, between_durations("1s", "168h")] | None = None
    workspace: Annotated[ByteQuantity, between_bytes("1Mi", "1Ti")] | None = None
    concurrent_builds: Annotated[int, Field(ge=1, le=10_000)] | None = None
    gpus: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class DefaultBuild(ApiModel):
    """Defaults of `spec.build`.

    Attributes:
        timeout_seconds: Default of `spec.build.timeout`.
        workspace_bytes: Default of `spec.build.workspace`.
    """

    timeout_seconds: Annotated[Duration, between_durations("1s", "168h")] | None = Field(default=None, alias="timeout")
    workspace_bytes: Annotated[ByteQuantity, between_bytes("1Mi", "1Ti")] | None = Field(
        default=None, alias="workspace"
    )


class DefaultVerification(ApiModel):
    """Defaults of `spec.verification`.

    Attributes:
        limit: Default of `spec.verification.limit`.
        agreement: Default of `spec.verification.agreement`.
    """

    limit: Annotated[float, Field(gt=0, le=1000)] | None = None
    agreement: Annotated[float, Field(ge=0, le=1)] | None = None


class PolicyDefaults(ApiModel):
    """Values of fields that an InferenceEngine leaves out. The document itself stays as it is.

    Attributes:
        precision: Default of `spec.precision`: a precision that needs no calibration data.
        build: Defaults of `spec.build`.
        verification: Defaults of `spec.verification`.
        store: Default of `spec.store`, which takes precedence over the operator's default store.
    """

    precision: _UncalibratedPrecision | None = None
    build: DefaultBuild = DefaultBuild()
    verification: DefaultVerification = DefaultVerification()
    store: StoreSpec | None = None


class EnginePolicySpec(ApiModel):
    """Values that InferenceEngines of the selected namespaces may have. A list that is empty allows nothing.

    Attributes:
        namespace_selector: Namespaces that the policy holds for. If omitted, all of them.
        gpu_products: GPU products as in the node label `nvidia.com/gpu.product`. `*` stands for any characters. If
            omitted, any product. Targets without GPUs are not limited.
        mig_profiles: MIG profiles such as "1g.10gb"; `whole` stands for GPUs that are not partitioned. If omitted, all.
        toolchains: Names of toolchains in the catalog. `*` stands for any characters. If omitted, any toolchain.
        images: Images of toolchains that may build, serve and prepare, such as `registry.example.com/team/*`. Before
            the first `/`, `*` stands for characters of a host; after it, for any characters. If omitted, every image of
            the catalog.
        precisions: Values that `spec.precision` may have. If omitted, any.
        hardware_compatibility: Values that `spec.build.hardwareCompatibility` may have. If omitted, any.
        model_sources: Sources of models, calibration data, verification inputs and plugins. If omitted, any.
        digest_required: Whether `spec.model.sha256` must be set, and the digest of calibration data if there are any.
        model_signers: Names of the administrator's trusted keys of which one must have signed the model. `*` stands for
            any characters. If set, `spec.model.signature` must be set. If omitted, models need no signature.
        pod_template_fields: Fields of `spec.podTemplate` that may be set. `resources` and `priorityClassName` also mean
            those of `spec.build`. If omitted, all.
        verification: Bounds of the accuracy gate that every engine has to pass.
        limits: Largest amounts that an InferenceEngine, or all of a namespace, may ask for.
        defaults: Values of fields that an InferenceEngine leaves out. Two policies must not give different ones.
    """

    namespace_selector: NamespaceSelector = NamespaceSelector()
    gpu_products: Annotated[tuple[ProductPattern, ...], Field(max_length=_MOST)] | None = None
    mig_profiles: Annotated[tuple[MigChoice, ...], Field(max_length=_MOST)] | None = None
    toolchains: Annotated[tuple[NamePattern, ...], Field(max_length=_MOST)] | None = None
    images: Annotated[tuple[ImagePattern, ...], Field(max_length=_MOST)] | None = None
    precisions: Annotated[tuple[Precision, ...], Field(max_length=16)] | None = None
    hardware_compatibility: Annotated[tuple[HardwareCompatibility, ...], Field(max_length=8)] | None = None
    model_sources: Annotated[tuple[ModelSourceRule, ...], Field(max_length=_MOST_SOURCES)] | None = None
    digest_required: bool = False
    model_signers: Annotated[tuple[NamePattern, ...], Field(max_length=_MOST)] | None = None
    pod_template_fields: Annotated[tuple[PodTemplateField, ...], Field(max_length=16)] | None = None
    verification: PolicyVerification = PolicyVerification()
    limits: PolicyLimits = PolicyLimits()
    defaults: PolicyDefaults = PolicyDefaults()

    @model_validator(mode="after")
    def _require_defaults_that_are_allowed(self) -> "EnginePolicySpec":
        given, gate = self.defaults, self.verification
        pairs = (
            (("build", "timeout"), given.build.timeout_seconds, self.limits.build_timeout),
            (("build", "workspace"), given.build.workspace_bytes, self.limits.workspace),
            (("verification", "limit"), given.verification.limit, gate.largest_limit),
            (("verification", "agreement"), gate.smallest_agreement, given.verification.agreement),
        )
        wrong: list[tuple[str, ...]] = [
            path for path, low, high in pairs if low is not None and high is not None and low > high
        ]
        if given.precision is not None and self.precisions is not None and given.precision not in self.precisions:
            wrong.append(("precision",))
        raise_findings(Finding("the default is not what the policy allows", path=("defaults", *path)) for path in wrong)
        return self


class PolicyMetadata(ObjectMetadata):
    """Kubernetes' own metadata of a policy.

    Attributes:
        name: Name of the policy.
    """

    name: KubernetesName


class EnginePolicy(ApiModel):
    """Rules for the InferenceEngines of some namespaces. All policies that select a namespace hold together.

    Attributes:
        api_version: API group and version of this kind.
        kind: Name of this kind.
        metadata: Name, labels and annotations of the object.
        spec: Values that InferenceEngines of the selected namespaces may have.
    """

    api_version: Literal["enginesmith.io/v1alpha1"] = "enginesmith.io/v1alpha1"
    kind: Literal["EnginePolicy"] = "EnginePolicy"
    metadata: PolicyMetadata
    spec: EnginePolicySpec

    @property
    def name(self) -> str:
        """Return the policy's name."""
        return self.metadata.name
