"""Runs the model at every profile's min, opt and max in ONNX Runtime before a GPU is taken.

A height that the model refuses, or a weight file that is missing, shows in a second here and after minutes on a GPU.
What does not fit the budget of memory and time is `unverified`, never refused: the GPU may well have room for it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from enginesmith_contract.errors import ModelError
from enginesmith_contract.preparation import Exercise, ExerciseStatus
from enginesmith_contract.profiles import Profile
from enginesmith_runtime.child_processes import ChildEnd, Outcome
from enginesmith_runtime.prepare.child import run_worker
from enginesmith_runtime.prepare.jobs import Event, EventKind, Feed, RunJob
from enginesmith_runtime.prepare.runs.observed_shapes import Observation
from enginesmith_runtime.prepare.runs.points import Budget, Point, distinct_points, more_seeds, points_of, shape_key
from enginesmith_runtime.prepare.runs.refused_points import RefusedPoint, find_change, refusal_error

__all__ = ["Exercised", "attempt", "exercise", "quick_points", "unverified_lines"]

_SHAPES = TypeAdapter(dict[str, tuple[int, ...]])


@dataclass(frozen=True, kw_only=True)
class Exercised:
    """What the runs showed.

    Attributes:
        exercises: three for each profile.
        stored: points whose inputs and outputs lie in the folder as `<run>.npz`: one of each shape, `least` at least.
        seen: the shapes of those runs.
        nan: by run, the outputs that are NaN throughout.
        varied: an output that differed when a run was repeated; empty: none did; None: no run was repeated.
    """

    exercises: tuple[Exercise, ...]
    stored: tuple[Point, ...]
    seen: tuple[Observation, ...]
    nan: Mapping[str, tuple[str, ...]]
    varied: str | None


@dataclass(kw_only=True)
class _Results:
    seconds: dict[str, float] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, dict[str, tuple[int, ...]]] = field(default_factory=dict)
    unverified: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    nan: dict[str, tuple[str, ...]] = field(default_factory=dict)
    varied: str | None = None
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
                nan = data.get("nan")
                self.nan[run] = tuple(map(str, nan)) if isinstance(nan, list) else ()
                self.running = ""
            case EventKind.VARIED:
                self.varied = str(data.get("output", ""))
            case EventKind.OUT_OF_MEMORY:
                self.unverified[run] = "it needs more than the memory budget"
                self.running = ""
            case EventKind.REFUSED:
                self.refused[run] = message
                self.running = ""
            case EventKind.NOT_LOADED:
                self.refused[""] = message
            case EventKind.ERROR | EventKind.PROGRESS | EventKind.RESULT:
                pass


def quick_points(exercised: Exercised, seconds: float) -> tuple[Point, ...]:
    """Return the first of the stored points, small ones first, as many as ran in `seconds` together; one at least."""
    took = {(one.profile, one.point): one.seconds or 0.0 for one in exercised.exercises}
    chosen: list[Point] = []
    for point in exercised.stored:
        seconds -= took.get((point.profile, point.point), 0.0)
        if chosen and seconds < 0:
            break
        chosen.append(point)
    return tuple(chosen)


def unverified_lines(exercises: Iterable[Exercise]) -> tuple[str, ...]:
    """Return a line for each point that was not run."""
    return tuple(
        f"profile {entry.profile!r}, {entry.point}: unverified, since {entry.reason}"
        for entry in exercises
        if entry.status is ExerciseStatus.UNVERIFIED
    )


def exercise(
    model: Path,
    feed: Feed,
    profiles: Sequence[Profile],
    *,
    folder: Path,
    budget: Budget,
    tick: Callable[[float], None],
    repeats: int = 0,
    least: int = 1,
) -> Exercised:
    """Run every point once, points of one shape together.

    Args:
        model: the ONNX file.
        feed: how inputs are filled.
        profiles: complete ones, see `complete_profiles`.
        folder: receives inputs and outputs of each distinct point; must exist.
        budget: of all runs together.
        tick: called often with the share of runs that are done; what it raises ends the runs.
        repeats: how often the smallest run is repeated with the same inputs.
        least: how many runs there are at least, shapes being run again with other random values.

    Raises:
        enginesmith_contract.errors.ModelError: `ProfileRefusedByModel`, `ValuesRefusedByModel` or `ModelNotRunnable`.
    """
    outcome = attempt(model, feed, profiles, folder=folder, budget=budget, tick=tick, repeats=repeats, least=least)
    if isinstance(outcome, RefusedPoint):
        raise refusal_error(model, feed, outcome)
    return outcome


def attempt(
    model: Path,
    feed: Feed,
    profiles: Sequence[Profile],
    *,
    folder: Path,
    budget: Budget,
    tick: Callable[[float], None],
    repeats: int = 0,
    least: int = 1,
) -> Exercised | RefusedPoint:
    """As `exercise`; returns the first refusal in place of an error.

    Raises:
        enginesmith_contract.errors.ModelError: `ModelNotRunnable`.
    """
    points = points_of(profiles)
    distinct = distinct_points(points)
    runs = (*distinct, *more_seeds(feed, points, distinct, least))
    results = _run(model, feed, runs, folder, budget, tick, repeats)
    if "" in results.refused:
        raise _not_runnable(model, results.refused[""])
    for point in runs:
        if point.run in results.refused:
            change = find_change(model, feed, point, folder, budget, lambda: tick(1.0))
            return RefusedPoint(point=point, words=results.refused[point.run], change=change)
    same = {shape_key(point): point.run for point in distinct}
    return Exercised(
        exercises=tuple(_verdict(point, same[shape_key(point)], results) for point in points),
        stored=tuple(point for point in runs if point.run in results.seconds),
        seen=tuple(
            Observation(inputs=point.shapes, outputs=results.shapes[point.run])
            for point in runs
            if point.run in results.shapes
        ),
        nan=results.nan,
        varied=results.varied,
    )


def _run(
    model: Path,
    feed: Feed,
    points: Sequence[Point],
    folder: Path,
    budget: Budget,
    tick: Callable[[float], None],
    repeats: int,
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
            repeats=repeats if len(left) == len(points) else 0,
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


def _not_runnable(model: Path, words: str) -> ModelError:
    return ModelError(
        "ONNX Runtime cannot load the model",
        where=model.name,
        why=words,
        remedy="export it again, and try it in ONNX Runtime",
        reason="ModelNotRunnable",
    )
