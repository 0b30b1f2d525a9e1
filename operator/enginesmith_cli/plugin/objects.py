"""Kubernetes objects as the plugin reads them: by name, by owner, with what their statuses say. Pure.

An object without a status, or of another version, lacks what is asked for: every reader here has an answer then.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from enginesmith_contract.errors import SpecError
from enginesmith_contract.failure import Failure
from enginesmith_contract.text import one_line
from enginesmith_operator.api.conditions import (
    ALL_TARGETS,
    BUILT,
    CONFLICT,
    INTERNAL_ERROR,
    KEYS_RESOLVED,
    NODES_MISSING,
    PLANNED,
    POLICY_VIOLATED,
    PREPARED,
    READY,
    SCHEDULED,
    SERVING,
    SPEC_INVALID,
    UP_TO_DATE,
)
from enginesmith_operator.api.explain import nearest_word
from enginesmith_operator.objects.labels import COMPONENT, ENGINE, TARGET, Component

__all__ = [
    "Objects",
    "age",
    "component_of",
    "condition",
    "container_trouble",
    "label",
    "message_of",
    "name_of",
    "namespace_of",
    "parse_time",
    "unmet_conditions",
]

Json = dict[str, Any]

_GOOD_WHEN_TRUE: Final = (READY, ALL_TARGETS, UP_TO_DATE, PLANNED, KEYS_RESOLVED, PREPARED, BUILT, SERVING, SCHEDULED)
_ALERTS: Final = (SPEC_INVALID, INTERNAL_ERROR, POLICY_VIOLATED, CONFLICT, NODES_MISSING)
_UNITS: Final = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


class Objects:
    """Objects of some namespaces."""

    def __init__(self, items: Iterable[Json]) -> None:
        self._items = tuple(items)

    def of(self, kind: str) -> tuple[Json, ...]:
        """Return the objects of a kind, by namespace and name."""
        return tuple(sorted((one for one in self._items if one.get("kind") == kind), key=_place))

    def named(self, kind: str, name: str) -> tuple[Json, ...]:
        """Return the objects of a kind with a name, one for each namespace that has it.

        Raises:
            SpecError: there is none; the error names the nearest.
        """
        found = [one for one in self.of(kind) if name_of(one) == name]
        if found:
            return tuple(found)
        names = sorted({name_of(one) for one in self.of(kind)})
        nearest = nearest_word(name, names)
        why = (
            f"did you mean {nearest}?"
            if nearest
            else f"there are {', '.join(names[:10])}"
            if names
            else "there is none"
        )
        remedy = "choose another namespace with -n, or list all with: kubectl enginesmith status -A"
        raise SpecError(f"no {kind} has this name", where=name, why=why, remedy=remedy, reason="NotFound")

    def owned(self, owner: Json, kind: str) -> tuple[Json, ...]:
        """Return the objects of a kind that an object owns."""
        uid = (owner.get("metadata") or {}).get("uid")
        return tuple(one for one in self.of(kind) if uid and uid in _owners(one))

    def servers(self, engine: Json, target: str) -> tuple[Json, ...]:
        """Return the pods that serve a target."""
        wanted = (namespace_of(engine), name_of(engine), target, Component.SERVER.value)
        return tuple(
            one
            for one in self.of("Pod")
            if (namespace_of(one), label(one, ENGINE), label(one, TARGET), label(one, COMPONENT)) == wanted
        )


def name_of(item: Json) -> str:
    """Return an object's name."""
    return str((item.get("metadata") or {}).get("name", ""))


def namespace_of(item: Json) -> str:
    """Return an object's namespace."""
    return str((item.get("metadata") or {}).get("namespace", ""))


def label(item: Json, key: str) -> str:
    """Return a label's value; empty where the object lacks it."""
    return str(((item.get("metadata") or {}).get("labels") or {}).get(key, ""))


def component_of(item: Json) -> str:
    """Return what an object is a part of: preparation, build or server."""
    return label(item, COMPONENT)


def condition(item: Json, kind: str) -> Json:
    """Return one condition of an object; empty where it has none of the type."""
    return next((one for one in _conditions(item) if one.get("type") == kind), {})


def unmet_conditions(item: Json) -> Iterator[Json]:
    """Yield the conditions that show a problem, the most serious first."""
    alerts = [one for kind in _ALERTS if (one := condition(item, kind)).get("status") == "True"]
    missing = [one for kind in _GOOD_WHEN_TRUE if (one := condition(item, kind)).get("status") in {"False", "Unknown"}]
    yield from (*alerts, *missing)


def container_trouble(pod: Json) -> Iterator[tuple[str, str, str]]:
    """Yield container, reason and message of what keeps a pod from running, as kubelet says it."""
    status = pod.get("status") or {}
    for one in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        state = one.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        last = (one.get("lastState") or {}).get("terminated") or {}
        if waiting and waiting.get("reason") not in {"PodInitializing", "ContainerCreating"}:
            said = waiting.get("message") or last.get("message")
            yield (one.get("name", ""), *_termination(str(waiting.get("reason", "Waiting")), said))
        elif ended and ended.get("exitCode"):
            yield (one.get("name", ""), *_termination(str(ended.get("reason", "Error")), ended.get("message")))
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        yield "", str(scheduled.get("reason", "")), str(scheduled.get("message", ""))


def message_of(said: Json) -> str:
    """Return the message of a condition, of a target or of a failure, on one line."""
    if "what" not in said:
        return one_line(str(said.get("message", "")))
    try:
        return Failure.model_validate(said).sentence()
    except ValidationError:
        return one_line(str(said["what"]))


def parse_time(text: object) -> datetime | None:
    """Return a time of an object; None: the value is not a time."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else None


def age(since: object, now: datetime) -> str:
    """Return the age of a state, as kubectl writes it: "5m", "3h", "2d"; empty: it is not known."""
    then = parse_time(since)
    if then is None:
        return ""
    seconds = max(int((now - then).total_seconds()), 0)
    unit, size = next(((unit, size) for unit, size in _UNITS if seconds >= 2 * size), ("s", 1))
    return f"{seconds // size}{unit}"


def _termination(reason: str, message: object) -> tuple[str, str]:
    """Return reason and message of a container; those of a pod that prepares, builds or pulls are in its report."""
    text = str(message or "")
    try:
        report = json.loads(text)
    except ValueError:
        return reason, text
    if not isinstance(report, dict):
        return reason, text
    said = report.get("failure") or report
    return str(said.get("reason") or reason), message_of(said) or text


def _conditions(item: Json) -> Sequence[Json]:
    return (item.get("status") or {}).get("conditions") or ()


def _owners(item: Json) -> set[str]:
    return {str(one.get("uid")) for one in (item.get("metadata") or {}).get("ownerReferences") or ()}


def _place(item: Json) -> tuple[str, str]:
    return namespace_of(item), name_of(item)
