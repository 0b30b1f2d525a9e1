"""Proves or disproves f(a then b) = f(a) then f(b). A server may join requests of two users only with this proof.

Many exports mix rows: a softmax over the wrong axis, a reshape that folds the batch into time, a normalisation over the
batch. A declared batch dimension proves nothing, so trials (see `batch_runs`) use fillings of different sizes, several
seeds, and values up to the limits of the spec.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from enginesmith_contract.preparation import Batching
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.tensors import ModelFacts
from enginesmith_runtime.child_processes import Limits
from enginesmith_runtime.prepare.child import run_worker
from enginesmith_runtime.prepare.jobs import BatchJob, Event, EventKind, Feed, Shapes

__all__ = ["prove_batching"]


_MOST_SECONDS: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class _Split:
    """A batch of a profile in two parts: their shapes, a second part that fills it, and the largest number of rows."""

    first: Shapes
    second: Shapes
    largest: Shapes | None
    most: int


def prove_batching(
    model: Path,
    feed: Feed,
    profiles: Sequence[Profile],
    *,
    mixing: Sequence[str],
    folder: Path,
    limits: Callable[[], Limits],
    memory_bytes: int,
    tick: Callable[[], None],
) -> Batching:
    """Try every profile that allows two rows or more, with its smallest other dimensions.

    Args:
        model: The FP32 source. The precision does not change which rows mix.
        feed: Values of inputs.
        profiles: Complete profiles.
        mixing: Nodes that are not known to process rows separately, as text. One is enough to refuse batching, because
            trials with some values prove nothing about other values.
        folder: Existing folder for jobs and logs.
        limits: Function that returns the limits of the next child.
        memory_bytes: Memory limit of one run in bytes.
        tick: Function that is called often. If it raises, the proof ends.
    """
    reason = _shape_reason(feed.facts)
    if reason:
        return Batching(proved=False, reason=reason)
    splits = [split for profile in profiles if (split := _split(profile)) is not None]
    if not splits:
        return Batching(proved=False, reason="no profile takes two batches of its smallest size joined")
    reasons = []
    for split in splits:
        within = limits()
        job = BatchJob(
            model=str(model),
            feed=feed,
            first=split.first,
            second=split.second,
            largest=split.largest,
            memory_bytes=memory_bytes,
            seconds=min(_MOST_SECONDS, (within.seconds or _MOST_SECONDS) / 4),
        )
        verdict = _try(job, folder, within, tick)
        if not verdict.proved:
            return verdict
        reasons.append(verdict.reason)
    if mixing:
        reason = f"{', '.join(mixing)}; no trial showed an effect, but other values may have one"
        return Batching(proved=False, reason=reason)
    reasons.insert(0, "every node is known to keep rows apart")
    return Batching(
        proved=True, max_batch_size=max(split.most for split in splits), reason="; ".join(dict.fromkeys(reasons))
    )


def _try(job: BatchJob, folder: Path, limits: Limits, tick: Callable[[], None]) -> Batching:
    verdicts: list[Batching] = []

    def receive(event: Event) -> None:
        if event.kind is EventKind.RESULT:
            verdicts.append(Batching.model_validate(event.data))

    run_worker(job, folder=folder, limits=limits, tick=tick, on_event=receive)
    return verdicts[-1] if verdicts else Batching(proved=False, reason="the proof did not fit the budget")


def _shape_reason(facts: ModelFacts) -> str:
    """Return why the shapes exclude batching, or "" if they do not."""
    for kind, specs in (("input", facts.inputs), ("output", facts.outputs)):
        for spec in specs:
            if not spec.shape:
                return f"{kind} {spec.name} is a scalar, without a batch dimension"
            if spec.shape[0] >= 0:
                return f"the first dimension of {kind} {spec.name} is fixed at {spec.shape[0]}"
    return ""


def _split(profile: Profile) -> _Split | None:
    """Return the division of a batch into two parts, or None if the profile has no room for both."""
    ranges = profile.inputs.values()
    least = max(sizes.min[0] for sizes in ranges) or 1
    most = min(sizes.max[0] for sizes in ranges)
    if most < 2 * least:
        return None
    # Use different sizes if possible, because equal halves can hide an exchange.
    other = least + 1 if most > 2 * least else least

    def shapes(rows: int) -> Shapes:
        return {name: (rows, *_smallest_filled(sizes)[1:]) for name, sizes in profile.inputs.items()}

    largest = shapes(most - least) if most - least > other else None
    return _Split(first=shapes(least), second=shapes(other), largest=largest, most=most)


def _smallest_filled(sizes: ShapeRange) -> tuple[int, ...]:
    """Return min, or opt if rows of min have no elements, because empty rows prove nothing."""
    return sizes.opt if 0 in sizes.min[1:] else sizes.min
