"""Where a pod may run: node affinity, tolerations and topology, from pins and a user's pod template."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from enginesmith_operator.api.pod_template import TaintEffect, Toleration, TolerationOperator
from enginesmith_operator.planning.cloud_labels import LabelPin
from enginesmith_operator.planning.tolerations import ARCH_TOLERATION, GPU_TOLERATION

__all__ = [
    "LOST_NODE_SECONDS",
    "lost_node_tolerations",
    "node_affinity",
    "pin_annotations",
    "spread",
    "tolerations",
]

LOST_NODE_SECONDS: Final = 30
"""How long a serving pod is believed to be alive on a node that does not report; Kubernetes' own default is 300."""
# Tencent TKE's serverless nodes give a GPU only to a pod that names the model itself, under the label's own key.
_ANNOTATED_PINS: Final = frozenset({"eks.tke.cloud.tencent.com/gpu-type"})
_ARCH: Final = "kubernetes.io/arch"
_USUAL_ARCH: Final = "amd64"

JsonObject = dict[str, Any]


def node_affinity(pins: Iterable[LabelPin], archs: Iterable[str], avoid_nodes: Iterable[str]) -> JsonObject:
    """Return the affinity of a pod that runs on exactly this hardware.

    Args:
        pins: the node must have one of them; those of one label become one term. None: any node.
        archs: of the node.
        avoid_nodes: by name.
    """
    arch = {"key": _ARCH, "operator": "In", "values": sorted(set(archs))}
    # The API takes one name for each requirement on a field.
    fields = [{"key": "metadata.name", "operator": "NotIn", "values": [name]} for name in sorted(set(avoid_nodes))]
    terms = [[*expressions, arch] for expressions in _pin_expressions(pins)] or [[arch]]
    return {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": expressions} | ({"matchFields": fields} if fields else {})
                    for expressions in terms
                ]
            }
        }
    }


def pin_annotations(pins: Iterable[LabelPin]) -> dict[str, str]:
    """Return the annotations by which a pod asks a serverless platform for this hardware; most need none."""
    values: dict[str, set[str]] = {}
    for pin in pins:
        if pin.label in _ANNOTATED_PINS:
            values.setdefault(pin.label, set()).add(pin.value)
    return {label: ",".join(sorted(found)) for label, found in sorted(values.items())}


def tolerations(chosen: Iterable[Toleration], *, gpu: bool, archs: Iterable[str]) -> list[JsonObject]:
    """Return the user's tolerations, that of GPU nodes where a GPU is asked for, and that of a rarer architecture."""
    wanted = [GPU_TOLERATION] if gpu else []
    wanted += [ARCH_TOLERATION] if any(arch != _USUAL_ARCH for arch in archs) else []
    wanted += chosen
    return [one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in dict.fromkeys(wanted)]


def lost_node_tolerations() -> list[JsonObject]:
    """Return how long a serving pod stays bound to a node that was lost."""
    return [
        Toleration(
            key=key,
            operator=TolerationOperator.EXISTS,
            effect=TaintEffect.NO_EXECUTE,
            toleration_seconds=LOST_NODE_SECONDS,
        ).model_dump(mode="json", by_alias=True, exclude_none=True)
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    ]


def spread(selector: Mapping[str, str]) -> list[JsonObject]:
    """Return the wish that replicas lie on different nodes; a full cluster may put them on one."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": dict(selector)},
            "matchLabelKeys": ["pod-template-hash"],
        }
    ]


def _pin_expressions(pins: Iterable[LabelPin]) -> list[list[JsonObject]]:
    values: dict[str, set[str]] = {}
    several: list[list[JsonObject]] = []
    for pin in dict.fromkeys(pins):
        if pin.also:
            several.append([_in(one.label, [one.value]) for one in (pin, *pin.also)])
        else:
            values.setdefault(pin.label, set()).add(pin.value)
    return [[_in(label, sorted(values[label]))] for label in sorted(values)] + several


def _in(label: str, values: list[str]) -> JsonObject:
    return {"key": label, "operator": "In", "values": values}
