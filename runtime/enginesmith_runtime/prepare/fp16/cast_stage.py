"""Casts one model: a run shows which nodes to keep, and the cast is rehearsed in emulated arithmetic and tried.

values out of range ──> cast ──> rehearsal ──> sweep ──> try in ONNX Runtime
                          ^          │           │
                          ├── nodes that produce NaN or infinity stay in FP32
                          └── nodes with wrong results for other values stay in FP32
"""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from enginesmith_contract.backends import PrecisionPolicy
from enginesmith_contract.limits import Arithmetic
from enginesmith_contract.profiles import Profile, ShapeRange, ValueRange
from enginesmith_contract.verification import InputValues
from enginesmith_runtime.child_processes import ChildEnd, Limits, Outcome
from enginesmith_runtime.onnx_graphs.narrow import narrow_of
from enginesmith_runtime.prepare.fp16.sweep_inputs import generated_inputs, input_limits, open_inputs
from enginesmith_runtime.prepare.jobs import (
    AnyJob,
    CastJob,
    CastResult,
    Feed,
    RangeJob,
    Rehearsal,
    RehearseJob,
    Sweep,
    SweepJob,
)
from enginesmith_runtime.prepare.runs.exercise import Exercised, exercise, quick_points
from enginesmith_runtime.prepare.runs.points import Budget, Point

__all__ = ["CastStage", "Prepared", "try_prepared"]

