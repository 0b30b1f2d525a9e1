"""The points of profiles that the model is run at, and what their runs may take."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from enginesmith_contract.profiles import POINTS, Profile
from enginesmith_runtime.child_processes import Limits
from enginesmith_runtime.prepare.jobs import Feed, Shapes, Values

__all__ = ["Budget", "Point", "distinct_points", "more_seeds", "points_of", "shape_key"]

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
        seconds = self.left if most_seconds is None else min(self.left, most_seconds)
        return Limits(memory_bytes=self.memory_bytes + _IDLE_BYTES, seconds=seconds)

    @property
    def left(self) -> float:
        """Seconds that are left, a moment at least."""
        return max(self.deadline - time.monotonic(), 0.1)

    @property
    def is_spent(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self.deadline


def points_of(profiles: Sequence[Profile]) -> tuple[Point, ...]:
    """Return every point of complete profiles, small ones first: a budget then gives the most verdicts."""
    return tuple(
        Point(
            profile=profile.name,
            point=point,
            run=f"{number}-{point}",
            shapes={name: sizes.at(point) for name, sizes in profile.inputs.items()},
            given={name: sizes.values.at(point) for name, sizes in profile.inputs.items() if sizes.values is not None},
        )
        for point in POINTS
        for number, profile in enumerate(profiles)
    )


def distinct_points(points: Sequence[Point]) -> tuple[Point, ...]:
    """Keep one point of each shape, opt before the others: it is the one that references are kept for last."""
    best: dict[object, Point] = {}
    for point in points:
        seen = best.get(shape_key(point))
        if seen is None or (point.point == "opt" and seen.point != "opt"):
            best[shape_key(point)] = point
    return tuple(best.values())


def more_seeds(feed: Feed, points: Sequence[Point], distinct: Sequence[Point], least: int) -> tuple[Point, ...]:
    """Return points of a shape that is run already, with values of their own.

    There are some where there are fewer than `least` runs, as of a static model, and an input is random.
    """
    others = [point for point in points if point not in distinct and _has_random_inputs(feed, point)]
    return tuple(others[: max(least - len(distinct), 0)])


def shape_key(point: Point) -> tuple[tuple[str, tuple[int, ...], tuple[int, ...] | None], ...]:
    """Return what two points share that need one run: the shapes, and the sizes that inputs hold."""
    return tuple(sorted((name, tuple(shape), point.given.get(name)) for name, shape in point.shapes.items()))


def _has_random_inputs(feed: Feed, point: Point) -> bool:
    others = [feed.values.get(spec.name) for spec in feed.facts.inputs if spec.name not in point.given]
    return any(values is None or values.range is not None for values in others)
