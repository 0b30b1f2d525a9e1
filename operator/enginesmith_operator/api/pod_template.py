"""`spec.podTemplate`: the fields that a user may set on the pods that prepare, build and serve."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, field_validator, model_validator

from enginesmith_contract.reserved_variables import is_reserved
from enginesmith_operator.api.base import ApiModel, Finding, finding_error, raise_findings
from enginesmith_operator.api.bounds import between_quantities
from enginesmith_operator.api.quantities import ResourceQuantity, quantity_value, spell_resource
from enginesmith_operator.api.scalars import KubernetesName, PriorityClassName

__all__ = [
    "EnvSource",
    "EnvVar",
    "FieldSelector",
    "KeySelector",
    "LabelName",
    "LabelValue",
    "LocalObjectReference",
    "PodTemplate",
    "ResourceRequirements",
    "TaintEffect",
    "Toleration",
    "TolerationOperator",
]

LabelName = Annotated[str, Field(max_length=316)]
LabelValue = Annotated[str, Field(max_length=63)]
_Amount = Annotated[ResourceQuantity, between_quantities("0", "1E")]
_LONGEST_TOLERATION: Final = 315_360_000


class ResourceRequirements(ApiModel):
    """CPU, memory and other resources of a container.

    Attributes:
        requests: Amounts that the scheduler reserves, by resource name.
        limits: Amounts that the container must not exceed, by resource name.
    """

    requests: Annotated[Mapping[LabelName, _Amount], Field(max_length=32)] = {}
    limits: Annotated[Mapping[LabelName, _Amount], Field(max_length=32)] = {}

    @model_validator(mode="after")
    def _require_requests_within_limits(self) -> "ResourceRequirements":
        raise_findings(
            Finding(f"the limit of {name} is {self.limits[name]}", str(self.limits[name]), ("requests", name))
            for name, value in self.requests.items()
            if name in self.limits and quantity_value(str(value)) > quantity_value(str(self.limits[name]))
        )
        return self

    def spelled(self) -> "ResourceRequirements":
        """Return the same amounts in the API server's spelling, so that a different spelling causes no update."""
        return ResourceRequirements(
            requests={name: spell_resource(value) for name, value in self.requests.items()},
            limits={name: spell_resource(value) for name, value in self.limits.items()},
        )


class TolerationOperator(StrEnum):
    """Comparison of a toleration's key and value with those of a taint."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """Effect of a taint on pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(ApiModel):
    """Taint that the pods tolerate. The taint `nvidia.com/gpu` is always tolerated.

    Attributes:
        key: Key of the taint. If omitted, every taint is tolerated, and `operator` must be `Exists`.
        operator: Comparison with the taint: `Equal` compares key and value, `Exists` only the key.
        value: Value of the taint. Only for the operator `Equal`.
        effect: Effect of the taint. If omitted, every effect is tolerated.
        toleration_seconds: Seconds to tolerate a NoExecute taint; unlimited if omitted. Only for the effect
            `NoExecute`.
    """

    key: Annotated[str, Field(max_length=316)] | None = None
    operator: TolerationOperator = TolerationOperator.EQUAL
    value: LabelValue | None = None
    effect: TaintEffect | None = None
    toleration_seconds: Annotated[int, Field(ge=0, le=_LONGEST_TOLERATION)] | None = None

    @model_validator(mode="after")
    def _require_valid_toleration(self) -> "Toleration":
        if self.toleration_seconds is not None and self.effect is not TaintEffect.NO_EXECUTE:
            hint = "set effect to NoExecute, or remove tolerationSeconds"
            raise finding_error(
                Finding("tolerationSeconds is only for the effect NoExecute", path=("tolerationSeconds",), hint=hint)
            )
        if self.operator is TolerationOperator.EXISTS and self.value:
            hint = "remove value, or set operator to Equal"
            raise finding_error(Finding("the operator Exists does not compare a value", path=("value",), hint=hint))
        if self.operator is TolerationOperator.EQUAL and not self.key:
            raise finding_error(
                Finding("a toleration without a key needs the operator Exists", "Exists", ("operator",))
            )
        return self