_MOST_CASTS: Final = 6
_MOST_SWEEPS: Final = 5
_SWEEP_SECONDS: Final = 60.0
_QUICK: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The model for builds: its folder, its files (the ONNX file first) and the nodes that stayed in FP32.

    `said` has the nodes of `kept` that `warnings` name, in order. `differences` is that of `Rehearsal`, or empty
    without a rehearsal.
    """

    folder: Path
    files: tuple[Path, ...]
    structure_digest: str
    kept: Mapping[str, str] = field(default_factory=dict)
    said: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    differences: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CastStage:
    """One cast.

    Attributes:
        model: The source model.
        policy: See `PrecisionPolicy`.
        feed: Feed of the source.
        exercised: Points with inputs and FP32 outputs in the folder `runs`.
        budget: Budget of the runs.
        folder: Folder of the whole preparation.
        ask: Function that runs a job within limits and returns its result or None.
        do: Function that runs a job that must give a result.
        tick: Function that often receives the completed share of the work.
        seen: Values of inputs in samples, which the reference inputs do not have.
        beyond: Nodes whose values leave FP16's range in samples, with the reason.
        most_sweeps: Limit of sweeps with other kinds of values; 0 if samples show the values of inputs.
    """

    model: Path
    policy: PrecisionPolicy
    feed: Feed
    exercised: Exercised
    budget: Budget
    folder: Path
    ask: Callable[[AnyJob, Path, Limits], tuple[object, ChildEnd]]
    do: Callable[[AnyJob, str], object]
    tick: Callable[[float], None]
    seen: Mapping[str, InputValues] = field(default_factory=dict)
    beyond: Mapping[str, str] = field(default_factory=dict)
    most_sweeps: int = _MOST_SWEEPS

    def run(self) -> Prepared:
        """Cast, and repeat the cast as long as the rehearsal finds failing nodes.

        Raises:
            enginesmith_contract.errors.ModelError: The cast did not finish, or ONNX Runtime refuses its result.
        """
        keep, warnings = self._out_of_range()
        keep = {**keep, **self.beyond}
        swept: tuple[str, ...] = ()
        for number in range(_MOST_CASTS):
            output, result = self._cast(keep, {})
            rehearsal, rehearsed = self._rehearse(output / result.files[0])
            new = {name: reason for name, reason in rehearsal.keep.items() if name not in {*keep, *result.kept}}
            if not new or number == _MOST_CASTS - 1:
                break
            keep = {**keep, **new}
        tried: dict[str, str] = {}
        for attempt in range(self.most_sweeps):
            found, swept = self._sweep(output / result.files[0], result, rehearsal, attempt)
            new = {name: reason for name, reason in found.items() if name not in result.kept}
            if not new:
                break
            tried |= new
            output, result = self._cast(keep, tried)
        if tried:
            rehearsal, rehearsed = self._rehearse(output / result.files[0])
        # ONNX Runtime has few BF16 kernels.
        emulated = self.feed.emulated or narrow_of(self.policy.default).wide
        feed = self.feed.model_copy(update={"emulated": emulated})
        try_prepared(output / result.files[0], feed, self.exercised, self.budget, self.folder, self.tick)
        return Prepared(
            folder=output,
            files=tuple(output / name for name in result.files),
            structure_digest=result.structure_digest,
            kept=result.kept,
            said=result.said,
            warnings=(*result.warnings, *warnings, *rehearsed, *swept, *_remarks(rehearsal, self.policy)),
            differences=rehearsal.differences,
        )

    @property
    def _seen_feed(self) -> Feed:
        return self.feed.model_copy(update={"values": {**self.seen, **self.feed.values}})

    @property
    def _title(self) -> str:
        return narrow_of(self.policy.default).title

    def _cast(self, keep: Mapping[str, str], tried: Mapping[str, str]) -> tuple[Path, CastResult]:
        """Write the cast model into an empty folder. Return the folder and the result."""
        output = self.folder / "prepared"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        job = CastJob(
            model=str(self.model),
            output=str(output),
            policy=self.policy,
            keep=keep,
            tried=tried,
            open_inputs=open_inputs(self._seen_feed, self.policy.default),
            limits=input_limits(self._seen_feed),
            generated=generated_inputs(self._seen_feed),
        )
        return output, CastResult.model_validate(self.do(job, "cast"))

    def _sweep(
        self, model: Path, result: CastResult, rehearsal: Rehearsal, attempt: int
    ) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """Try many kinds of values at the largest quick point. Return nodes to keep and warnings."""
        points = quick_points(self.exercised, _QUICK)
        if not points:
            return {}, ()
        point = points[-1]
        seconds = min(_SWEEP_SECONDS, self.budget.left / 3)
        finite = [value for value in rehearsal.differences.values() if math.isfinite(value)]
        job = SweepJob(
            model=str(self.model),
            cast=str(model),
            precision=self.policy.default,
            feed=self.feed.at(point.given),
            run=point.run,
            shapes=point.shapes,
            kept=tuple(result.kept),
            expected=max(finite, default=0.0),
            attempt=attempt,
            memory_bytes=self.budget.memory_bytes,
            seconds=seconds,
        )
        results, end = self.ask(job, _folder(self.folder, "sweep"), self.budget.limits(2 * seconds))
        if end.outcome is not Outcome.FINISHED or results is None:
            return {}, (_not_shown(f"what {self._title} makes of other values than the reference inputs'", end),)
        sweep = Sweep.model_validate(results)
        return sweep.keep, sweep.warnings

    def _out_of_range(self) -> tuple[dict[str, str], tuple[str, ...]]:
        """Check all values in the largest run that fits the budget. Return nodes to keep and warnings."""
        if narrow_of(self.policy.default).wide:
            return {}, ()
        folder = _folder(self.folder, "ranges")
        end: ChildEnd | None = None
        for point in reversed(self.exercised.stored):
            job = RangeJob(
                model=str(self.model),
                feed=self._seen_feed.at(point.given),
                run=point.run,
                shapes=point.shapes,
                small=self.policy.auto_keep,
                memory_bytes=self.budget.memory_bytes,
            )
            results, end = self.ask(job, folder, self.budget.limits())
            if end.outcome is Outcome.FINISHED and isinstance(results, dict):
                return {name: str(reason) for name, reason in results.items()}, ()
        return {}, (_not_shown("which values leave FP16's range", end),)

    def _rehearse(self, model: Path) -> tuple[Rehearsal, tuple[str, ...]]:
        """Run the cast model in emulated arithmetic at every point that fits the budget."""
        points: Sequence[Point] = self.exercised.stored
        folder, end = _folder(self.folder, "rehearsal"), None
        while points:
            job = RehearseJob(
                model=str(model),
                precision=self.policy.default,
                feed=self.feed,
                runs={point.run: point.shapes for point in points},
                given={point.run: point.given for point in points if point.given},
                folder=str(self.folder / "runs"),
                memory_bytes=self.budget.memory_bytes,
            )
            results, end = self.ask(job, folder, self.budget.limits())
            if end.outcome is Outcome.FINISHED and results is not None:
                return Rehearsal.model_validate(results), ()
            points = points[:-1]  # the last one is the largest
        return Rehearsal(), (_not_shown(f"what the model gives in {self._title}", end),)


def _not_shown(what: str, end: ChildEnd | None) -> str:
    """Return the warning that a check was skipped. After a crash it contains the cause."""
    if end is not None and end.detail:
        return f"no run showed {what}: the check ended with {end.detail}; report this together with the model"
    return f"no run within the budget showed {what}"


def try_prepared(
    model: Path, feed: Feed, exercised: Exercised, budget: Budget, folder: Path, tick: Callable[[float], None]
) -> None:
    """Run a prepared model once, at the smallest point at which the source model ran.

    Raises:
        enginesmith_contract.errors.ModelError: ONNX Runtime refuses it.
    """
    if not exercised.stored or budget.is_spent:
        return
    point = exercised.stored[0]
    shapes = Profile(
        name=point.profile, inputs={n: _fixed(shape, point.given.get(n)) for n, shape in point.shapes.items()}
    )
    exercise(model, feed, [shapes], folder=_folder(folder, "castRuns"), budget=budget, tick=tick)


def _remarks(rehearsal: Rehearsal, policy: PrecisionPolicy) -> tuple[str, ...]:
    limit, title = Arithmetic(precision=policy).limit, narrow_of(policy.default).title
    far = {name: value for name, value in rehearsal.differences.items() if value > limit}
    return tuple(
        f"output {name!r} in {title} has NaN or infinity where the model has numbers, on the reference inputs"
        if math.isinf(value)
        else f"output {name!r} in {title} differs by {value:.3g} (max|a-b| / max|b|) on the reference inputs"
        for name, value in far.items()
    )


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir(exist_ok=True)
    return folder


def _fixed(shape: tuple[int, ...], given: tuple[int, ...] | None) -> ShapeRange:
    values = None if given is None else ValueRange(min=given, opt=given, max=given)
    return ShapeRange(min=shape, opt=shape, max=shape, values=values)
