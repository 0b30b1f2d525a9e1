"""The operator's configuration file: what an administrator decides for the whole cluster.

It is YAML with the names of `OperatorSettings` in camelCase, mounted from the chart's ConfigMap; a change takes a new
pod. Everything has a default but the store: without one each InferenceEngine has to name its own.
"""

from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import yaml
from pydantic import AfterValidator, Field, ValidationError, WithJsonSchema, model_validator

from enginesmith_contract.address_rules import AddressRules
from enginesmith_contract.errors import SpecError
from enginesmith_contract.provenance import BuildOrigin
from enginesmith_contract.release import RELEASE
from enginesmith_contract.signatures import public_key_problem
from enginesmith_contract.text import one_line
from enginesmith_operator.api.base import ApiModel, Finding, finding_error
from enginesmith_operator.api.bounds import between_durations
from enginesmith_operator.api.pod_template import ResourceRequirements
from enginesmith_operator.api.quantities import Duration, SpelledSeconds
from enginesmith_operator.api.scalars import KubernetesName, Name, Sha256
from enginesmith_operator.api.store import StoreSpec
from enginesmith_operator.objects.pod_rules import PodRules
from enginesmith_operator.planning.label_mapping import (
    LabelMapping,
    LabelValues,
    Resource,
    Scheme,
    load_label_mapping,
)
from enginesmith_operator.planning.snapshot import NodeClass

__all__ = [
    "AddressSettings",
    "CatalogSettings",
    "JobSettings",
    "LabelSettings",
    "LeaseSettings",
    "OperatorSettings",
    "SignatureSettings",
    "StoreSettings",
    "TracingSettings",
    "load_settings",
]

_SdkVariable = Annotated[str, Field(pattern=r"^OTEL_[A-Z0-9_]{1,120}$")]
_PortNumber = Annotated[int, Field(ge=0, le=65_535)]


def _check_range(text: str) -> str:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise finding_error(Finding(f"expected a range of addresses: {error}", "10.1.0.0/16")) from error
    if "/" not in text:
        raise finding_error(Finding("expected a range of addresses with its length", str(network)))
    return text


_OCTET: Final = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4: Final = rf"({_OCTET}\.){{3}}{_OCTET}/(3[0-2]|[12]?[0-9])"
_IPV6: Final = r"(::|[0-9A-Fa-f]{1,4}:[0-9A-Fa-f:]{1,37})/(12[0-8]|1[01][0-9]|[1-9]?[0-9])"
_Range = Annotated[
    str,
    AfterValidator(_check_range),
    WithJsonSchema({"type": "string", "maxLength": 64, "pattern": f"^({_IPV4}|{_IPV6})$"}),
]


class AddressSettings(ApiModel):
    """Which addresses pods may connect to when they fetch models and reach stores.

    Public addresses are allowed, and the endpoint of the default store.

    Attributes:
        allowed: ranges that are allowed although they are not public; a metadata service takes an entry of its own.
        denied: ranges that are refused although they are public, such as a cluster's own public addresses.
    """

    allowed: Annotated[tuple[_Range, ...], Field(max_length=256)] = ()
    denied: Annotated[tuple[_Range, ...], Field(max_length=256)] = ()


class StoreSettings(ApiModel):
    """Where engines are kept unless an InferenceEngine says otherwise.

    Attributes:
        default: used where `spec.store` is omitted; omitted: every InferenceEngine names its store.
        shared: whether all namespaces share the default's prefix; otherwise each has a folder of its own, and a tenant
            can neither read nor replace the engines of another.
    """

    default: StoreSpec | None = None
    shared: bool = False

    @model_validator(mode="after")
    def _reject_local_path(self) -> Self:
        if self.default is not None and self.default.path is not None:
            raise finding_error(Finding("a folder can be used only in local mode", path=("default", "path")))
        return self


class CatalogSettings(ApiModel):
    """The ConfigMap with the toolchain catalog.

    Attributes:
        name: of the ConfigMap.
        namespace: of the ConfigMap; omitted: the operator's own.
    """

    name: KubernetesName = "enginesmith-toolchains"
    namespace: KubernetesName | None = None


class LeaseSettings(ApiModel):
    """The Lease by which one of several replicas leads.

    Attributes:
        name: of the Lease.
        namespace: of the Lease; omitted: the operator's own.
    """

    name: Name = "enginesmith-operator"
    namespace: KubernetesName | None = None


