"""Finds other writers of the operator's objects, what they change, and which field of the spec to use instead. Pure.

The API server records in every object which manager set which field last (`managedFields`). The operator resets each of
its fields that does not have the applied value, and reports that. Otherwise, two writers that each reset what the other
wrote would continue forever without a report.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from enginesmith_operator.cluster.client import FIELD_MANAGER
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.shared.drift import APPLIED_HASH, WHOLE, covers, covers_field, item_key
from enginesmith_operator.objects.labels import TARGET

__all__ = ["ForeignChange", "foreign_changes", "others_fields", "replicas_owner"]

REPLICAS: Final = ("spec", "replicas")
_MOST: Final = 3
_SHOWN: Final = 60
_POD_FIELDS: Final = {
    "env": "spec.podTemplate.env",
    "resources": "spec.podTemplate.resources",
    "nodeSelector": "spec.podTemplate.nodeSelector",
    "tolerations": "spec.podTemplate.tolerations",
    "runtimeClassName": "spec.podTemplate.runtimeClassName",
    "priorityClassName": "spec.podTemplate.priorityClassName",
    "serviceAccountName": "spec.podTemplate.serviceAccountName",
    "imagePullSecrets": "spec.podTemplate.imagePullSecrets",
    "affinity": "spec.targets[{target}].gpu or spec.podTemplate.nodeSelector",
    "image": "spec.toolchain (which chooses from the toolchain catalog)",
    "terminationGracePeriodSeconds": "spec.serving.drainDelay and gracePeriod",
}
_AUTOSCALER_FIELDS: Final = frozenset({"minReplicas", "maxReplicas", "metrics"})

Step = str | Mapping[str, Any]
"""A key, or the item of a list that has these fields."""


@dataclass(frozen=True, kw_only=True)
class ForeignChange:
    """One field of one object of the operator that another client changed.

    Attributes:
        manager: that wrote it last, as the API server names it; empty: not known.
        path: of the field, as people write it.
        advice: which field of the spec is for that.
    """

    kind: str
    name: str
    manager: str
    path: str
    found: str
    wanted: str
    advice: str

    def sentence(self) -> str:
        """Return who changed what, what the operator did, and what to do."""
        what = f"{self.path} of {self.kind} {self.name}"
        who = self.manager or "another user, or an admission webhook,"
        return f"{who} set {what} to {self.found}; it is {self.wanted} again: {self.advice}"


def others_fields(managed: Iterable[Json]) -> list[Json]:
    """Return the entries of `managedFields` that are not ours, without those for a status."""
    return [one for one in managed if one.get("manager") != FIELD_MANAGER and one.get("subresource") != "status"]


def replicas_owner(live: Json) -> str:
    """Return which other client set the number of replicas last; empty: none."""
    found = _owner(live, REPLICAS)
    return str(found.get("manager") or "") if found is not None else ""


def foreign_changes(desired: Json, live: Json | None) -> tuple[ForeignChange, ...]:
    """Return what others changed of an object since it was applied; nothing where something else is wanted now.

    Args:
        desired: with its stamp.
        live: as it was seen; None: it is not there.
    """
    if live is None or _stamp(live) != _stamp(desired):
        return ()
    target = str((desired["metadata"].get("labels") or {}).get(TARGET) or "")
    changes = []
    for path, found, wanted in _differences(live, desired, ()):
        owner = _owner(live, path) or _latest(live)
        text = _text(path)
        changes.append(
            ForeignChange(
                kind=desired["kind"],
                name=desired["metadata"]["name"],
                manager=_named(owner),
                path=text,
                found=_shown(found),
                wanted=_shown(wanted),
                advice=_advice(desired["kind"], path, target),
            )
        )
    return tuple(changes[:_MOST])


def _stamp(document: Json) -> str:
    return str((document["metadata"].get("annotations") or {}).get(APPLIED_HASH) or "")


def _differences(live: Any, wanted: Any, path: tuple[Step, ...]) -> Iterator[tuple[tuple[Step, ...], Any, Any]]:  # noqa: ANN401 - any JSON value
    """Give the deepest fields that differ, with both values; a field that is gone has None."""
    if covers(live, wanted):
        return
    if isinstance(wanted, dict) and isinstance(live, dict):
        parent = path[-1] if path and isinstance(path[-1], str) else ""
        for key, value in wanted.items():
            # Under its names, since they decide how values are compared.
            if covers_field(live, key, value, parent):
                continue
            if key in WHOLE:
                yield (*path, key), live.get(key), value
            else:
                yield from _differences(live.get(key), value, (*path, key))
        return
    key = item_key(wanted) if isinstance(wanted, list) and isinstance(live, list) else None
    if key is None:
        yield path, live, wanted
        return
    by_key = {one.get(key): one for one in live if isinstance(one, dict)}
    for item in wanted:
        yield from _differences(by_key.get(item[key]), item, (*path, {key: item[key]}))


def _owner(live: Json, path: Iterable[Step]) -> Json | None:
    """Return the newest entry of another manager that has a field; None: none has."""
    steps = tuple(path)
    entries = others_fields(live["metadata"].get("managedFields") or ())
    found = [one for one in entries if _has(one.get("fieldsV1") or {}, steps)]
    return max(found, key=lambda one: str(one.get("time") or ""), default=None)


def _latest(live: Json) -> Json | None:
    """Return the newest entry of another manager, because a manager that removes a field leaves no trace of it."""
    entries = others_fields(live["metadata"].get("managedFields") or ())
    return max(entries, key=lambda one: str(one.get("time") or ""), default=None)


def _has(fields: Json, steps: tuple[Step, ...]) -> bool:
    for step in steps:
        below = fields.get(f"f:{step}") if isinstance(step, str) else _item(fields, step)
        if below is None:
            return False
        fields = below
        if not fields:
            # A whole value, or a list that is written as a whole.
            return True
    return True


def _item(fields: Json, step: Mapping[str, Any]) -> Json | None:
    for key, below in fields.items():
        if key.startswith("k:") and step.items() <= json.loads(key[2:]).items():
            return dict(below)
    return None


def _named(owner: Json | None) -> str:
    """Return a manager as people know it: the autoscaler of Kubernetes writes as the controller manager does."""
    if owner is None:
        return ""
    manager = str(owner.get("manager") or "")
    is_autoscaler = manager == "kube-controller-manager" and owner.get("subresource") == "scale"
    return f"a HorizontalPodAutoscaler ({manager})" if is_autoscaler else manager


def _text(path: tuple[Step, ...]) -> str:
    parts: list[str] = []
    for step in path:
        if isinstance(step, str):
            parts.append(step)
        else:
            parts[-1] += f"[{', '.join(str(value) for value in step.values())}]"
    return ".".join(parts)


def _shown(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _advice(kind: str, path: tuple[Step, ...], target: str) -> str:
    names = [step for step in path if isinstance(step, str)]
    if path == REPLICAS:
        return (
            f"set spec.targets[{target}].replicas of the InferenceEngine, "
            f"or spec.targets[{target}].autoscaling to leave the number to an autoscaler"
        )
    if kind == "HorizontalPodAutoscaler" and _AUTOSCALER_FIELDS.intersection(names):
        return f"set spec.targets[{target}].autoscaling of the InferenceEngine"
    if "template" in names:
        fields = [_POD_FIELDS[name] for name in reversed(names) if name in _POD_FIELDS]
        if fields:
            return f"set {fields[0].format(target=target)} of the InferenceEngine"
    return "the operator decides it, and no field of the InferenceEngine changes it"
