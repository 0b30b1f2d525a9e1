"""An engine as a tree: engine -> target -> build -> Job -> pod, each with its phase, reason, age and message. Pure."""

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from enginesmith_cli.plugin.objects import (
    Objects,
    age,
    component_of,
    condition,
    container_trouble,
    label,
    message_of,
    name_of,
    namespace_of,
    unmet_conditions,
)
from enginesmith_contract.record import Record
from enginesmith_contract.text import one_line
from enginesmith_operator.api.conditions import READY
from enginesmith_operator.api.engine_build import BuildPhase
from enginesmith_operator.api.engine_status import TargetPhase
from enginesmith_operator.objects.labels import ENGINE, Component
from enginesmith_operator.objects.names import short_key

__all__ = ["Branch", "Health", "grow_trees"]

Json = dict[str, Any]

_NO_STATUS: Final = "the operator has not reconciled it: it does not run, or does not work on this namespace"


class Health(StrEnum):
    """How a branch is."""

    GOOD = "good"
    WAITING = "waiting"
    BAD = "bad"


class Branch(Record):
    """One thing and what it consists of.

    Attributes:
        kind: of the object, or Target.
        phase: one or a few words.
        reason: CamelCase word; empty where nothing is to say.
        message: one line.
        age: since when it is in the phase, as "5m".
    """

    kind: str
    name: str
    namespace: str = ""
    phase: str = ""
    reason: str = ""
    message: str = ""
    age: str = ""
    health: Health = Health.GOOD
    children: tuple["Branch", ...] = ()


def grow_trees(objects: Objects, now: datetime, name: str = "") -> tuple[Branch, ...]:
    """Return one tree for each InferenceEngine, and for each EngineBuild that belongs to none.

    Raises:
        enginesmith_contract.errors.SpecError: no InferenceEngine is called `name`.
    """
    if name:
        return tuple(_engine(one, objects, now) for one in objects.named("InferenceEngine", name))
    engines = objects.of("InferenceEngine")
    names = {(namespace_of(one), name_of(one)) for one in engines}
    alone = (one for one in objects.of("EngineBuild") if (namespace_of(one), label(one, ENGINE)) not in names)
    return (
        *(_engine(one, objects, now) for one in engines),
        *(_build(one, objects, now) for one in alone),
    )


def _engine(engine: Json, objects: Objects, now: datetime) -> Branch:
    status, ready = engine.get("status") or {}, condition(engine, READY)
    worst: Json = next(unmet_conditions(engine), {})
    has_failed = bool((status.get("preparation") or {}).get("failure")) or any(
        one.get("phase") in _FAILED for one in status.get("targets") or ()
    )
    is_alert = worst.get("status") == "True"
    health = Health.BAD if has_failed or is_alert else Health.WAITING
    phase = {"True": "Ready", "": "no status"}.get(str(ready.get("status", "")), "not Ready")
    serving = status.get("serving")
    return Branch(
        kind="InferenceEngine",
        name=name_of(engine),
        namespace=namespace_of(engine),
        phase=phase + (f", {serving} serving" if serving else ""),
        reason=str(worst.get("reason", "")),
        message=message_of(worst) if ready else _NO_STATUS,
        age=age(ready.get("lastTransitionTime") or engine["metadata"].get("creationTimestamp"), now),
        health=Health.GOOD if ready.get("status") == "True" else health,
        children=(*_preparations(engine, objects, now), *_targets(engine, objects, now)),
    )


_FAILED: Final = {TargetPhase.FAILED.value, TargetPhase.REFUSED.value}
_SETTLED: Final = {TargetPhase.SERVING.value, TargetPhase.STANDBY.value, TargetPhase.IDLE.value}


def _preparations(engine: Json, objects: Objects, now: datetime) -> Iterator[Branch]:
    """Yield the preparation's Jobs, and a failure whose Job is gone."""
    jobs = [one for one in objects.owned(engine, "Job") if component_of(one) == Component.PREPARATION]
    yield from (_job(one, objects, now) for one in jobs)
    known = (engine.get("status") or {}).get("preparation") or {}
    failure = known.get("failure") or {}
    if failure and not jobs:
        yield Branch(
            kind="Preparation",
            name=str(known.get("request", "")),
            phase=str(known.get("phase", "")),
            reason=str(failure.get("reason", "")),
            message=message_of(failure),
            age=age(known.get("finishedAt"), now),
            health=Health.BAD,
        )


