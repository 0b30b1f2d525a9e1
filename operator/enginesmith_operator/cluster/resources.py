"""The kinds that the operator reads and writes, with what their URLs need."""

from dataclasses import dataclass
from typing import Final

__all__ = [
    "AUTOSCALER",
    "CONFIG_MAP",
    "DEPLOYMENT",
    "DISRUPTION_BUDGET",
    "ENGINE_BUILD",
    "EVENT",
    "INFERENCE_ENGINE",
    "JOB",
    "LEASE",
    "NODE",
    "POD",
    "RESOURCE_SLICE",
    "SERVICE",
    "VOLUME_CLAIM",
    "Resource",
    "resource_of",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Resource:
    """One kind.

    Attributes:
        group: empty for the core group.
        plural: as URLs and RBAC rules spell it.
    """

    group: str
    version: str
    kind: str
    plural: str
    is_namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Return what an object's apiVersion says."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        """Return the URL path of an object, of a namespace's objects or of all of them."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root]
        if self.is_namespaced and namespace is not None:
            parts.append(f"namespaces/{namespace}")
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


INFERENCE_ENGINE: Final = Resource(
    group="enginesmith.io", version="v1alpha1", kind="InferenceEngine", plural="inferenceengines"
)
ENGINE_BUILD: Final = Resource(group="enginesmith.io", version="v1alpha1", kind="EngineBuild", plural="enginebuilds")
JOB: Final = Resource(group="batch", version="v1", kind="Job", plural="jobs")
DEPLOYMENT: Final = Resource(group="apps", version="v1", kind="Deployment", plural="deployments")
SERVICE: Final = Resource(group="", version="v1", kind="Service", plural="services")
DISRUPTION_BUDGET: Final = Resource(
    group="policy", version="v1", kind="PodDisruptionBudget", plural="poddisruptionbudgets"
)
AUTOSCALER: Final = Resource(
    group="autoscaling", version="v2", kind="HorizontalPodAutoscaler", plural="horizontalpodautoscalers"
)
POD: Final = Resource(group="", version="v1", kind="Pod", plural="pods")
NODE: Final = Resource(group="", version="v1", kind="Node", plural="nodes", is_namespaced=False)
RESOURCE_SLICE: Final = Resource(
    group="resource.k8s.io", version="v1", kind="ResourceSlice", plural="resourceslices", is_namespaced=False
)
CONFIG_MAP: Final = Resource(group="", version="v1", kind="ConfigMap", plural="configmaps")
VOLUME_CLAIM: Final = Resource(group="", version="v1", kind="PersistentVolumeClaim", plural="persistentvolumeclaims")
EVENT: Final = Resource(group="", version="v1", kind="Event", plural="events")
LEASE: Final = Resource(group="coordination.k8s.io", version="v1", kind="Lease", plural="leases")

_ALL: Final = (
    INFERENCE_ENGINE,
    ENGINE_BUILD,
    JOB,
    DEPLOYMENT,
    SERVICE,
    DISRUPTION_BUDGET,
    AUTOSCALER,
    POD,
    NODE,
    RESOURCE_SLICE,
    CONFIG_MAP,
    VOLUME_CLAIM,
    EVENT,
    LEASE,
)
_BY_KIND: Final = {resource.kind: resource for resource in _ALL}


def resource_of(kind: str) -> Resource:
    """Return the resource of a kind that this module lists; a KeyError is a fault of ours."""
    return _BY_KIND[kind]
