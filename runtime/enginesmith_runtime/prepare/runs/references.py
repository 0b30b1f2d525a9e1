"""Stores the references for every engine of a model: inputs and FP32 outputs at each profile's points."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from enginesmith_contract.preparation import ReferenceSet
from enginesmith_runtime.prepare.runs.points import Point
from enginesmith_runtime.store.interface import Store

__all__ = ["MOST_BYTES", "store_references"]

MOST_BYTES: Final = 256 << 20
"""Size limit of all references of one preparation, because a server loads them before it is Ready."""


def store_references(
    store: Store, folder: Path, points: Sequence[Point], most_bytes: int = MOST_BYTES
) -> tuple[tuple[ReferenceSet, ...], tuple[str, ...]]:
    """Store `<run>.npz` of each point. If the budget is too small, opt has priority, then min, then max.

    Returns:
        The references in the order of points, and a warning for each omitted one.
    """
    order = sorted(points, key=lambda point: ("opt", "min", "max").index(point.point))
    left = most_bytes
    chosen: set[str] = set()
    warnings: list[str] = []
    for point in order:
        size = (folder / f"{point.run}.npz").stat().st_size
        if size <= left or not chosen:  # keep at least one, or nothing could be verified
            chosen.add(point.run)
            left -= size
            continue
        what = f"profile {point.profile!r}, {point.point}"
        warnings.append(f"{what}: no reference kept ({size >> 20} MiB, the budget of {most_bytes >> 20} MiB is spent)")
    kept = [point for point in points if point.run in chosen]
    files = [store.put_files(folder, [folder / f"{point.run}.npz"])[0] for point in kept]
    references = tuple(
        ReferenceSet(profile=point.profile, point=point.point, file=file)
        for point, file in zip(kept, files, strict=True)
    )
    return references, tuple(warnings)
