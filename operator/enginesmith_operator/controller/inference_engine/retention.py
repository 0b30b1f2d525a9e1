"""Decides which builds of unwanted engines stay, as the record of the engines that each target had. Pure.

`enginesmith store gc` knows from them, and from nothing else, which engines `spec.retention` keeps in the store.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime

from enginesmith_operator.api.engine_build import BuildPhase
from enginesmith_operator.controller.inference_engine.snapshot import EngineSnapshot, KnownBuild

__all__ = ["builds_to_forget"]


def builds_to_forget(
    snapshot: EngineSnapshot,
    wanted: Collection[str],
    *,
    targets: Iterable[str],
    undecided: Collection[str],
    quick: Collection[str | None] = (),
) -> tuple[KnownBuild, ...]:
    """Return this engine's builds that may go.

    Args:
        snapshot: with the builds.
        wanted: keys of engines that are to be there.
        targets: that the spec names; what belonged to another goes.
        undecided: targets that have no plan, perhaps for a moment only: they say nothing about their builds.
        quick: keys of quick engines: their full ones take their place in the memory.
    """
    asked = set(targets)
    found: list[KnownBuild] = []
    earlier: dict[str, list[KnownBuild]] = defaultdict(list)
    for build in snapshot.builds.values():
        is_ours = build.is_owned and len(build.owners) == 1
        if not is_ours or build.key in wanted or build.target in undecided:
            continue
        if build.phase is BuildPhase.SUCCEEDED and build.target in asked and build.key not in quick:
            earlier[build.target].append(build)
        else:
            found.append(build)
    for builds in earlier.values():
        newest_first = sorted(builds, key=lambda one: (one.finished_at, one.key), reverse=True)
        beyond = newest_first[snapshot.engine.spec.retention.keep_engines :]
        found += [one for one in beyond if not _is_young(one, snapshot)]
    return tuple(found)


def _is_young(build: KnownBuild, snapshot: EngineSnapshot) -> bool:
    keep_for = snapshot.engine.spec.retention.keep_for_seconds
    if keep_for is None or not build.finished_at:
        return False
    return (snapshot.now - datetime.fromisoformat(build.finished_at)).total_seconds() < float(keep_for)