def _targets(engine: Json, objects: Objects, now: datetime) -> Iterator[Branch]:
    builds = objects.owned(engine, "EngineBuild")
    for target in (engine.get("status") or {}).get("targets") or ():
        name, phase = str(target.get("name", "")), str(target.get("phase", ""))
        listed = {one.get("build") for one in target.get("engines") or ()}
        mine = [
            one
            for one in builds
            if (one.get("spec") or {}).get("target") == name
            and (name_of(one) in listed or _phase(one) != BuildPhase.SUCCEEDED)
        ]
        health = Health.BAD if phase in _FAILED else Health.GOOD if phase in _SETTLED else Health.WAITING
        pods = objects.servers(engine, name)
        yield Branch(
            kind="Target",
            name=name,
            phase=phase + _hardware(target),
            reason=str(target.get("reason", "")),
            message=message_of(target),
            age=age(target.get("since"), now),
            health=health,
            children=(*(_build(one, objects, now) for one in mine), *(_pod(one, now) for one in pods)),
        )


def _hardware(target: Json) -> str:
    found = sorted({str(one.get("product") or one.get("arch", "")) for one in target.get("engines") or ()} - {""})
    return f" on {', '.join(found)}" if found else ""


def _phase(build: Json) -> str:
    return str((build.get("status") or {}).get("phase", ""))


def _build(build: Json, objects: Objects, now: datetime) -> Branch:
    status = build.get("status") or {}
    ready, failure = condition(build, READY), status.get("failure") or {}
    phase = _phase(build)
    key = short_key(str(((build.get("spec") or {}).get("request") or {}).get("engineKey", "")))
    health = {BuildPhase.SUCCEEDED.value: Health.GOOD, BuildPhase.FAILED.value: Health.BAD}.get(phase, Health.WAITING)
    reason = failure.get("reason") or ("" if health is Health.GOOD else ready.get("reason", ""))
    message = failure.get("message") or ("" if health is Health.GOOD else ready.get("message", ""))
    started = status.get("finishedAt") or status.get("startedAt") or build["metadata"].get("creationTimestamp")
    return Branch(
        kind="EngineBuild",
        name=name_of(build),
        namespace=namespace_of(build),
        phase=(phase or "no status") + (f", engine {key}" if key else ""),
        reason=str(reason),
        message=one_line(str(message)) if status else _NO_STATUS,
        age=age(started, now),
        health=health,
        children=tuple(_job(one, objects, now) for one in objects.owned(build, "Job")),
    )


def _job(job: Json, objects: Objects, now: datetime) -> Branch:
    ended = next((one for kind in ("Failed", "Complete") if (one := condition(job, kind)).get("status") == "True"), {})
    kind = str(ended.get("type", "")) or ("Suspended" if (job.get("spec") or {}).get("suspend") else "Running")
    health = {"Failed": Health.BAD, "Complete": Health.GOOD}.get(kind, Health.WAITING)
    return Branch(
        kind="Job",
        name=name_of(job),
        namespace=namespace_of(job),
        phase=f"{kind}{' (preparation)' if component_of(job) == Component.PREPARATION else ''}",
        reason=str(ended.get("reason", "")) if health is Health.BAD else "",
        message=one_line(str(ended.get("message", ""))) if health is Health.BAD else "",
        age=age(ended.get("lastTransitionTime") or job["metadata"].get("creationTimestamp"), now),
        health=health,
        children=tuple(_pod(one, now) for one in objects.owned(job, "Pod")),
    )


def _pod(pod: Json, now: datetime) -> Branch:
    status = pod.get("status") or {}
    containers = status.get("containerStatuses") or ()
    ready = sum(bool(one.get("ready")) for one in containers)
    phase = "Terminating" if pod["metadata"].get("deletionTimestamp") else str(status.get("phase", ""))
    if phase == "Running":
        phase += f" {ready}/{len(containers)}"
    _, reason, message = next(container_trouble(pod), ("", "", ""))
    is_good = status.get("phase") == "Succeeded" or (status.get("phase") == "Running" and ready == len(containers) > 0)
    health = Health.GOOD if is_good else Health.BAD if reason or status.get("phase") == "Failed" else Health.WAITING
    node = (pod.get("spec") or {}).get("nodeName")
    return Branch(
        kind="Pod",
        name=name_of(pod),
        namespace=namespace_of(pod),
        phase=phase + (f" on {node}" if node else ""),
        reason="" if is_good else reason,
        message="" if is_good else one_line(message),
        age=age(status.get("startTime") or pod["metadata"].get("creationTimestamp"), now),
        health=health,
    )
