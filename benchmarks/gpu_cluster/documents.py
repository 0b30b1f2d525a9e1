"""The engines' documents, and how their status says which engine answers: all that follows the API is in this file."""

from collections.abc import Mapping
from typing import Any, Final

from benchmarks.gpu_cluster.workplace import Workplace
from tests.cluster.engines import Document, Tenant

__all__ = [
    "SHAPES",
    "TARGET",
    "apply_engine",
    "builds",
    "facts",
    "profile_of_cls",
    "serves_full_engine",
    "serves_quick_engine",
    "waits_for_gpu",
]

TARGET: Final = "gpu"

SHAPES: Final[dict[str, list[list[int]]]] = {
    "cls": [[1, 3, 48, 192], [4, 3, 48, 192], [16, 3, 48, 192]],
    "det": [[1, 3, 320, 320], [1, 3, 640, 960], [1, 3, 960, 960]],
    "rec": [[1, 3, 48, 320], [1, 3, 48, 480], [4, 3, 48, 960]],
}
"""What each model is asked with: min, opt and max or nearly so."""

_PROFILES: Final[dict[str, Document]] = {
    "cls": {"min": [1, 3, 48, 192], "opt": [4, 3, 48, 192], "max": [16, 3, 48, 192]},
    "det": {"min": [1, 3, 320, 320], "opt": [1, 3, 640, 960], "max": [1, 3, 960, 960]},
    "rec": {"min": [1, 3, 48, 32], "opt": [1, 3, 48, 480], "max": [4, 3, 48, 960]},
}
# One toolchain, whatever else the catalog offers: the images that lie claim later versions.
_TOOLCHAIN: Final = {"tensorrt": ">=10.6,<10.7"}


def apply_engine(work: Workplace, model: str, *, replicas: int = 1, is_quick: bool = False, **spec: object) -> None:
    """Apply the engine of a model, named after it; `spec` adds to the specification or replaces parts of it."""
    backend = work.settings.backend
    target: Document = {"name": TARGET, "backend": backend, "gpu": {"product": work.product}, "replicas": replicas}
    known: Document = {"profiles": [_profile(_PROFILES[model])]}
    if model == "det":
        known["verification"] = {"inputs": {"x": {"range": [-1, 1]}}}
    if backend == "tensorrt":
        known["toolchain"] = dict(_TOOLCHAIN)
    if is_quick and work.settings.is_quick:
        known["build"] = {"quickStart": True}
    work.tenant(model).apply(model, [target], **known | spec)


def profile_of_cls(*, most: int) -> list[Document]:
    """Return the classifier's profiles with another largest batch."""
    return [_profile({"min": [1, 3, 48, 192], "opt": [4, 3, 48, 192], "max": [most, 3, 48, 192]})]


def serves_full_engine(tenant: Tenant, name: str) -> bool:
    """Return whether requests are answered by the engine that the present spec asks for, and by no other one."""
    found = tenant.get("inferenceengine", name)
    status = found.get("status") or {}
    conditions = {one["type"]: one for one in status.get("conditions", ())}
    is_current = status.get("observedGeneration") == found["metadata"]["generation"]
    up_to_date = conditions.get("UpToDate", conditions.get("Ready", {})).get("status") == "True"
    targets = status.get("targets") or ()
    return bool(
        is_current
        and up_to_date
        and targets
        and all(one.get("phase") == "Serving" and _serves_desired(one) for one in targets)
    )


def serves_quick_engine(tenant: Tenant, name: str) -> bool:
    """Return whether requests are answered by a quick engine."""
    targets = (tenant.get("inferenceengine", name).get("status") or {}).get("targets") or ()
    return any(engine.get("servingQuick") for one in targets for engine in one.get("engines", ()))


def waits_for_gpu(target: Mapping[str, Any]) -> bool:
    """Return whether a target's status says that it found no free GPU."""
    return target.get("phase") == "WaitingForGPU" or target.get("reason") == "WaitingForGPU"


def facts(tenant: Tenant, name: str) -> Document:
    """Return what the status says, without keys and times."""
    status = tenant.get("inferenceengine", name).get("status") or {}
    return {
        "conditions": {
            one["type"]: [one["status"], one.get("reason", ""), one.get("message", "")]
            for one in status.get("conditions", ())
        },
        "targets": [
            {
                field: one.get(field)
                for field in ("phase", "reason", "message", "replicas", "readyReplicas", "toolchain")
            }
            for one in status.get("targets", ())
        ],
        "preparation": status.get("preparation", {}).get("phase"),
        "warnings": status.get("preparation", {}).get("warnings"),
    }


def builds(tenant: Tenant) -> dict[str, Document]:
    """Return what every build of the namespace took and made, by name."""
    found = {}
    for one in tenant.get("enginebuilds")["items"]:
        status = one.get("status") or {}
        result = status.get("result") or {}
        found[one["metadata"]["name"]] = {
            "phase": status.get("phase"),
            "podSeconds": status.get("durationSeconds"),
            "buildSeconds": result.get("buildSeconds"),
            "latencySeconds": result.get("latencySeconds"),
            "difference": result.get("difference"),
            "verification": result.get("verification"),
            "level": one["spec"]["request"].get("options", {}).get("optimizationLevel"),
            "timingCache": result.get("timingCache"),
            "failure": status.get("failure"),
        }
    return found


def _profile(x: Document) -> Document:
    return {"name": "p", "inputs": {"x": x}}


def _serves_desired(target: Mapping[str, Any]) -> bool:
    is_quick = any(engine.get("servingQuick") for engine in target.get("engines", ()))
    return not is_quick and set(target.get("serving", ())) == set(target.get("desired", ()))