class JobSettings(ApiModel):
    """Limits of the Jobs that prepare or build.

    Attributes:
        backoff_limit: further attempts after a failure that may be the node's.
        ttl_seconds: how long a finished Job and its log stay.
        timeout_seconds: after this a preparation is stopped; builds have `spec.build.timeout`.
        resources: of the container where an InferenceEngine names none.
    """

    backoff_limit: Annotated[int, Field(ge=0, le=20)] = 2
    ttl_seconds: Annotated[Duration, between_durations("0s", "8760h")] = Field(
        default=SpelledSeconds(3600.0, "1h"), alias="ttl"
    )
    timeout_seconds: Annotated[Duration, between_durations("1s", "168h")] = Field(
        default=SpelledSeconds(3600.0, "1h"), alias="timeout"
    )
    resources: ResourceRequirements = ResourceRequirements()


class LabelSettings(ApiModel):
    """What this cluster's nodes call their GPUs, in addition to what the product contains (planning/data/clouds.yaml).

    Attributes:
        schemes: looked at before the product's own.
        resources: extended resources that hand out NVIDIA GPUs.
        sharing: labels that say that GPUs are shared.
    """

    schemes: Annotated[tuple[Scheme, ...], Field(max_length=64)] = ()
    resources: Annotated[tuple[Resource, ...], Field(max_length=64)] = ()
    sharing: Annotated[tuple[LabelValues, ...], Field(max_length=64)] = ()

    def merged(self) -> LabelMapping:
        """Return the product's mapping with these additions."""
        mapping = load_label_mapping()
        names = {resource.name for resource in self.resources}
        return mapping.model_copy(
            update={
                "schemes": (*self.schemes, *mapping.schemes),
                "resources": (*self.resources, *(one for one in mapping.resources if one.name not in names)),
                "sharing": (*self.sharing, *mapping.sharing),
            }
        )


