"""`spec.podTemplate`: what a user may set on the pods that build and serve, and no more."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, field_validator, model_validator

from enginesmith_contract.reserved_variables import is_reserved
from enginesmith_operator.api.base import ApiModel, Finding, finding_error, raise_findings
from enginesmith_operator.api.bounds import between_quantities
from enginesmith_operator.api.quantities import ResourceQuantity, quantity_value, spell_resource
from enginesmith_operator.api.scalars import KubernetesName

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
        requests: what the scheduler sets aside, by resource name.
        limits: what the container may not exceed, by resource name.
    """

    requests: Annotated[Mapping[LabelName, _Amount], Field(max_length=32)] = {}
    limits: Annotated[Mapping[LabelName, _Amount], Field(max_length=32)] = {}

    @model_validator(mode="after")
    def _request_no_more_than_the_limit(self) -> "ResourceRequirements":
        raise_findings(
            Finding(f"the limit of {name} is {self.limits[name]}", str(self.limits[name]), ("requests", name))
            for name, value in self.requests.items()
            if name in self.limits and quantity_value(str(value)) > quantity_value(str(self.limits[name]))
        )
        return self

    def spelled(self) -> "ResourceRequirements":
        """Return the same amounts in the API server's spelling: another spelling is no reason to change anything."""
        return ResourceRequirements(
            requests={name: spell_resource(value) for name, value in self.requests.items()},
            limits={name: spell_resource(value) for name, value in self.limits.items()},
        )


class TolerationOperator(StrEnum):
    """How a toleration's key and value are compared with a taint's."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does to pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(ApiModel):
    """A taint that the pods put up with. The taint `nvidia.com/gpu` is tolerated without being named.

    Attributes:
        key: of the taint; omitted: every taint.
        operator: whether `value` is compared.
        value: of the taint.
        effect: of the taint; omitted: every effect.
        toleration_seconds: how long a NoExecute taint is put up with, in seconds; omitted: for ever. Only with the
            effect NoExecute.
    """

    key: Annotated[str, Field(max_length=316)] | None = None
    operator: TolerationOperator = TolerationOperator.EQUAL
    value: LabelValue | None = None
    effect: TaintEffect | None = None
    toleration_seconds: Annotated[int, Field(ge=0, le=_LONGEST_TOLERATION)] | None = None

    @model_validator(mode="after")
    def _be_one_that_kubernetes_takes(self) -> "Toleration":
        if self.toleration_seconds is not None and self.effect is not TaintEffect.NO_EXECUTE:
            hint = "set effect to NoExecute, or remove tolerationSeconds"
            raise finding_error(Finding("only a NoExecute taint has seconds", path=("tolerationSeconds",), hint=hint))
        if self.operator is TolerationOperator.EXISTS and self.value:
            hint = "remove value, or set operator to Equal"
            raise finding_error(Finding("Exists compares no value", path=("value",), hint=hint))
        if self.operator is TolerationOperator.EQUAL and not self.key:
            raise finding_error(Finding("a toleration of every taint has no key to compare", "Exists", ("operator",)))
        return self


class LocalObjectReference(ApiModel):
    """An object of the same namespace.

    Attributes:
        name: of the object.
    """

    name: KubernetesName


class KeySelector(ApiModel):
    """One key of a Secret or a ConfigMap.

    Attributes:
        name: of the Secret or ConfigMap.
        key: whose value is taken.
        optional: whether the pod starts without it.
    """

    name: KubernetesName
    key: Annotated[str, Field(min_length=1, max_length=253)]
    optional: bool = False


class FieldSelector(ApiModel):
    """A field of the pod itself.

    Attributes:
        field_path: such as `metadata.name` or `status.podIP`.
        api_version: of the schema that `fieldPath` is written in.
    """

    field_path: Annotated[str, Field(min_length=1, max_length=316)]
    api_version: Annotated[str, Field(max_length=63)] = "v1"


class EnvSource(ApiModel):
    """Where the value of an environment variable comes from; exactly one.

    Attributes:
        secret_key_ref: a key of a Secret.
        config_map_key_ref: a key of a ConfigMap.
        field_ref: a field of the pod.
    """

    secret_key_ref: KeySelector | None = None
    config_map_key_ref: KeySelector | None = None
    field_ref: FieldSelector | None = None

    @model_validator(mode="after")
    def _be_one(self) -> "EnvSource":
        if sum(each is not None for each in (self.secret_key_ref, self.config_map_key_ref, self.field_ref)) != 1:
            raise finding_error(Finding("expected exactly one of secretKeyRef, configMapKeyRef and fieldRef"))
        return self


class EnvVar(ApiModel):
    """An environment variable of the pods.

    Attributes:
        name: of the variable. Variables that change what the processes load are refused: PYTHON*, LD_*, PATH, HOME,
            ENGINESMITH_* and others (docs/operator.md).
        value: as a string.
        value_from: another place to take the value from.
    """

    name: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")]
    value: Annotated[str, Field(max_length=8192)] | None = None
    value_from: EnvSource | None = None

    @field_validator("name")
    @classmethod
    def _be_harmless(cls, name: str) -> str:
        if is_reserved(name):
            raise finding_error(
                Finding(
                    f"{name} changes what the pods' processes load, so no user may set it",
                    hint="leave it out; docs/operator.md lists the variables that are refused",
                )
            )
        return name

    @model_validator(mode="after")
    def _have_one_value(self) -> "EnvVar":
        if self.value is not None and self.value_from is not None:
            raise finding_error(Finding("value and valueFrom exclude each other", path=("valueFrom",)))
        return self


class PodTemplate(ApiModel):
    """What is added to the pods that prepare, build and serve.

    Attributes:
        node_selector: labels that a node must have, beside the hardware pin.
        tolerations: taints to put up with; that of GPU nodes is tolerated already.
        runtime_class_name: RuntimeClass, such as `nvidia`.
        image_pull_secrets: Secrets for the images' registry.
        service_account_name: ServiceAccount of the pods; Enginesmith's pods call no API.
        env: environment variables.
        resources: CPU, memory and other resources of the serving container; the GPU itself is added. The step that
            fetches the engine takes the same CPU and memory.
        priority_class_name: PriorityClass of the serving pods.
    """

    node_selector: Annotated[Mapping[LabelName, LabelValue], Field(max_length=32)] = {}
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    runtime_class_name: KubernetesName | None = None
    image_pull_secrets: Annotated[tuple[LocalObjectReference, ...], Field(max_length=16)] = ()
    service_account_name: KubernetesName | None = None
    env: Annotated[tuple[EnvVar, ...], Field(max_length=128)] = ()
    resources: ResourceRequirements = ResourceRequirements()
    priority_class_name: KubernetesName | None = None
