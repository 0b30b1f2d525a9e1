"""Why an object is not Ready, what each reason means and what helps. Pure.

The causes come from the object's status, its builds and its pods, with their events.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from enginesmith_cli.plugin.objects import Objects, condition, container_trouble, message_of, name_of, unmet_conditions
from enginesmith_contract.reasons import Reason, list_reasons
from enginesmith_contract.record import Record
from enginesmith_contract.text import one_line
from enginesmith_operator.api.conditions import READY
from enginesmith_operator.api.engine_status import TargetPhase

__all__ = ["Cause", "Explanation", "explain_object", "find_reason"]

Json = dict[str, Any]

_MOST_LOG_LINES: Final = 12
_TROUBLED: Final = {one.value for one in TargetPhase} - {"Serving", "Standby", "Idle"}
# Reasons that only repeat what a target, a build or a pod says in detail.
_SUMMARIES: Final = {"Ready", "AllTargets", "UpToDate", "Serving", "Built", "Prepared", "KeysResolved"}


class Cause(Record):
    """One cause of a problem or of a wait.

    Attributes:
        where: condition, target, build or pod.
        reason: CamelCase word.
        message: of the object; one line.
        means: what the reason means; empty for a word that is not the product's.
        do: what helps; likewise.
        evidence: end of the builder's log; lines.
    """

    where: str
    reason: str
    message: str = ""
    means: str = ""
    do: str = ""
    evidence: tuple[str, ...] = ()


class Explanation(Record):
    """What is known of one object.

    Attributes:
        is_ready: whether the object is Ready and nothing else needs attention.
        summary: one line.
        causes: the most serious first, each once.
        events: warnings of the object and of its pods; one line each.
    """

    kind: str
    name: str
    namespace: str
    is_ready: bool
    summary: str
    causes: tuple[Cause, ...] = ()
    events: tuple[str, ...] = ()


def find_reason(word: str) -> Reason | None:
    """Return the row of a reason word."""
    return next((one for one in list_reasons() if one.reason == word), None)


def explain_object(item: Json, objects: Objects) -> Explanation:
    """Explain an InferenceEngine or an EngineBuild.

    Args:
        item: the object.
        objects: of its namespace: builds, Jobs, pods and events.
    """
    is_engine = item.get("kind") == "InferenceEngine"
    family = tuple(_family(item, objects, is_engine=is_engine))
    concrete = [*_of_object(item), *_of_builds(family), *_of_pods(family)]
    causes = tuple(_distinct(concrete or _of_summaries(item)))
    ready = condition(item, READY)
    is_ready = ready.get("status") == "True" and not causes
    if not item.get("status"):
        summary = (
            "it has no status: the operator does not run (kubectl get pods -A -l app.kubernetes.io/component=operator),"
            " does not work on this namespace, or has not reconciled it yet"
        )
    elif ready.get("status") == "True":
        summary = "it is Ready" if is_ready else "it is Ready, but something needs attention"
    else:
        summary = f"it is not Ready: {one_line(str(ready.get('message', 'no reason is given')))}"
    return Explanation(
        kind=str(item.get("kind")),
        name=name_of(item),
        namespace=str(item["metadata"].get("namespace", "")),
        is_ready=is_ready,
        summary=summary,
        causes=causes,
        events=() if is_ready else tuple(_warnings((item, *family), objects)),
    )


def _family(item: Json, objects: Objects, *, is_engine: bool) -> Iterator[Json]:
    """Yield what belongs to an object: builds, Jobs, pods."""
    builds = objects.owned(item, "EngineBuild") if is_engine else (item,)
    jobs = [job for owner in {id(one): one for one in (item, *builds)}.values() for job in objects.owned(owner, "Job")]
    yield from (builds if is_engine else ())
    yield from jobs
    yield from (pod for job in jobs for pod in objects.owned(job, "Pod"))
    for target in (item.get("status") or {}).get("targets") or () if is_engine else ():
        yield from objects.servers(item, str(target.get("name", "")))


def _of_summaries(item: Json) -> Iterator[Cause]:
    """Yield the first condition with the cause of a wait, if no other object gives it in detail."""
    found = [one for one in unmet_conditions(item) if one["type"] in _SUMMARIES]
    yield from (_cause(f"condition {one['type']}", one) for one in found[:1])


def _of_object(item: Json) -> Iterator[Cause]:
    status = item.get("status") or {}
    conditions = (one for one in unmet_conditions(item) if one["type"] not in _SUMMARIES)
    yield from (_cause(f"condition {one['type']}", one) for one in conditions)
    failure = (status.get("preparation") or {}).get("failure")
    if failure:
        yield _cause("preparation", failure)
    for target in status.get("targets") or ():
        if target.get("phase") in _TROUBLED and target.get("reason"):
            yield _cause(f"target {target.get('name')}, {target['phase']}", target)
        for kind in ("rejected", "excluded"):
            for one in target.get(kind) or ():
                what = f"engine {str(one.get('key', ''))[:12]}" if kind == "rejected" else f"node {one.get('name')}"
                yield _cause(f"target {target.get('name')}, {kind} {what}", one)
    if item.get("kind") == "EngineBuild" and status.get("failure"):
        yield _build_cause(item)


def _of_builds(family: Iterable[Json]) -> Iterator[Cause]:
    builds = (one for one in family if one.get("kind") == "EngineBuild")
    yield from (_build_cause(one) for one in builds if (one.get("status") or {}).get("failure"))


def _build_cause(build: Json) -> Cause:
    failure = build["status"]["failure"]
    tail = str(failure.get("logTail", "")).splitlines()[-_MOST_LOG_LINES:]
    return _cause(f"build {name_of(build)}", failure).model_copy(update={"evidence": tuple(tail)})


def _of_pods(family: Iterable[Json]) -> Iterator[Cause]:
    for pod in family:
        if pod.get("kind") == "Pod":
            for container, reason, message in container_trouble(pod):
                where = f"pod {name_of(pod)}" + (f", container {container}" if container else "")
                yield _cause(where, {"reason": reason, "message": message})


def _cause(where: str, said: Json) -> Cause:
    reason = str(said.get("reason", ""))
    row = find_reason(reason)
    return Cause(
        where=where,
        reason=reason,
        message=message_of(said),
        means=row.means if row else "",
        do=row.do if row else "",
    )


def _distinct(causes: Iterable[Cause]) -> Iterator[Cause]:
    """Yield each cause once: a condition repeats what a target says, and a target what a build says."""
    kept: list[Cause] = []
    for cause in causes:
        same = next(
            (
                number
                for number, one in enumerate(kept)
                if one.reason == cause.reason and (one.message in cause.message or cause.message in one.message)
            ),
            None,
        )
        if same is None:
            kept.append(cause)
        elif cause.evidence and not kept[same].evidence:
            kept[same] = kept[same].model_copy(update={"evidence": cause.evidence})
    yield from kept


def _warnings(family: Iterable[Json], objects: Objects) -> Iterator[str]:
    uids = {one["metadata"].get("uid") for one in family}
    seen: set[str] = set()
    for event in objects.of("Event"):
        about = event.get("involvedObject") or event.get("regarding") or {}
        if event.get("type") != "Warning" or about.get("uid") not in uids:
            continue
        text = one_line(str(event.get("message") or event.get("note") or ""))
        line = f"{about.get('kind')} {about.get('name')}: {event.get('reason')}: {text}"
        if line not in seen:
            seen.add(line)
            yield line
