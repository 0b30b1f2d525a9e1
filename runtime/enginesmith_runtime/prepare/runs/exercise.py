"""Runs the model at every profile's min, opt and max in ONNX Runtime before a build uses a GPU.

An unsupported height or a missing weights file is found in a second here, and only after minutes on a GPU. A point that
does not fit the budget of memory and time is `unverified` and not refused, because the GPU may have enough memory.
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
    """Results of the runs.

    Attributes:
        exercises: Three exercises for each profile.
        stored: Points with inputs and outputs in the folder as `<run>.npz`: one of each shape, and at least `least`.
        seen: Shapes of those runs.
        nan: Outputs that contain only NaN, by run.
        varied: Output that differed in a repeated run, or empty; None if no run was repeated.
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
    """Return the smallest stored points that ran in `seconds` together, at least one."""
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
    """Run every point once. Points of one shape share a run.

    Args:
        model: The ONNX file.
        feed: how inputs are filled.
        profiles: Complete profiles; see `complete_profiles`.
        folder: Existing folder that receives inputs and outputs of each distinct point.
        budget: Budget of all runs together.
        tick: Function that often receives the completed share of the runs. If it raises, the runs end.
        repeats: Number of repetitions of the smallest run with the same inputs.
        least: Smallest number of runs. Shapes are run again with other random values if necessary.

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
    """Like `exercise`, but return the first refusal instead of raising an error.

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
    """Run the points in children. If a child dies in a run, another one continues with the next run."""
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
        if len(remaining) == len(left):  # the model did not load within the budget
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
