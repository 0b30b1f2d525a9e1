"""Which taints keep a pod away from a node, by Kubernetes' own rules."""

from collections.abc import Iterable
from typing import Final

from enginesmith_operator.api.pod_template import TaintEffect, Toleration, TolerationOperator
from enginesmith_operator.planning.node_object import Taint

__all__ = ["ARCH_TOLERATION", "GPU_TOLERATION", "untolerated"]

# Its value differs between platforms: `present`, `true` or none.
GPU_TOLERATION: Final = Toleration(key="nvidia.com/gpu", operator=TolerationOperator.EXISTS)

# Clouds keep pods whose image may not be for it away from an arm64 node; ours name their architecture.
ARCH_TOLERATION: Final = Toleration(key="kubernetes.io/arch", operator=TolerationOperator.EXISTS)


def untolerated(taints: Iterable[Taint], tolerations: Iterable[Toleration]) -> tuple[Taint, ...]:
    """Return the taints that repel a pod with these tolerations; a taint that is only a preference repels no pod."""
    known = tuple(tolerations)
    return tuple(
        taint
        for taint in taints
        if taint.effect != TaintEffect.PREFER_NO_SCHEDULE and not any(_tolerates(one, taint) for one in known)
    )


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect is not None and toleration.effect.value != taint.effect:
        return False
    if toleration.key is None:
        return toleration.operator is TolerationOperator.EXISTS
    if toleration.key != taint.key:
        return False
    return toleration.operator is TolerationOperator.EXISTS or (toleration.value or "") == taint.value
