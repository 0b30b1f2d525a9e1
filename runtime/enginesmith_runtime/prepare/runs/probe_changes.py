"""Changes that a probe makes, one at a time, to find the requirements of a model that does not run."""

from collections.abc import Iterator
from typing import Final

from enginesmith_contract.tensors import DType
from enginesmith_contract.verification import InputValues
from enginesmith_runtime.prepare.jobs import Change, Feed, OtherSize, OtherValues, ProbeJob, Shapes
from enginesmith_runtime.prepare.runs.inputs import FLOATS

__all__ = ["changes"]

# Values for integers if 0 and 1, or the user's values, are refused.
_OTHER_VALUES: Final = (
    InputValues(range=(1, 8)), InputValues(constant=1), InputValues(constant=2), InputValues(constant=0),
    InputValues(constant=16), InputValues(constant=-1),
)  # fmt: skip
_STEPS: Final = (8, 14, 16, 32, 64)
# Sizes that some models require, tried in the order of their distance.
_USUAL_SIZES: Final = (
    1, 2, 3, 4, 8, 12, 16, 24, 32, 40, 48, 56, 64, 80, 96, 100, 112, 128, 160, 192, 224, 256, 288, 299, 320, 336, 384,
    448, 480, 512, 518, 608, 640, 768, 1024, 1280,
)  # fmt: skip


def changes(job: ProbeJob) -> Iterator[tuple[Change, Feed, Shapes]]:
    """Yield the change, and the feed and the shapes with the change."""
    others = {*FLOATS, DType.BOOL, DType.BYTES}
    integers = [
        spec.name for spec in job.feed.facts.inputs if spec.dtype not in others and spec.name not in job.feed.given
    ]
    groups = [[name] for name in integers] + ([integers] if len(integers) > 1 else [])
    for group in groups:
        for values in _OTHER_VALUES:
            feed = job.feed.model_copy(update={"values": {**job.feed.values, **dict.fromkeys(group, values)}})
            yield OtherValues(inputs=tuple(group), values=values), feed, job.shapes
    for name, axis, size, shapes in _candidates(job.feed, job.shapes):
        yield OtherSize(input=name, axis=axis, size=size), job.feed, shapes


def _candidates(feed: Feed, shapes: Shapes) -> Iterator[tuple[str, int, int, Shapes]]:
    """Yield shapes that differ from `shapes` in one open dimension; dimensions of one symbol change together."""
    seen: set[str] = set()
    for spec in feed.facts.inputs:
        # Try the batch last, because models rarely require a batch size.
        for axis in [*range(1, len(spec.shape)), *range(min(1, len(spec.shape)))]:
            symbol = spec.symbol(axis)
            if spec.shape[axis] >= 0 or symbol in seen:
                continue
            seen |= {symbol} if symbol else set()
            now = shapes[spec.name][axis]
            for size in _sizes_near(now):
                yield spec.name, axis, size, _changed(feed, shapes, (spec.name, axis, symbol), size)


def _changed(feed: Feed, shapes: Shapes, place: tuple[str, int, str | None], size: int) -> Shapes:
    name, axis, symbol = place
    return {
        spec.name: tuple(
            size
            if (spec.name == name and number == axis) or (symbol is not None and spec.symbol(number) == symbol)
            else value
            for number, value in enumerate(shapes[spec.name])
        )
        for spec in feed.facts.inputs
    }


def _sizes_near(now: int) -> list[int]:
    multiples = {step * (now // step + more) for step in _STEPS for more in (0, 1)}
    sizes = {size for size in multiples | set(_USUAL_SIZES) if size > 0} - {now}
    return sorted(sizes, key=lambda size: (max(size, now) / max(min(size, now), 1), size))
