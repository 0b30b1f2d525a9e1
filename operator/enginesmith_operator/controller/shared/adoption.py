"""Objects with the operator's labels and no owner: left by `kubectl delete --cascade=orphan`, or restored. Pure.

An object that is exactly what would be created now is adopted. Any other is reported: a user may have changed it on
purpose.
"""

from collections.abc import Iterable
from typing import Final

from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.shared.drift import must_apply
from enginesmith_operator.kinds import APPLIED, JOB
from enginesmith_operator.objects.labels import ENGINE, MANAGED_BY, MANAGER, TEMPLATE

__all__ = ["adopted", "is_orphan", "may_adopt", "orphan_names"]

_KINDS: Final = APPLIED | {JOB.kind}

_JOB_LABEL: Final = "batch.kubernetes.io/"
# Fields that the API server and its controllers add to what the operator writes.
_DEFAULTS: Final = frozenset(
    {
        # Pods.
        *("restartPolicy", "dnsPolicy", "schedulerName", "serviceAccount", "terminationGracePeriodSeconds"),
        *("apiVersion", "protocol", "defaultMode", "successThreshold", "creationTimestamp", "resources"),
        # Jobs.
        *("parallelism", "completions", "completionMode", "selector", "manualSelector", "podReplacementPolicy"),
        *("suspend", "controller-uid", "job-name"),
        # Deployments, Services, budgets, autoscalers.
        *("replicas", "clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"),
        *("sessionAffinity", "type", "behavior"),
    }
)


def is_orphan(live: Json, engine: str) -> bool:
    """Whether an object was created for an InferenceEngine of this name and has no owner now.

    Args:
        live: as the cluster has it.
        engine: its name, as the labels say it.
    """
    metadata = live["metadata"]
    labels = metadata.get("labels") or {}
    is_ours = (labels.get(MANAGED_BY), labels.get(ENGINE)) == (MANAGER, engine)
    return is_ours and not metadata.get("ownerReferences") and "deletionTimestamp" not in metadata


def may_adopt(live: Json, desired: Json) -> bool:
    """Whether `live` is an orphan and exactly what `desired` would make; how many replicas it has does not count."""
    metadata = desired["metadata"]
    if not is_orphan(live, metadata["labels"][ENGINE]):
        return False
    spec = {name: value for name, value in desired["spec"].items() if name not in {"replicas", "suspend"}}
    template = (metadata.get("annotations") or {}).get(TEMPLATE)
    wanted = {
        "kind": desired["kind"],
        "metadata": {"labels": metadata["labels"]} | ({"annotations": {TEMPLATE: template}} if template else {}),
        "spec": spec,
    }
    return not must_apply(wanted, {"kind": desired["kind"], **live}) and _has_no_more(live["spec"], spec)


def adopted(live: Json, desired: Json) -> Json:
    """Return what to apply so that an object that never changes gets its owner."""
    metadata = desired["metadata"]
    named = {key: metadata[key] for key in ("name", "namespace", "ownerReferences")}
    head = {key: desired[key] for key in ("apiVersion", "kind")}
    return {**head, "metadata": {**named, "uid": live["metadata"]["uid"]}}


def orphan_names(objects: Iterable[Json], engine: str) -> tuple[str, ...]:
    """Return kind and name of every orphan among objects, in order."""
    found = (one for one in objects if one["kind"] in _KINDS and is_orphan(one, engine))
    return tuple(sorted(f"{one['kind']} {one['metadata']['name']}" for one in found))


def _has_no_more(live: object, wanted: object) -> bool:
    """Whether `live` has nothing that `wanted` lacks (a container, a variable, an argument) but the API's defaults."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        more = {key for key in live if key not in wanted and not key.startswith(_JOB_LABEL)}
        return more <= _DEFAULTS and all(_has_no_more(live.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(live, list):
        return len(live) == len(wanted) and all(map(_has_no_more, live, wanted))
    return True
