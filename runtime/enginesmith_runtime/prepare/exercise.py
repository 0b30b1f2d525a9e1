"""Runs the model at every profile's min, opt and max in ONNX Runtime before a GPU is taken.

A height that the model refuses, or a weight file that is missing, shows in a second here and after minutes on a GPU.
What does not fit the budget of memory and time is `unverified`, never refused: the GPU may well have room for it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from enginesmith_contract.errors import ModelError
from enginesmith_contract.preparation import Exercise, ExerciseStatus
from enginesmith_contract.profile_suggestions import values_entry
from enginesmith_contract.profiles import Profile, ShapeRange, ValueRange
from enginesmith_contract.record import Record
from enginesmith_runtime.prepare.child import ChildEnd, Limits, Outcome, run_worker
from enginesmith_runtime.prepare.jobs import Event, EventKind, Feed, ProbeJob, RunJob, Shapes, Values
from enginesmith_runtime.prepare.observed_shapes import Observation

__all__ = ["Budget", "Change", "Exercised", "Point", "Refusal", "attempt", "exercise", "points_of"]

_POINTS = ("min", "opt", "max")
_PROBE_SECONDS = 20.0
_SHAPES = TypeAdapter(dict[str, tuple[int, ...]])
# What an idle child with numpy and ONNX Runtime has; the budget is for the run.
_IDLE_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a profile; `run` names its files and seeds its values, `given` is as of Feed."""

    profile: str
    point: str
    run: str
    shapes: Shapes
    given: Values


@dataclass(kw_only=True)
class Budget:
    """What the reference runs of one preparation may take together.

    Attributes:
        memory_bytes: of one run.
        deadline: on the monotonic clock.
    """

    memory_bytes: int
    deadline: float

    def limits(self, most_seconds: float | None = None) -> Limits:
        """Return what is left for a child, at most `most_seconds`."""
        left = max(self.deadline - time.monotonic(), 0.1)
        seconds = left if most_seconds is None else min(left, most_seconds)
        return Limits(memory_bytes=self.memory_bytes + _IDLE_BYTES, seconds=seconds)

    @property
    def is_spent(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self.deadline


@dataclass(frozen=True, kw_only=True)
class Exercised:
    """What the runs showed.

    Attributes:
        exercises: three for each profile.
        stored: points whose inputs and outputs lie in the folder as `<run>.npz`, one of each shape.
        seen: the shapes of those runs.
    """

    exercises: tuple[Exercise, ...]
    stored: tuple[Point, ...]
    seen: tuple[Observation, ...]


class Change(Record):
    """One dimension of an input, with a size that works where another was refused."""

    input: str
    axis: int
    size: int

    def sentence(self) -> str:
        """Return the advice."""
        return f"give dimension {self.axis} of {self.input} the size {self.size}, which works"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """The first point that the model refuses: its words, and a change that helps; None: none was found."""

    point: Point
    words: str
    change: Change | None


@dataclass(kw_only=True)
class _Results:
    seconds: dict[str, float] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, dict[str, tuple[int, ...]]] = field(default_factory=dict)
    unverified: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    running: str = ""

    def receive(self, event: Event) -> None:
        data = event.data if isinstance(event.data, dict) else {}
        run, message = str(data.get("run", "")), str(data.get("message", ""))
        match event.kind:
            case EventKind.STARTED:
                self.running = run
            case EventKind.RAN:
                self.seconds[run] = float(str(data.get("seconds", 0)))
                self.answers[run] = int(str(data.get("answer", 0)))
                self.shapes[run] = _SHAPES.validate_python(data.get("shapes", {}))
                self.running = ""
            case EventKind.OUT_OF_MEMORY:
                self.unverified[run] = "it needs more than the memory budget"
                self.running = ""
            case EventKind.REFUSED:
                self.refused[run] = message
                self.running = ""
            case EventKind.NOT_LOADED:
                self.refused[""] = message
            case EventKind.ERROR | EventKind.RESULT:
                pass


def points_of(profiles: Sequence[Profile]) -> tuple[Point, ...]:
    """Return every point of complete profiles, small ones first: a budget then gives the most verdicts."""
    return tuple(
        Point(
            profile=profile.name,
            point=point,
            run=f"{number}-{point}",
            shapes={name: _at(sizes, point) for name, sizes in profile.inputs.items()},
            given={
                name: _at(sizes.values, point) for name, sizes in profile.inputs.items() if sizes.values is not None
            },
        )
        for point in _POINTS
        for number, profile in enumerate(profiles)
    )


def exercise(
    model: Path,
    feed: Feed,
    profiles: Sequence[Profile],
    *,
    folder: Path,
    budget: Budget,
    tick: Callable[[float], None],
) -> Exercised:
    """Run every point once, points of one shape together.

    Args:
        model: the ONNX file.
        feed: how inputs are filled.
        profiles: complete ones, see `complete_profiles`.
        folder: receives inputs and outputs of each distinct point; must exist.
        budget: of all runs together.
        tick: called often with the share of runs that are done; what it raises ends the runs.

    Raises:
        enginesmith_contract.errors.ModelError: `ProfileRefusedByModel` or `ModelNotRunnable`.
    """
    outcome = attempt(model, feed, profiles, folder=folder, budget=budget, tick=tick)
    if isinstance(outcome, Refusal):
        hint = _values_hint(feed, outcome.point) or (outcome.change.sentence() if outcome.change else "")
        raise _refused(model, outcome.point, outcome.words, hint)
    return outcome


