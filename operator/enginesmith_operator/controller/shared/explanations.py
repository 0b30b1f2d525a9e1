"""Why a pod is missing or does not start, if only an event says so. Events are read rarely, and only for what waits.

A Job whose pods are refused (a quota, a missing ServiceAccount, a policy) has no condition that says it, and a pod
whose volume cannot be mounted has none either. Events are not watched: a cluster has far too many.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from enginesmith_contract.text import one_line
from enginesmith_operator.cluster.client import Api
from enginesmith_operator.cluster.errors import ClusterError, LeaseLostError
from enginesmith_operator.cluster.transport import Json

__all__ = ["Explanations", "newest_explanation"]

_LOGGER: Final = logging.getLogger(__name__)
_PAUSES: Final = (2.0, 3.0, 10.0, 30.0, 60.0)
"""Seconds before the first read for an object, and between two; objects that start within seconds cause no read."""
_GONE: Final = 600.0
_FAILED_CREATE: Final = "FailedCreate"
_FAILED_MOUNT: Final = "FailedMount"
_REASONS: Final = frozenset({_FAILED_CREATE, _FAILED_MOUNT, "FailedAttachVolume"})


@dataclass(frozen=True, kw_only=True)
class _Question:
    """What was asked about an object.

    Attributes:
        at: when it is asked next; monotonic.
        times: how often it was asked.
        answer: the newest event's words; empty: none was there.
    """

    at: float
    times: int = 0
    answer: str = ""


class Explanations:
    """What events say of objects that wait, by the object that is reconciled."""

    def __init__(self, api: Api, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._known: dict[str, dict[str, _Question]] = {}

    def of(self, owner: str, uid: str) -> str:
        """Return what keeps an object waiting, in Kubernetes' words; empty: Kubernetes gave no reason.

        Args:
            owner: uid of the object that is reconciled.
            uid: of the object that waits.
        """
        found = self._known.get(owner, {}).get(uid)
        return found.answer if found is not None else ""

    async def learn(self, namespace: str, owner: str, waiting: Iterable[str]) -> float | None:
        """Ask about what waits, where it is time; forget the rest. Return the seconds until the next question.

        Args:
            namespace: of all of them.
            owner: uid of the object that is reconciled.
            waiting: uids; empty ones count for nothing.
        """
        now = self._clock()
        before = self._known.pop(owner, {})
        self._forget_gone(now)
        questions = {uid: before.get(uid, _Question(at=now + _PAUSES[0])) for uid in waiting if uid}
        for uid, question in questions.items():
            if now >= question.at:
                answer = await self._ask(namespace, uid) or question.answer
                pause = _PAUSES[min(question.times + 1, len(_PAUSES) - 1)]
                questions[uid] = replace(question, at=now + pause, times=question.times + 1, answer=answer)
        if not questions:
            return None
        self._known[owner] = questions
        return max(min(one.at for one in questions.values()) - now, 0.0)

    def _forget_gone(self, now: float) -> None:
        """Forget objects that are not reconciled any more: their questions are long due."""
        gone = [owner for owner, asked in self._known.items() if all(one.at < now - _GONE for one in asked.values())]
        for owner in gone:
            del self._known[owner]

    async def _ask(self, namespace: str, uid: str) -> str:
        try:
            return newest_explanation(await self._api.read_warnings(namespace, uid))
        except LeaseLostError:
            raise
        except ClusterError as error:
            # A status without the reason is better than no status.
            _LOGGER.warning("the events of an object that waits cannot be read: %s", error)
            return ""


def newest_explanation(events: Iterable[Json]) -> str:
    """Return what the newest of these events says, with its reason in front where it is about a volume."""
    found = [one for one in events if one.get("reason") in _REASONS and one.get("message")]
    newest = max(found, key=_time_of, default=None)
    if newest is None:
        return ""
    words = one_line(str(newest["message"]))
    return words if newest["reason"] == _FAILED_CREATE else f"{newest['reason']}: {words}"


def _time_of(event: Json) -> str:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return str(next((one for one in times if one), ""))
