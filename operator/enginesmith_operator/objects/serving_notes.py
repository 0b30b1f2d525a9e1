"""What a Deployment remembers of itself, as annotations: the engines of its template, and those to go back to.

The notes hold whole values, so that a way back needs neither the plan that made them nor the status.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from enginesmith_contract.record import Record
from enginesmith_operator.objects.labels import NOTES
from enginesmith_operator.planning.rollout_state import ServableEngine

__all__ = ["ServingNotes", "read_notes"]


class ServingNotes(Record):
    """The notes of one Deployment.

    Attributes:
        engines: that its template lists.
        served: that served last, all at once; empty: none ever did.
        avoid_nodes: that its template keeps clear of.
    """

    engines: tuple[ServableEngine, ...] = ()
    served: tuple[ServableEngine, ...] = ()
    avoid_nodes: tuple[str, ...] = ()


def read_notes(deployment: Mapping[str, Any]) -> ServingNotes:
    """Return a Deployment's notes; none where they are gone or cannot be read."""
    annotations = deployment.get("metadata", {}).get("annotations") or {}
    try:
        return ServingNotes.from_json(annotations.get(NOTES, "{}"))
    except ValidationError:
        return ServingNotes()
