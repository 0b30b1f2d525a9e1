"""The points of profiles at which the model is run, and the budget of the runs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from enginesmith_contract.profiles import POINTS, Profile
from enginesmith_runtime.child_processes import Limits
from enginesmith_runtime.prepare.jobs import Feed, Shapes, Values

__all__ = ["Budget", "Point", "distinct_points", "more_seeds", "points_of", "shape_key"]

# Memory of an idle child with numpy and ONNX Runtime, which is not part of the budget of a run.
_IDLE_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a profile. `run` is the name of its files and the seed of its values; for `given` see Feed."""

    profile: str
    point: str
    run: str
    shapes: Shapes
    given: Values


@dataclass(kw_only=True)
class Budget:
    """Budget of all reference runs of one preparation.

    Attributes:
        memory_bytes: Memory limit of one run in bytes.
        deadline: Deadline on the monotonic clock.
    """

    memory_bytes: int
    deadline: float

    def limits(self, most_seconds: float | None = None) -> Limits:
        """Return the remaining limits of a child, at most `most_seconds`."""
        seconds = self.left if most_seconds is None else min(self.left, most_seconds)
        return Limits(memory_bytes=self.memory_bytes + _IDLE_BYTES, seconds=seconds)

    @property
    def left(self) -> float:
        """Remaining seconds, always above 0."""
        return max(self.deadline - time.monotonic(), 0.1)

    @property
    def is_spent(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self.deadline


def points_of(profiles: Sequence[Profile]) -> tuple[Point, ...]:
    """Return every point of complete profiles, small ones first, so that the budget covers the most points."""
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
    """Keep one point of each shape, and prefer opt, which has the highest priority for references."""
    best: dict[object, Point] = {}
    for point in points:
        seen = best.get(shape_key(point))
        if seen is None or (point.point == "opt" and seen.point != "opt"):
            best[shape_key(point)] = point
    return tuple(best.values())


def more_seeds(feed: Feed, points: Sequence[Point], distinct: Sequence[Point], least: int) -> tuple[Point, ...]:
    """Return additional points of a shape that is already run, with other values.

    There are additional points if there are fewer than `least` runs, as for a static model, and an input is random.
    """
    others = [point for point in points if point not in distinct and _has_random_inputs(feed, point)]
    return tuple(others[: max(least - len(distinct), 0)])


def shape_key(point: Point) -> tuple[tuple[str, tuple[int, ...], tuple[int, ...] | None], ...]:
    """Return the shapes and the sizes in inputs. Points with equal keys share a run."""
    return tuple(sorted((name, tuple(shape), point.given.get(name)) for name, shape in point.shapes.items()))


def _has_random_inputs(feed: Feed, point: Point) -> bool:
    others = [feed.values.get(spec.name) for spec in feed.facts.inputs if spec.name not in point.given]
    return any(values is None or values.range is not None for values in others)
