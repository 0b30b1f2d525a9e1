"""A change of the profile's largest batch while a client asks: how much faster than the first build."""

import time
from typing import Final

from benchmarks.gpu_cluster.asking import more_answers, seen, steadily
from benchmarks.gpu_cluster.documents import apply_engine, builds, profile_of_cls, serves_full_engine
from benchmarks.gpu_cluster.workplace import Workplace

__all__ = ["run"]

_PART: Final = "rebuilding"
_MOST: Final = 32


def run(work: Workplace) -> None:
    """Change `max` alone, and note the build against the first one of that level."""
    tenant = work.tenant("cls")
    before = builds(tenant)
    with steadily(work, _PART) as traffic:
        begun = time.monotonic()
        apply_engine(work, "cls", is_quick=True, precision="fp16", profiles=profile_of_cls(most=_MOST))
        work.until(lambda: _is_changed(work), "the larger profile serves", seconds=170)
        seconds = round(time.monotonic() - begun, 2)
        more_answers(work, traffic, 60)
    after = builds(tenant)
    new = {name: one for name, one in after.items() if name not in before and one["buildSeconds"]}
    level = max((one["level"] or 0 for one in new.values()), default=None)
    warm = max((one["buildSeconds"] for one in new.values() if (one["level"] or 0) == level), default=None)
    cold = max((one["buildSeconds"] or 0 for one in before.values() if (one["level"] or 0) == level), default=None)
    times = round(cold / warm, 2) if cold and warm else None
    work.note(
        _PART,
        "larger max",
        seconds=seconds,
        coldSeconds=cold,
        warmSeconds=warm,
        timesFaster=times,
        client=seen(traffic),
    )
    work.note(_PART, "builds", builds=after)


def _is_changed(work: Workplace) -> bool:
    return serves_full_engine(work.tenant("cls"), "cls")
