"""Timing caches in stores of every kind: builds that end at once lose nothing of each other, without a lock."""

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from enginesmith_contract.errors import StoreError
from enginesmith_contract.store_layout import timing_cache_folder
from enginesmith_runtime.build.timing_caches import StoredTimingCache
from enginesmith_runtime.engines.timing_cache import KeptTimings
from enginesmith_runtime.store.interface import Store

OpenStore = Callable[[str], Store]
_FOLDER = timing_cache_folder("NVIDIA-H200", "10.6.0")

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("kind", ["file", "s3", "oci"])]


def _tactics(kept: Iterable[KeptTimings]) -> set[str]:
    return {tactic for one in kept if one.data is not None for tactic in json.loads(one.data)}


def _build(cache: StoredTimingCache, tactic: str, meanwhile: Callable[[], object] = list) -> None:
    """Store what is kept with one tactic more, as a builder does; `meanwhile` happens between reading and writing."""
    kept = cache.read()
    meanwhile()
    known = _tactics(kept) | {tactic}
    cache.replace(kept, json.dumps(sorted(known)).encode(), len(known))


def test_a_build_between_another_ones_read_and_write_is_not_lost(
    open_any: OpenStore, kind: str, tmp_path: Path
) -> None:
    mine, theirs = (StoredTimingCache(open_any(kind), _FOLDER, tmp_path) for _ in range(2))
    _build(mine, "first")
    _build(mine, "mine", meanwhile=lambda: _build(theirs, "theirs"))
    assert _tactics(mine.read()) == {"first", "mine", "theirs"}
    _build(theirs, "last")
    assert len(mine.read()) == 1
    assert _tactics(mine.read()) == {"first", "last", "mine", "theirs"}


def test_many_builds_at_once_lose_nothing(open_any: OpenStore, kind: str, tmp_path: Path) -> None:
    caches = [StoredTimingCache(open_any(kind), _FOLDER, tmp_path) for _ in range(3)]

    def work(name: int) -> None:
        for turn in range(3):
            _build(caches[name], f"{name}-{turn}")

    with ThreadPoolExecutor() as pool:
        list(pool.map(work, range(3)))
    assert _tactics(caches[0].read()) == {f"{name}-{turn}" for name in range(3) for turn in range(3)}


def test_a_store_that_deletes_nothing_keeps_the_newest(open_any: OpenStore, kind: str, tmp_path: Path) -> None:
    store = open_any(kind)

    def refuse(name: str) -> None:
        raise StoreError("it deletes nothing", where=name, reason="DeleteUnsupported")

    store.delete_pointer = refuse  # type: ignore[method-assign]  # as a registry in its default configuration
    cache = StoredTimingCache(store, _FOLDER, tmp_path)
    for turn in range(3):
        _build(cache, str(turn))
    assert _tactics(cache.read()) == {"0", "1", "2"}
