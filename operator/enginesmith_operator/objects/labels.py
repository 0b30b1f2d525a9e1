"""Labels and annotations of the operator's objects: what selects them, and what remembers why they are as they are."""

from enum import StrEnum
from typing import Final

from enginesmith_operator.objects.names import short_key

__all__ = [
    "ENGINE",
    "ENGINE_KEY",
    "INPUTS",
    "LEAVES",
    "MANAGED_BY",
    "MANAGER",
    "NOTES",
    "OCCASION",
    "RETRY",
    "TARGET",
    "TEMPLATE",
    "Component",
    "engine_selector",
    "object_labels",
    "target_selector",
]

NAME: Final = "app.kubernetes.io/name"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
COMPONENT: Final = "app.kubernetes.io/component"
MANAGER: Final = "enginesmith"
ENGINE: Final = "enginesmith.io/engine"
TARGET: Final = "enginesmith.io/target"
ENGINE_KEY: Final = "enginesmith.io/key"
"""The first digits of an engine key; of several engines in a pod's template, of the hash over all."""
INPUTS: Final = "enginesmith.io/inputs"
"""Annotation: hash of what a Deployment's pods were made of; see `deployment.keep_template`."""
LEAVES: Final = "enginesmith.io/leaves"
"""Annotation of a Deployment whose target is not in the spec any more: what it waits for before it goes."""
TEMPLATE: Final = "enginesmith.io/template"
"""Annotation: hash of a Deployment's template, or of a preparation's pod, as the operator wrote it, without the API
server's defaults.

A label of the pods as well, which tells those of the newest template from older ones."""
NOTES: Final = "enginesmith.io/notes"
"""Annotation: see `serving_notes`."""

OCCASION: Final = "enginesmith.io/occasion"
"""Annotation of a preparation's Job: which look at the model's URI it is; the first has none."""

RETRY: Final = "enginesmith.io/retry"
"""Annotation of an InferenceEngine: with another value, what failed for a reason that may pass is tried again at once,
where nothing changed that the operator can see (a Secret, a store)."""


class Component(StrEnum):
    """What an object is a part of."""

    PREPARATION = "preparation"
    BUILD = "build"
    SERVER = "server"


def object_labels(engine: str, component: Component, *, target: str = "", key: str = "") -> dict[str, str]:
    """Return the labels of an object that belongs to one InferenceEngine."""
    labels = {NAME: MANAGER, MANAGED_BY: MANAGER, COMPONENT: component.value, ENGINE: engine}
    return labels | ({TARGET: target} if target else {}) | ({ENGINE_KEY: short_key(key)} if key else {})


def engine_selector(engine: str) -> dict[str, str]:
    """Return what selects the serving pods of all targets."""
    return {COMPONENT: Component.SERVER.value, ENGINE: engine}


def target_selector(engine: str, target: str) -> dict[str, str]:
    """Return what selects the serving pods of one target. A Deployment's selector: it can never change."""
    return engine_selector(engine) | {TARGET: target}
