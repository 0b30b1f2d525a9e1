"""The operator's configuration file: what an administrator decides for the whole cluster.

It is YAML with the names of `OperatorSettings` in camelCase, mounted from the chart's ConfigMap; a change takes a new
pod. Everything has a default but the store: without one each InferenceEngine has to name its own.
"""

from pathlib import Path
from typing import Annotated, Final, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from enginesmith_contract.errors import SpecError
from enginesmith_contract.text import one_line
from enginesmith_operator.api.base import ApiModel, Finding, finding_error
from enginesmith_operator.api.bounds import between_durations
from enginesmith_operator.api.pod_template import ResourceRequirements
from enginesmith_operator.api.quantities import Duration, SpelledSeconds
from enginesmith_operator.api.scalars import KubernetesName, Name, Sha256
from enginesmith_operator.api.store import StoreSpec
from enginesmith_operator.planning.label_mapping import (
    LabelMapping,
    LabelValues,
    Resource,
    Scheme,
    load_label_mapping,
)
from enginesmith_operator.planning.snapshot import NodeClass

__all__ = [
    "CatalogSettings",
    "JobSettings",
    "LabelSettings",
    "LeaseSettings",
    "OperatorSettings",
    "StoreSettings",
    "load_settings",
]

_PortNumber = Annotated[int, Field(ge=0, le=65_535)]


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
            raise finding_error(Finding("a folder is for local mode only", path=("default", "path")))
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


class OperatorSettings(ApiModel):
    """The whole configuration of the operator.

    Attributes:
        store: where engines are kept.
        catalog: which TensorRT versions there are.
        lease: how one replica is chosen.
        labels: how nodes are read.
        node_classes: pools that may have no node now; a pending pod wakes their autoscaler.
        node_grace_seconds: how long a node whose GPU labels or GPUs vanished is believed to have them still.
        preparation: of the Jobs that prepare.
        build: of the Jobs that build.
        allowed_plugins: digests of the plugin libraries that may be loaded; omitted: any, since each names its digest.
        build_for_absent_gpus: whether TensorRT for RTX may build for hardware that no node has.
        workers: objects that are worked on at the same time.
        health_port: of /healthz, /readyz and /metrics.
        resync_seconds: how often every object is looked at again although nothing was heard of it.
    """

    store: StoreSettings = StoreSettings()
    catalog: CatalogSettings = CatalogSettings()
    lease: LeaseSettings = LeaseSettings()
    labels: LabelSettings = LabelSettings()
    node_classes: Annotated[tuple[NodeClass, ...], Field(max_length=256)] = ()
    node_grace_seconds: Annotated[Duration, between_durations("0s", "24h")] = Field(
        default=SpelledSeconds(120.0, "2m"), alias="nodeGrace"
    )
    preparation: JobSettings = JobSettings()
    build: JobSettings = JobSettings()
    allowed_plugins: Annotated[tuple[Sha256, ...], Field(max_length=1024)] | None = None
    build_for_absent_gpus: bool = False
    workers: Annotated[int, Field(ge=1, le=64)] = 16
    health_port: _PortNumber = 8080
    resync_seconds: Annotated[Duration, between_durations("1s", "24h")] = Field(
        default=SpelledSeconds(600.0, "10m"), alias="resync"
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