def attempt(
    model: Path,
    feed: Feed,
    profiles: Sequence[Profile],
    *,
    folder: Path,
    budget: Budget,
    tick: Callable[[float], None],
) -> Exercised | Refusal:
    """As `exercise`; returns the first refusal in place of an error.

    Raises:
        enginesmith_contract.errors.ModelError: `ModelNotRunnable`.
    """
    points = points_of(profiles)
    distinct = _distinct(points)
    results = _run(model, feed, distinct, folder, budget, tick)
    if "" in results.refused:
        raise _not_runnable(model, results.refused[""])
    for point in distinct:
        if point.run in results.refused:
            change = _working_change(model, feed, point, folder, budget, lambda: tick(1.0))
            return Refusal(point=point, words=results.refused[point.run], change=change)
    same = {_shape_key(point): point.run for point in distinct}
    return Exercised(
        exercises=tuple(_verdict(point, same[_shape_key(point)], results) for point in points),
        stored=tuple(point for point in distinct if point.run in results.seconds),
        seen=tuple(
            Observation(inputs=point.shapes, outputs=results.shapes[point.run])
            for point in distinct
            if point.run in results.shapes
        ),
    )


def _run(
    model: Path, feed: Feed, points: Sequence[Point], folder: Path, budget: Budget, tick: Callable[[float], None]
) -> _Results:
    """Run the points in children; where one dies in a run, the next takes the runs after it."""
    results = _Results()
    left = list(points)
    while left and "" not in results.refused:
        if budget.is_spent:
            results.unverified |= {point.run: "the time budget was spent before it" for point in left}
            break
        job = RunJob(
            model=str(model),
            feed=feed,
            runs={point.run: point.shapes for point in left},
            given={point.run: point.given for point in left if point.given},
            folder=str(folder),
            memory_bytes=budget.memory_bytes,
        )
        results.running = ""
        end = run_worker(
            job,
            folder=folder,
            limits=budget.limits(),
            tick=lambda: tick(len(results.seconds) / len(points)),
            on_event=results.receive,
        )
        victim = results.running or (left[0].run if end.outcome is not Outcome.FINISHED else "")
        if victim:
            results.unverified[victim] = _death(end)
        done = results.seconds.keys() | results.unverified.keys() | results.refused.keys()
        remaining = [point for point in left if point.run not in done]
        if len(remaining) == len(left):  # the model did not even load within the budget
            results.unverified |= {point.run: results.unverified.get("", _death(end)) for point in remaining}
            break
        left = remaining
    return results


def _death(end: ChildEnd) -> str:
    match end.outcome:
        case Outcome.OUT_OF_MEMORY:
            return "it needs more than the memory budget"
        case Outcome.OUT_OF_TIME:
            return "it takes longer than the time budget"
        case Outcome.CRASHED | Outcome.FINISHED:
            return f"ONNX Runtime crashed ({end.detail or 'without a word'})"


def _verdict(point: Point, run: str, results: _Results) -> Exercise:
    seconds = results.seconds.get(run)
    status = ExerciseStatus.UNVERIFIED if seconds is None else ExerciseStatus.PASSED
    reason = "" if seconds is not None else results.unverified.get(run, "it was not run")
    return Exercise(
        profile=point.profile,
        point=point.point,
        status=status,
        seconds=seconds,
        reason=reason,
        answer_bytes=results.answers.get(run),
    )


def _working_change(
    model: Path, feed: Feed, point: Point, folder: Path, budget: Budget, tick: Callable[[], None]
) -> Change | None:
    """Return the single change that makes the model take the shape; None where none was found."""
    found: list[Change] = []

    def receive(event: Event) -> None:
        if event.kind is EventKind.RESULT and event.data is not None:
            found.append(Change.model_validate(event.data))

    job = ProbeJob(model=str(model), feed=feed.at(point.given), shapes=point.shapes, memory_bytes=budget.memory_bytes)
    run_worker(job, folder=folder, limits=budget.limits(_PROBE_SECONDS), tick=tick, on_event=receive)
    return found[0] if found else None


def _distinct(points: Sequence[Point]) -> tuple[Point, ...]:
    """Keep one point of each shape, opt before the others: it is the one that references are kept for last."""
    best: dict[object, Point] = {}
    for point in points:
        seen = best.get(_shape_key(point))
        if seen is None or (point.point == "opt" and seen.point != "opt"):
            best[_shape_key(point)] = point
    return tuple(best.values())


def _values_hint(feed: Feed, point: Point) -> str:
    """Return what to add where inputs that hold sizes were filled without a word of the profile."""
    unsaid = [
        spec for spec in feed.facts.inputs if spec.name in feed.facts.shape_inputs and spec.name not in point.given
    ]
    return "; ".join(
        f"say the sizes that {spec.name} holds, in the profile's inputs: {values_entry(spec)}" for spec in unsaid
    )


def _shape_key(point: Point) -> tuple[tuple[str, tuple[int, ...], tuple[int, ...] | None], ...]:
    return tuple(sorted((name, tuple(shape), point.given.get(name)) for name, shape in point.shapes.items()))


def _at(sizes: ShapeRange | ValueRange, point: str) -> tuple[int, ...]:
    return {"min": sizes.min, "opt": sizes.opt, "max": sizes.max}[point]


def _refused(model: Path, point: Point, words: str, hint: str) -> ModelError:
    shapes = ", ".join(
        f"{name} {list(shape)}" + (f" = {list(point.given[name])}" if name in point.given else "")
        for name, shape in point.shapes.items()
    )
    return ModelError(
        f"the model itself refuses {shapes}",
        where=f"{model.name}, profile {point.profile!r}, {point.point}",
        why=words,
        remedy=hint or "give the profile shapes that the model takes",
        reason="ProfileRefusedByModel",
    )


def _not_runnable(model: Path, words: str) -> ModelError:
    return ModelError(
        "ONNX Runtime cannot load the model",
        where=model.name,
        why=words,
        remedy="export it again, and try it in ONNX Runtime",
        reason="ModelNotRunnable",
    )
