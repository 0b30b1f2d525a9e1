"""Kubernetes Events that are never repeated: their name is a hash of what they say, and a name exists once.

They are created before the status that remembers their cause, so that a process that dies in between says them again,
and the API server answers that it has them.
"""

import logging
from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from typing import Final

from enginesmith_operator.cluster.client import Api
from enginesmith_operator.cluster.errors import MissingObjectError, ObjectExistsError, RefusedObjectError
from enginesmith_operator.cluster.transport import Json
from enginesmith_operator.controller.shared.conditions import bounded_line, timestamp
from enginesmith_operator.controller.shared.decision import EventNote
from enginesmith_operator.kinds import EVENT

__all__ = ["event_object", "write_events"]

_LOGGER: Final = logging.getLogger(__name__)
_COMPONENT: Final = "enginesmith-operator"
_DIGITS: Final = 16
_LONGEST_MESSAGE: Final = 1024
_LONGEST_NAME: Final = 200


def event_object(owner: Json, note: EventNote, now: datetime) -> Json:
    """Return the Event of `owner` that says `note`."""
    metadata = owner["metadata"]
    said = "\n".join((metadata["uid"], note.reason, note.message, note.since))
    digest = sha256(said.encode()).hexdigest()[:_DIGITS]
    stamp = timestamp(now)
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {"name": f"{metadata['name'][:_LONGEST_NAME]}.{digest}", "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        "type": "Warning" if note.is_warning else "Normal",
        "reason": note.reason,
        "message": bounded_line(note.message, _LONGEST_MESSAGE),
        "source": {"component": _COMPONENT},
        "reportingComponent": _COMPONENT,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }


async def write_events(api: Api, owner: Json, notes: Iterable[EventNote], now: datetime) -> None:
    """Create the events that do not exist yet. If the server refuses one, the pass still succeeds.

    Raises:
        enginesmith_operator.cluster.errors.ClusterError: the server does not answer.
    """
    for note in notes:
        try:
            await api.create(event_object(owner, note, now))
        except ObjectExistsError:
            continue
        except (RefusedObjectError, MissingObjectError) as error:
            _LOGGER.warning("an event was refused: %s", error)
