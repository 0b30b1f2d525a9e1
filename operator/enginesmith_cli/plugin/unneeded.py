"""Finds objects in the cluster that are no longer needed, by the product's own rules. Pure.

| object | goes where |
|---|---|
| failed EngineBuild without an InferenceEngine | it ended longer ago than asked: nothing reads it again |
| failed EngineBuild of an engine | it ended longer ago than asked, and its status does not name it |
| Job of a preparation or a build | its owner is gone, or was replaced by another object of the same name |

A failed build that its engine's status names stays: as long as it exists, the operator does not build the same again.
Successful builds are the memory of `enginesmith store gc`, and the operator deletes them by `spec.retention`.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from enginesmith_cli.plugin.objects import Objects, age, component_of, label, name_of, namespace_of, parse_time
from enginesmith_contract.record import Record
from enginesmith_operator.api.engine_build import BuildPhase
from enginesmith_operator.kinds import resource_of
from enginesmith_operator.objects.labels import ENGINE, MANAGED_BY, MANAGER, Component

__all__ = ["Unneeded", "find_unneeded"]

Json = dict[str, Any]


class Unneeded(Record):
    """One object that may be deleted.

    Attributes:
        why: one clause.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    why: str

    @property
    def path(self) -> str:
        """Return the URL path of the object."""
        return resource_of(self.kind).path(self.namespace, self.name)


def find_unneeded(objects: Objects, now: datetime, older_than: timedelta) -> Iterator[Unneeded]:
    """Yield what may go.

    Args:
        objects: every InferenceEngine, EngineBuild and Job of the namespaces.
        now: time of the look.
        older_than: age of a failed build that may go.
    """
    engines = {str(one["metadata"].get("uid")): one for one in objects.of("InferenceEngine")}
    for build in objects.of("EngineBuild"):
        why = _why_build(build, engines, now, older_than)
        if why:
            yield _unneeded(build, why)
    owners = set(engines) | {str(one["metadata"].get("uid")) for one in objects.of("EngineBuild")}
    for job in objects.of("Job"):
        is_made_here = label(job, MANAGED_BY) == MANAGER and component_of(job) in {
            Component.PREPARATION,
            Component.BUILD,
        }
        if is_made_here and not owners & set(_owner_uids(job)):
            yield _unneeded(job, f"no object owns it; it was of {label(job, ENGINE) or 'an EngineBuild'}")


def _why_build(build: Json, engines: dict[str, Json], now: datetime, older_than: timedelta) -> str:
    status = build.get("status") or {}
    ended = parse_time(status.get("finishedAt"))
    if status.get("phase") != BuildPhase.FAILED or ended is None or now - ended < older_than:
        return ""
    owners = [engines[uid] for uid in _owner_uids(build) if uid in engines]
    if len(owners) < len(_owner_uids(build)) or any(_names_build(one, name_of(build)) for one in owners):
        return ""
    whose = f"no target of {name_of(owners[0])} names it" if owners else "no InferenceEngine owns it"
    return f"failed {age(status['finishedAt'], now)} ago, and {whose}"


def _names_build(engine: Json, name: str) -> bool:
    """Whether a status needs a build; if it has no targets, every build stays."""
    status = engine.get("status") or {}
    targets = status.get("targets") or ()
    named = {one.get("build") for target in targets for one in target.get("engines") or ()}
    named |= {one.get("build") for one in status.get("refusedPrecisions") or ()}
    # Without a key it is not known yet which build a target wants: a preparation runs, or there is no plan.
    is_undecided = any(not _has_keys(target) for target in targets)
    return not targets or is_undecided or name in named


def _has_keys(target: Json) -> bool:
    engines = target.get("engines") or ()
    return bool(engines) and all(one.get("key") for one in engines)


def _owner_uids(item: Json) -> list[str]:
    return [str(one.get("uid")) for one in item["metadata"].get("ownerReferences") or ()]


def _unneeded(item: Json, why: str) -> Unneeded:
    uid = str(item["metadata"].get("uid", ""))
    return Unneeded(kind=item["kind"], namespace=namespace_of(item), name=name_of(item), uid=uid, why=why)
