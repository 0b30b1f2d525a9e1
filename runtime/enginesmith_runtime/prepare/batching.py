"""Shows or denies f(a then b) = f(a) then f(b): without it a server must never join two users' requests.

Many exports mix rows: a softmax over the wrong axis, a reshape that folds the batch into time, a normalisation over the
batch. A declared batch dimension says nothing of that, so it is tried with two fillings of different size.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from enginesmith_contract.preparation import Batching
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.tensors import ModelFacts
from enginesmith_runtime.prepare.child import Limits, run_worker
from enginesmith_runtime.prepare.jobs import BatchJob, Event, EventKind, Feed, Shapes

__all__ = ["prove_batching"]


def prove_batching(
    model: Path,
    feed: Feed,
    profiles: Sequence[Profile],
    *,
    folder: Path,
    limits: Callable[[], Limits],
    memory_bytes: int,
    tick: Callable[[], None],
) -> Batching:
    """Try every profile that takes two rows or more, at its smallest other dimensions.

    Args:
        model: the FP32 source; precision changes nothing about which rows mix.
        feed: how inputs are filled.
        profiles: complete ones.
        folder: for jobs and logs; must exist.
        limits: of the next child.
        memory_bytes: of one run.
        tick: called often; what it raises ends the proof.
    """
    reason = _shape_reason(feed.facts)
    if reason:
        return Batching(proved=False, reason=reason)
    splits = [split for profile in profiles if (split := _split(profile)) is not None]
    if not splits:
        return Batching(proved=False, reason="no profile takes two batches of its smallest size joined")
    for first, second, _ in splits:
        job = BatchJob(model=str(model), feed=feed, first=first, second=second, memory_bytes=memory_bytes)
        verdict = _try(job, folder, limits(), tick)
        if not verdict.proved:
            return verdict
    return Batching(proved=True, max_batch_size=max(most for _, _, most in splits))


def _try(job: BatchJob, folder: Path, limits: Limits, tick: Callable[[], None]) -> Batching:
    verdicts: list[Batching] = []

    def receive(event: Event) -> None:
        if event.kind is EventKind.RESULT:
            verdicts.append(Batching.model_validate(event.data))

    run_worker(job, folder=folder, limits=limits, tick=tick, on_event=receive)
    return verdicts[0] if verdicts else Batching(proved=False, reason="the proof did not fit the budget")


def _shape_reason(facts: ModelFacts) -> str:
    """Return why the shapes alone rule batching out, empty where they do not."""
    for kind, specs in (("input", facts.inputs), ("output", facts.outputs)):
        for spec in specs:
            if not spec.shape:
                return f"{kind} {spec.name} is a scalar, without a batch dimension"
            if spec.shape[0] >= 0:
                return f"the first dimension of {kind} {spec.name} is fixed at {spec.shape[0]}"
    return ""


def _split(profile: Profile) -> tuple[Shapes, Shapes, int] | None:
    """Return the shapes of a and b and the largest batch; None where the profile has no room for both."""
    ranges = profile.inputs.values()
    least = max(sizes.min[0] for sizes in ranges) or 1
    most = min(sizes.max[0] for sizes in ranges)
    if most < 2 * least:
        return None
    # Of different sizes where there is room: equal halves can hide an exchange.
    other = least + 1 if most > 2 * least else least
    first, second = (
        {name: (rows, *_smallest_filled(sizes)[1:]) for name, sizes in profile.inputs.items()}
        for rows in (least, other)
    )
    return first, second, most


def _smallest_filled(sizes: ShapeRange) -> tuple[int, ...]:
    """Return min, or opt where min is empty beyond the batch: rows without values prove nothing."""
    return sizes.opt if 0 in sizes.min[1:] else sizes.min
