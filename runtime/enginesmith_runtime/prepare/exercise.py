"""Runs the model at every profile's min, opt and max in ONNX Runtime before a GPU is taken.

A height that the model refuses, or a weight file that is missing, shows in a second here and after minutes on a GPU.
What does not fit the budget of memory and time is `unverified`, never refused: the GPU may well have room for it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from enginesmith_contract.errors import ModelError
from enginesmith_contract.preparation import Exercise, ExerciseStatus
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_runtime.prepare.child import ChildEnd, Limits, Outcome, run_worker
from enginesmith_runtime.prepare.jobs import Event, EventKind, Feed, ProbeJob, RunJob, Shapes

__all__ = ["Budget", "Exercised", "Point", "exercise", "points_of"]

_POINTS = ("min", "opt", "max")
_LEAST_RUNS = 3
_PROBE_SECONDS = 20.0
# What an idle child with numpy and ONNX Runtime has; the budget is for the run.
_IDLE_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a profile; `run` names its files and seeds its values."""

    profile: str
    point: str
    run: str
    shapes: Shapes


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
        stored: points whose inputs and outputs lie in the folder as `<run>.npz`: one of each shape, three at least.
        nan: by run, the outputs that are NaN throughout.
        varied: an output that differed when a run was repeated; empty: none did; None: no run was repeated.
    """

    exercises: tuple[Exercise, ...]
    stored: tuple[Point, ...]
    nan: Mapping[str, tuple[str, ...]]
    varied: str | None


@dataclass(kw_only=True)
class _Results:
    seconds: dict[str, float] = field(default_factory=dict)
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
        )
        for point in _POINTS
        for number, profile in enumerate(profiles)
    )


def exercise(  # noqa: PLR0913 - what is run, with what, where, within what, and who is told
    model: Path,
    feed: Feed,
    profiles: Sequence[Profile],
    *,
    folder: Path,
    budget: Budget,
    tick: Callable[[float], None],
    repeats: int = 0,
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

    Raises:
        enginesmith_contract.errors.ModelError: `ProfileRefusedByModel`, `ValuesRefusedByModel` or `ModelNotRunnable`.
    """
    points = points_of(profiles)
    distinct = _distinct(points)
    runs = (*distinct, *_more_seeds(feed, points, distinct))
    results = _run(model, feed, runs, folder, budget, tick, repeats)
    if "" in results.refused:
        raise _not_runnable(model, results.refused[""])
    for point in runs:
        if point.run in results.refused:
            change = _working_change(model, feed, point, folder, budget, lambda: tick(1.0))
            words = results.refused[point.run]
            if "values" in change:
                raise _values_refused(model, point, words, change)
            raise _refused(model, point, words, change)
    same = {_shape_key(point): point.run for point in distinct}
    return Exercised(
        exercises=tuple(_verdict(point, same[_shape_key(point)], results) for point in points),
        stored=tuple(point for point in runs if point.run in results.seconds),
        nan=results.nan,
        varied=results.varied,
    )


def _run(  # noqa: PLR0913, PLR0917 - as exercise
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
    return Exercise(profile=point.profile, point=point.point, status=status, seconds=seconds, reason=reason)


def _working_change(  # noqa: PLR0913, PLR0917 - as exercise
    model: Path, feed: Feed, point: Point, folder: Path, budget: Budget, tick: Callable[[], None]
) -> Mapping[str, JsonValue]:
    """Return which single change makes the model run: an input's values, or a dimension's size; empty: none found."""
    found: list[Mapping[str, JsonValue]] = []

    def receive(event: Event) -> None:
        if event.kind is EventKind.RESULT and isinstance(event.data, dict):
            found.append(event.data)

    job = ProbeJob(model=str(model), feed=feed, run=point.run, shapes=point.shapes, memory_bytes=budget.memory_bytes)
    run_worker(job, folder=folder, limits=budget.limits(_PROBE_SECONDS), tick=tick, on_event=receive)
    return found[0] if found else {}


def _distinct(points: Sequence[Point]) -> tuple[Point, ...]:
    """Keep one point of each shape, opt before the others: it is the one that references are kept for last."""
    best: dict[object, Point] = {}
    for point in points:
        seen = best.get(_shape_key(point))
        if seen is None or (point.point == "opt" and seen.point != "opt"):
            best[_shape_key(point)] = point
    return tuple(best.values())


def _more_seeds(feed: Feed, points: Sequence[Point], distinct: Sequence[Point]) -> tuple[Point, ...]:
    """Return points of a shape that is run already, with values of their own: one run says little of ranges.

    There are some where there are fewer than three runs, as of a static model, and an input is random.
    """
    given = [feed.values.get(spec.name) for spec in feed.facts.inputs]
    if all(values is not None and values.range is None for values in given):
        return ()
    others = [point for point in points if point not in distinct]
    return tuple(others[: max(_LEAST_RUNS - len(distinct), 0)])


def _shape_key(point: Point) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(sorted((name, tuple(shape)) for name, shape in point.shapes.items()))


def _at(sizes: ShapeRange, point: str) -> tuple[int, ...]:
    return {"min": sizes.min, "opt": sizes.opt, "max": sizes.max}[point]


def _refused(model: Path, point: Point, words: str, change: Mapping[str, JsonValue]) -> ModelError:
    shapes = ", ".join(f"{name} {list(shape)}" for name, shape in point.shapes.items())
    hint = ""
    if change:
        hint = f"give dimension {change['axis']} of {change['input']} the size {change['size']}, which works"
    return ModelError(
        f"the model itself refuses {shapes}",
        where=f"{model.name}, profile {point.profile!r}, {point.point}",
        why=words,
        remedy=hint or "give the profile shapes, or verification.inputs values, that the model takes",
        reason="ProfileRefusedByModel",
    )


def _values_refused(model: Path, point: Point, words: str, change: Mapping[str, JsonValue]) -> ModelError:
    names, values = change["inputs"], change["values"]
    fields = " and ".join(f"verification.inputs.{name}" for name in names) if isinstance(names, list) else ""
    written = ", ".join(f"{key}: {_number(value)}" for key, value in values.items()) if isinstance(values, dict) else ""
    return ModelError(
        "the model refuses the values that its inputs are filled with",
        where=f"{model.name}, profile {point.profile!r}, {point.point}",
        why=words,
        remedy=(f"set {fields} to values that the model takes; with {{{written}}} it runs at the same shapes"),
        reason="ValuesRefusedByModel",
    )


def _number(value: JsonValue) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_number, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _not_runnable(model: Path, words: str) -> ModelError:
    return ModelError(
        "ONNX Runtime cannot load the model",
        where=model.name,
        why=words,
        remedy="export it again, and try it in ONNX Runtime",
        reason="ModelNotRunnable",
    )
