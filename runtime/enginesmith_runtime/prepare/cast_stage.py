"""The cast of one model: what to keep is looked up in a run, the cast is rehearsed in emulated FP16, then tried.

values out of range ──> cast ──> rehearsal ──> try in ONNX Runtime
                          ^          │
                          └── nodes that make NaN or infinity stay in FP32
"""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from enginesmith_contract.backends import PrecisionPolicy
from enginesmith_contract.profiles import Profile, ShapeRange, ValueRange
from enginesmith_runtime.prepare.child import ChildEnd, Limits, Outcome
from enginesmith_runtime.prepare.exercise import Exercised, exercise
from enginesmith_runtime.prepare.jobs import AnyJob, CastJob, CastResult, Feed, RangeJob, Rehearsal, RehearseJob
from enginesmith_runtime.prepare.points import Budget, Point

__all__ = ["CastStage", "Prepared"]

_MOST_CASTS: Final = 6
_REMARKABLE: Final = 1e-2


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The model that builds start from: its folder, its files (the ONNX file first) and what stayed in FP32."""

    folder: Path
    files: tuple[Path, ...]
    structure_digest: str
    kept: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CastStage:
    """One cast.

    Attributes:
        model: the source.
        policy: see `PrecisionPolicy`.
        feed: how the source is run.
        exercised: points whose inputs and FP32 outputs lie in the folder `runs`.
        budget: of the runs.
        folder: of the whole preparation.
        ask: runs a job within limits; returns its result, None where there is none.
        do: runs a job that has to give a result.
        tick: called often with a share of the work.
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

    def run(self) -> Prepared:
        """Cast, and cast again for as long as the rehearsal finds nodes that break.

        Raises:
            enginesmith_contract.errors.ModelError: the cast did not finish, or ONNX Runtime refuses its result.
        """
        keep, warnings = self._out_of_range()
        for number in range(_MOST_CASTS):
            output = _folder(self.folder, f"prepared{number}")
            job = CastJob(model=str(self.model), output=str(output), policy=self.policy, keep=keep)
            result = CastResult.model_validate(self.do(job, "cast"))
            rehearsal, rehearsed = self._rehearse(output / result.files[0])
            new = {name: reason for name, reason in rehearsal.keep.items() if name not in {*keep, *result.kept}}
            if not new or number == _MOST_CASTS - 1:
                break
            shutil.rmtree(output)
            keep = {**keep, **new}
        self._try(output / result.files[0])
        return Prepared(
            folder=output,
            files=tuple(output / name for name in result.files),
            structure_digest=result.structure_digest,
            kept=result.kept,
            warnings=(*result.warnings, *warnings, *rehearsed, *_remarks(rehearsal)),
        )

    def _out_of_range(self) -> tuple[dict[str, str], tuple[str, ...]]:
        """Look at all values in the largest run that fits the budget; returns nodes to keep and warnings."""
        folder = _folder(self.folder, "ranges")
        for point in reversed(self.exercised.stored):
            job = RangeJob(
                model=str(self.model),
                feed=self.feed.at(point.given),
                run=point.run,
                shapes=point.shapes,
                small=self.policy.auto_keep,
                memory_bytes=self.budget.memory_bytes,
            )
            results, end = self.ask(job, folder, self.budget.limits())
            if end.outcome is Outcome.FINISHED and isinstance(results, dict):
                return {name: str(reason) for name, reason in results.items()}, ()
        return {}, ("no run within the budget showed which values leave FP16's range",)

    def _rehearse(self, model: Path) -> tuple[Rehearsal, tuple[str, ...]]:
        """Run the cast model in emulated FP16 at every point that fits the budget."""
        points: Sequence[Point] = self.exercised.stored
        folder = _folder(self.folder, "rehearsal")
        while points:
            job = RehearseJob(
                model=str(model),
                feed=self.feed,
                runs={point.run: point.shapes for point in points},
                given={point.run: point.given for point in points if point.given},
                folder=str(self.folder / "runs"),
                memory_bytes=self.budget.memory_bytes,
            )
            results, end = self.ask(job, folder, self.budget.limits())
            if end.outcome is Outcome.FINISHED and results is not None:
                return Rehearsal.model_validate(results), ()
            points = points[:-1]  # the largest last
        return Rehearsal(), ("no run within the budget showed what the model gives in FP16",)

    def _try(self, model: Path) -> None:
        """Run the cast model once, at the smallest point that the source model was seen to run at."""
        if not self.exercised.stored or self.budget.is_spent:
            return
        point = self.exercised.stored[0]
        shapes = Profile(
            name=point.profile, inputs={n: _fixed(shape, point.given.get(n)) for n, shape in point.shapes.items()}
        )
        folder = _folder(self.folder, "castRuns")
        exercise(model, self.feed, [shapes], folder=folder, budget=self.budget, tick=self.tick)


def _remarks(rehearsal: Rehearsal) -> tuple[str, ...]:
    far = {name: value for name, value in rehearsal.differences.items() if value > _REMARKABLE}
    return tuple(
        f"output {name!r} in FP16 has NaN or infinity where the model has numbers, on the reference inputs"
        if math.isinf(value)
        else f"output {name!r} in FP16 differs by {value:.3g} (max|a-b| / max|b|) on the reference inputs"
        for name, value in far.items()
    )


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir(exist_ok=True)
    return folder


def _fixed(shape: tuple[int, ...], given: tuple[int, ...] | None) -> ShapeRange:
    values = None if given is None else ValueRange(min=given, opt=given, max=given)
    return ShapeRange(min=shape, opt=shape, max=shape, values=values)