class LocalObjectReference(ApiModel):
    """Object in the same namespace.

    Attributes:
        name: Name of the object.
    """

    name: KubernetesName


class KeySelector(ApiModel):
    """One key of a Secret or a ConfigMap.

    Attributes:
        name: Name of the Secret or ConfigMap.
        key: Key whose value is used.
        optional: Whether the pod starts without the key.
    """

    name: KubernetesName
    key: Annotated[str, Field(min_length=1, max_length=253)]
    optional: bool = False


class FieldSelector(ApiModel):
    """Field of the pod itself.

    Attributes:
        field_path: Path of the pod's field, such as `metadata.name` or `status.podIP`.
        api_version: API version of the schema that `field_path` refers to.
    """

    field_path: Annotated[str, Field(min_length=1, max_length=316)]
    api_version: Annotated[str, Field(max_length=63)] = "v1"


class EnvSource(ApiModel):
    """Source of an environment variable's value. Exactly one field must be set.

    Attributes:
        secret_key_ref: Key of a Secret.
        config_map_key_ref: Key of a ConfigMap.
        field_ref: Field of the pod.
    """

    secret_key_ref: KeySelector | None = None
    config_map_key_ref: KeySelector | None = None
    field_ref: FieldSelector | None = None

    @model_validator(mode="after")
    def _require_exactly_one(self) -> "EnvSource":
        if sum(each is not None for each in (self.secret_key_ref, self.config_map_key_ref, self.field_ref)) != 1:
            raise finding_error(Finding("expected exactly one of secretKeyRef, configMapKeyRef and fieldRef"))
        return self


class EnvVar(ApiModel):
    """Environment variable of the pods.

    Attributes:
        name: Name of the variable. Names that change what the processes load are refused: PYTHON*, LD_*, PATH, HOME,
            ENGINESMITH_* and others (docs/operator.md).
        value: Value of the variable as a string.
        value_from: Source of the value, in place of `value`.
    """

    name: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")]
    value: Annotated[str, Field(max_length=8192)] | None = None
    value_from: EnvSource | None = None

    @field_validator("name")
    @classmethod
    def _reject_reserved_name(cls, name: str) -> str:
        if is_reserved(name):
            raise finding_error(
                Finding(
                    f"{name} changes what the pods' processes load, so it is not allowed",
                    hint="remove it; docs/operator.md lists the variables that are refused",
                )
            )
        return name

    @model_validator(mode="after")
    def _check_value_source(self) -> "EnvVar":
        if self.value is not None and self.value_from is not None:
            raise finding_error(Finding("value and valueFrom must not be set together", path=("valueFrom",)))
        return self


class PodTemplate(ApiModel):
    """Settings added to the pods that prepare, build and serve.

    Attributes:
        node_selector: Additional labels the node must have. The operator itself selects the hardware.
        tolerations: Taints that the pods tolerate. The taint `nvidia.com/gpu` is always tolerated.
        runtime_class_name: Name of the pods' RuntimeClass, such as `nvidia`.
        image_pull_secrets: Secrets with credentials for the images' registry.
        service_account_name: Name of the pods' ServiceAccount. The pods do not call the Kubernetes API.
        env: Environment variables of the pods.
        resources: CPU, memory and other resources of the serving container. The GPU is added automatically. The init
            container that fetches the engine gets the same CPU and memory.
        priority_class_name: Name of the PriorityClass of the serving pods.
    """

    node_selector: Annotated[Mapping[LabelName, LabelValue], Field(max_length=32)] = {}
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    runtime_class_name: KubernetesName | None = None
    image_pull_secrets: Annotated[tuple[LocalObjectReference, ...], Field(max_length=16)] = ()
    service_account_name: KubernetesName | None = None
    env: Annotated[tuple[EnvVar, ...], Field(max_length=128)] = ()
    resources: ResourceRequirements = ResourceRequirements()
    priority_class_name: PriorityClassName | None = None
