"""Finds a single change that makes a refused point run, and creates the error message."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from enginesmith_contract.errors import ModelError
from enginesmith_contract.profile_suggestions import values_entry
from enginesmith_runtime.prepare.child import run_worker
from enginesmith_runtime.prepare.jobs import Change, Event, EventKind, Feed, OtherSize, OtherValues, ProbeJob
from enginesmith_runtime.prepare.runs.points import Budget, Point

__all__ = ["RefusedPoint", "find_change", "refusal_error", "say_values"]

_PROBE_SECONDS: Final = 20.0
_CHANGE: Final[TypeAdapter[Change]] = TypeAdapter(Change)


@dataclass(frozen=True, kw_only=True)
class RefusedPoint:
    """The first point that the model refuses, its error, and a change that helps (None if none was found)."""

    point: Point
    words: str
    change: Change | None


def find_change(
    model: Path, feed: Feed, point: Point, folder: Path, budget: Budget, tick: Callable[[], None]
) -> Change | None:
    """Return the single change that makes the model run, or None if none was found."""
    found: list[Change] = []

    def receive(event: Event) -> None:
        if event.kind is EventKind.RESULT and event.data is not None:
            found.append(_CHANGE.validate_python(event.data))

    job = ProbeJob(
        model=str(model),
        feed=feed.at(point.given),
        run=point.run,
        shapes=point.shapes,
        memory_bytes=budget.memory_bytes,
    )
    run_worker(job, folder=folder, limits=budget.limits(_PROBE_SECONDS), tick=tick, on_event=receive)
    return found[0] if found else None


def refusal_error(model: Path, feed: Feed, refused: RefusedPoint) -> ModelError:
    """Return the error of a refused point: `ValuesRefusedByModel` if other values help, or `ProfileRefusedByModel`."""
    point, change = refused.point, refused.change
    sizes = _unsaid_sizes(feed, point)
    if isinstance(change, OtherValues) and not sizes:
        return _values_refused(model, point, refused.words, change)
    shapes = ", ".join(
        f"{name} {list(shape)}" + (f" = {list(point.given[name])}" if name in point.given else "")
        for name, shape in point.shapes.items()
    )
    hint = sizes or (_say_size(change) if isinstance(change, OtherSize) else "")
    return ModelError(
        f"the model itself refuses {shapes}",
        where=f"{model.name}, profile {point.profile!r}, {point.point}",
        why=refused.words,
        remedy=hint or "give the profile shapes, or verification.inputs values, that the model takes",
        reason="ProfileRefusedByModel",
    )


def _unsaid_sizes(feed: Feed, point: Point) -> str:
    """Return the advice to add sizes to the profile for inputs that hold sizes."""
    unsaid = [
        spec for spec in feed.facts.inputs if spec.name in feed.facts.shape_inputs and spec.name not in point.given
    ]
    return "; ".join(
        f"add the sizes that {spec.name} holds to the profile's inputs: {values_entry(spec)}" for spec in unsaid
    )


def _say_size(change: OtherSize) -> str:
    return f"give dimension {change.axis} of {change.input} the size {change.size}, which works"


def say_values(change: OtherValues) -> str:
    """Return the advice, as an imperative."""
    fields = " and ".join(f"verification.inputs.{name}" for name in change.inputs)
    return f"set {fields} to values that the model takes; with {_written(change)} it runs at the same shapes"


def _values_refused(model: Path, point: Point, words: str, change: OtherValues) -> ModelError:
    return ModelError(
        "the model refuses the values that its inputs are filled with",
        where=f"{model.name}, profile {point.profile!r}, {point.point}",
        why=words,
        remedy=say_values(change),
        reason="ValuesRefusedByModel",
    )


def _written(change: OtherValues) -> str:
    if change.values.range is not None:
        return f"{{range: [{', '.join(f'{value:g}' for value in change.values.range)}]}}"
    return f"{{constant: {change.values.constant:g}}}"