class TracingSettings(ApiModel):
    """Where servers send the spans of requests.

    Attributes:
        endpoint: URL of a collector that speaks OTLP.
        protocol: that the collector speaks there.
        variables: further variables of the OpenTelemetry SDK, such as its sampler.
    """

    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s/]+(/\S*)?$", max_length=2048)]
    protocol: Literal["grpc", "http/protobuf"] = "grpc"
    variables: dict[_SdkVariable, Annotated[str, Field(max_length=4096)]] = Field(
        default_factory=dict, max_length=64, json_schema_extra={"additionalProperties": False}
    )

    @model_validator(mode="after")
    def _reject_set_variables(self) -> Self:
        for name in sorted(self.variables.keys() & {*self.environment_of_fields, "OTEL_SERVICE_NAME"}):
            raise finding_error(Finding(f"the operator sets {name}", path=("variables", name)))
        return self

    @property
    def environment_of_fields(self) -> dict[str, str]:
        """Return the variables that the fields stand for."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": self.protocol}

    @property
    def environment(self) -> dict[str, str]:
        """Return all variables, in one order."""
        return dict(sorted({**self.variables, **self.environment_of_fields}.items()))


def _check_public_key(text: str) -> str:
    problem = public_key_problem(text)
    if problem:
        raise finding_error(Finding(problem))
    return text


_PublicKey = Annotated[
    str,
    AfterValidator(_check_public_key),
    WithJsonSchema({"type": "string", "maxLength": 1024, "pattern": "^\\s*-----BEGIN PUBLIC KEY-----"}),
]


class SignatureSettings(ApiModel):
    """Who may sign models and engines (docs/signatures.md).

    Attributes:
        model_keys: public keys in PEM by name; one must have signed a model with `spec.model.signature`.
        engine_keys: public keys in PEM by name; if there are any, only engines that one signed are reused and served.
        engine_secret: Secret in each namespace of engines with `key.pem`, the private key that builders sign with.
    """

    model_keys: Annotated[Mapping[KubernetesName, _PublicKey], Field(max_length=32)] = {}
    engine_keys: Annotated[Mapping[KubernetesName, _PublicKey], Field(max_length=32)] = {}
    engine_secret: KubernetesName | None = None

    @model_validator(mode="after")
    def _require_secret(self) -> Self:
        if self.engine_keys and self.engine_secret is None:
            reason = "engineKeys require it: without a key, builders cannot store engines"
            raise finding_error(Finding(reason, path=("engineSecret",)))
        return self


class OperatorSettings(ApiModel):
    """The whole configuration of the operator.

    Attributes:
        store: where engines are kept.
        namespaces: whose engines the operator works on, in addition to the catalog's; omitted: every namespace.
        catalog: which TensorRT versions there are.
        lease: how one replica is chosen.
        registration_namespace: of the Lease in which each operator of a cluster enters the namespaces that it works on.
        labels: how nodes are read.
        node_classes: pools that may have no node now; a pending pod wakes their autoscaler.
        node_grace_seconds: how long a node whose GPU labels or GPUs vanished is believed to have them still.
        preparation: of the Jobs that prepare.
        build: of the Jobs that build.
        addresses: what pods may connect to.
        signatures: who may sign models and engines.
        cluster_name: what the provenance of engines calls this cluster.
        allowed_plugins: digests of the plugin libraries that may be loaded; omitted: any, since each names its digest.
        build_for_absent_gpus: whether TensorRT for RTX may build for hardware that no node has.
        tracing: where servers send the spans of requests; omitted: nowhere.
        workers: objects that are worked on at the same time.
        health_port: of /healthz, /readyz and /metrics.
        resync_seconds: how often every object is looked at again although nothing was heard of it.
    """

    store: StoreSettings = StoreSettings()
    namespaces: Annotated[tuple[KubernetesName, ...], Field(max_length=256)] = ()
    catalog: CatalogSettings = CatalogSettings()
    lease: LeaseSettings = LeaseSettings()
    registration_namespace: KubernetesName = "kube-system"
    labels: LabelSettings = LabelSettings()
    node_classes: Annotated[tuple[NodeClass, ...], Field(max_length=256)] = ()
    node_grace_seconds: Annotated[Duration, between_durations("0s", "24h")] = Field(
        default=SpelledSeconds(120.0, "2m"), alias="nodeGrace"
    )
    preparation: JobSettings = JobSettings()
    build: JobSettings = JobSettings()
    addresses: AddressSettings = AddressSettings()
    signatures: SignatureSettings = SignatureSettings()
    cluster_name: Annotated[str, Field(max_length=253)] = ""
    allowed_plugins: Annotated[tuple[Sha256, ...], Field(max_length=1024)] | None = None
    build_for_absent_gpus: bool = False
    tracing: TracingSettings | None = None
    workers: Annotated[int, Field(ge=1, le=64)] = 16
    health_port: _PortNumber = 8080
    resync_seconds: Annotated[Duration, between_durations("1s", "24h")] = Field(
        default=SpelledSeconds(600.0, "10m"), alias="resync"
    )

    @property
    def pod_rules(self) -> PodRules:
        """Return the rules for all pods."""
        return PodRules(
            allowed_plugins=self.allowed_plugins,
            addresses=self.address_rules,
            engine_keys=self.signatures.engine_keys,
            signing_secret=self.signatures.engine_secret,
            origin=BuildOrigin(operator_version=RELEASE, cluster=self.cluster_name or None),
        )

    @property
    def address_rules(self) -> AddressRules:
        """Return what pods may connect to."""
        default = self.store.default
        endpoint = default.s3.endpoint if default is not None and default.s3 is not None else None
        if default is not None and default.oci is not None:
            endpoint = f"{'http' if default.oci.plain_http else 'https'}://{default.oci.repository}"
        return AddressRules(
            allowed=self.addresses.allowed,
            denied=self.addresses.denied,
            endpoints=(endpoint,) if endpoint else (),
        )


_REMEDY: Final = "see docs/operator.md for the fields"


def load_settings(path: Path | None) -> OperatorSettings:
    """Return the configuration in a file; without a file, the defaults.

    Raises:
        enginesmith_contract.errors.SpecError: the file cannot be read or is wrong; every wrong field is named.
    """
    if path is None:
        return OperatorSettings()
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = one_line(str(error))
        raise SpecError("the configuration cannot be read", where=str(path), why=why, remedy=_REMEDY) from error
    try:
        return OperatorSettings.model_validate(document or {}, by_name=False)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, one['loc'])) or 'document'}: {one['msg']}" for one in error.errors()]
        raise SpecError(
            "the configuration is wrong", where=str(path), why="; ".join(problems), remedy=_REMEDY
        ) from error
