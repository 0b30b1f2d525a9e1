"""Deployments of targets that left the spec: each is deleted when the targets that replace it serve. Pure.

A renamed target counts as one that leaves and one that joins, and so do the parts of a target that is split. What
goes notes which targets came with the same change, and how many replicas it had then; it stays until all of them serve
in full. Where no target of the spec serves (a standby sleeps while the target before it is taken out), what is on its
way waits to take over as a new one would. Where no GPU is free for them, `rollout.whenFull: replace` ends one of its
replicas for each that is to come.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from pydantic import Field, ValidationError

from enginesmith_contract.record import Record
from enginesmith_operator.api.engine_status import TargetPhase, TargetStatus
from enginesmith_operator.api.serving import WhenFull
from enginesmith_operator.api.targets import TargetSpec
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.inference_engine.snapshot import EngineSnapshot, KnownDeployment
from enginesmith_operator.controller.inference_engine.target import TargetDecision, deployment_as_it_is
from enginesmith_operator.controller.shared.decision import EventNote
from enginesmith_operator.objects.labels import LEAVES

__all__ = ["Leaving", "decide_leaving"]

_RESTING: Final = frozenset({TargetPhase.STANDBY, TargetPhase.IDLE})
_NOT_SOON: Final = frozenset({TargetPhase.REFUSED, TargetPhase.FAILED})


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """Targets that are no longer in the spec and still serve.

    Attributes:
        names: of the targets.
        objects: their Deployments, without stamps.
        targets: of the spec, as they were decided; one that waits for a GPU which a target that leaves has says so.
    """

    names: frozenset[str]
    objects: tuple[Json, ...]
    events: tuple[EventNote, ...]
    targets: list[TargetDecision]


class _Note(Record):
    """What a Deployment that leaves remembers.

    Attributes:
        successors: names of the targets that came since.
        replicas: that it had when they came.
    """

    successors: tuple[str, ...] = ()
    replicas: int = Field(default=0, ge=0)


def decide_leaving(snapshot: EngineSnapshot, targets: Iterable[TargetDecision]) -> Leaving:
    """Return the targets that are no longer in the spec and stay, with their objects."""
    decided = list(targets)
    statuses = {one.status.name: one.status for one in decided}
    specs = {one.name: one for one in snapshot.engine.spec.targets}
    came = (specs.keys() - {one.name for one in snapshot.status.targets}) | _take_over(statuses)
    objects: list[Json] = []
    events: list[EventNote] = []
    names: set[str] = set()
    for name, live in sorted(snapshot.deployments.items()):
        if name in specs or not name or not _serves(snapshot, live):
            continue
        before = _read_note(live)
        kept = before.successors if before is not None else ()
        successors = tuple(sorted((set(kept) & specs.keys()) | came))
        awaited = [statuses[one] for one in successors if not _serves_in_full(statuses[one], specs[one])]
        if not awaited:
            continue
        note = _Note(successors=successors, replicas=before.replicas if before is not None else live.replicas)
        names.add(name)
        objects.append(_deployment(snapshot, live, note, statuses, awaited))
        if before is None:
            text = f"{name}: it is not in the spec any more and serves until {', '.join(successors)} does"
            events.append(EventNote(is_warning=False, reason="TargetLeaves", message=text))
    waits = snapshot.engine.spec.rollout.when_full is WhenFull.WAIT
    holders = [snapshot.deployments[name] for name in sorted(names)] if waits else []
    told = [_told(one, holders) for one in decided]
    return Leaving(names=frozenset(names), objects=tuple(objects), events=tuple(events), targets=told)


def _told(decided: TargetDecision, leaving: Iterable[KnownDeployment]) -> TargetDecision:
    holder = next((live for live in leaving if _waits_for(decided.status, live)), None)
    if holder is None:
        return decided
    text = (
        f"no GPU is free: target {holder.target}, which is not in the spec any more, has one and serves until "
        f"{decided.status.name} does; add a GPU, set rollout.whenFull: replace, or delete the Deployment "
        f"{holder.document['metadata']['name']}"
    )
    return replace(decided, status=decided.status.model_copy(update={"message": text}))


def _serves(snapshot: EngineSnapshot, live: KnownDeployment) -> bool:
    pods = snapshot.pods.get(live.target, ())
    return live.ready_replicas > 0 or any(pod.is_ready and not pod.is_terminating for pod in pods)


def _take_over(statuses: Mapping[str, TargetStatus]) -> set[str]:
    """Return the targets to wait for where none of the spec serves: what is on its way, or else all that should."""
    if any(one.ready_replicas for one in statuses.values()):
        return set()
    should = {name for name, one in statuses.items() if one.phase not in _RESTING}
    return {name for name in should if statuses[name].phase not in _NOT_SOON} or should


def _serves_in_full(status: TargetStatus, spec: TargetSpec) -> bool:
    if status.phase in _RESTING:
        return True
    wanted = spec.autoscaling.min_replicas if spec.autoscaling is not None else spec.replicas
    return status.phase is TargetPhase.SERVING and status.ready_replicas >= max(wanted, 1)


def _deployment(
    snapshot: EngineSnapshot,
    live: KnownDeployment,
    note: _Note,
    statuses: Mapping[str, TargetStatus],
    awaited: Iterable[TargetStatus],
) -> Json:
    came = sum(statuses[one].ready_replicas for one in note.successors)
    # Of those that were there, one at most is away that nothing has come for.
    may_end = snapshot.engine.spec.rollout.when_full is WhenFull.REPLACE and note.replicas - live.replicas <= came
    ends = may_end and live.replicas > 0 and any(_waits_for(one, live) for one in awaited)
    made = deployment_as_it_is(live, live.replicas - 1 if ends else live.replicas)
    annotations = made["metadata"]["annotations"] | {LEAVES: note.to_json().decode()}
    return made | {"metadata": made["metadata"] | {"annotations": annotations}}


def _waits_for(status: TargetStatus, live: KnownDeployment) -> bool:
    """Whether a target waits for a GPU that a Deployment has."""
    has = {(one.engine.product, one.engine.mig_profile) for one in live.notes.engines if one.resource is not None}
    return status.reason == "NoFreeGPU" and any((one.product, one.mig_profile) in has for one in status.engines)


def _read_note(live: KnownDeployment) -> _Note | None:
    text = (live.document["metadata"].get("annotations") or {}).get(LEAVES)
    try:
        return _Note.from_json(text) if text else None
    except (ValidationError, json.JSONDecodeError):
        return None
