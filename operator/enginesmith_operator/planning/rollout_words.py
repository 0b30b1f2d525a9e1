"""What several rules of a rollout say: reasons, and parts of one-line messages. The same state gives the same text."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from enginesmith_contract.keys import NAME_KEY_LENGTH
from enginesmith_operator.api.build import QUICK_LEVEL
from enginesmith_operator.api.engine_status import ExcludedNode, RejectedEngine, TargetPhase
from enginesmith_operator.planning.rollout_state import ServableEngine

__all__ = [
    "MADE_ROOM",
    "MAKING_ROOM",
    "NODE_CORDONED",
    "NO_FREE_GPU",
    "PREVIOUS_SERVES",
    "QUICK_ENGINE",
    "REPLACE_OPTION",
    "REPLACING",
    "StatusText",
    "again_at",
    "and_then",
    "device_name",
    "first_names",
    "list_engines",
    "no_free_gpu",
    "with_retry",
]

MADE_ROOM: Final = "MadeRoom"
REPLACING: Final = "Replacing"
MAKING_ROOM: Final = frozenset({MADE_ROOM, REPLACING})
"""Reasons of a target that stops a replica, or has stopped one, before its successor is ready."""
NO_FREE_GPU: Final = "NoFreeGPU"
NODE_CORDONED: Final = "NodeCordoned"
"""Reason of a target whose pods fit no node because a matching one is cordoned."""
PREVIOUS_SERVES: Final = "the previous engine still serves"
QUICK_ENGINE: Final = f"the quick engine (optimization level {QUICK_LEVEL})"
REPLACE_OPTION: Final = "rollout.whenFull: replace stops a serving replica first"
_SHOWN: Final = 3


class StatusText(NamedTuple):
    """What a target's status says.

    Attributes:
        reason: one CamelCase word.
        message: one line.
    """

    phase: TargetPhase
    reason: str
    message: str


def list_engines(engines: Iterable[ServableEngine]) -> str:
    """Return engines as a list for people: `NVIDIA-L4 0123456789abcdef0123`."""
    return ", ".join(f"{device_name(engine)} {engine.key[:NAME_KEY_LENGTH]}" for engine in engines)


def device_name(engine: ServableEngine) -> str:
    """Return what an engine is for: `NVIDIA-L4`, `NVIDIA-A100 1g.5gb` or `CPU amd64`."""
    product, profile, arch = engine.device
    return " ".join(part for part in (product or f"CPU {arch}", profile) if part)


def no_free_gpu(engines: Iterable[ServableEngine], nodes: Iterable[str]) -> str:
    """Return `no free nvidia.com/gpu on 2 nodes (gpu-1, gpu-2)`, of the nodes that may serve the engines."""
    resource = next((engine.resource for engine in engines if engine.resource), "GPU")
    names = tuple(dict.fromkeys(nodes))
    if len(names) > 1:
        return f"no free {resource} on {len(names)} nodes ({first_names(names)})"
    return f"no free {resource} on node {names[0]}" if names else f"no free {resource}"


def first_names(names: tuple[str, ...]) -> str:
    """Return the first names of a list, with "..." for the others."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def with_retry(rejected: RejectedEngine) -> str:
    """Return why an engine is not tried now, and when it is tried again where time alone leads to that."""
    return and_then(rejected.message, again_at(rejected)) if rejected.retry_at is not None else rejected.message


def again_at(entry: RejectedEngine | ExcludedNode) -> str:
    """Return when an engine or a node is tried again."""
    change = "as soon as the spec or the node changes"
    return f"it is tried again {f'at {entry.retry_at}, or ' if entry.retry_at is not None else ''}{change}"


def and_then(sentence: str, clause: str) -> str:
    """Return a pod's sentence, which ends with a full stop, continued by a clause."""
    return f"{sentence.rstrip('.')}; {clause}"
