"""Timing caches reach a builder's child process, which has no account of the store, and come back, as files."""

from pathlib import Path

import pytest

from enginesmith_contract.store_layout import timing_cache_folder
from enginesmith_runtime.build.timing_caches import FolderTimingCache, StoredTimingCache
from enginesmith_runtime.store.file_store import FileStore

_FOLDER = timing_cache_folder("NVIDIA-H200", "10.6.0")


@pytest.fixture
def stored(tmp_path: Path) -> StoredTimingCache:
    """Return the caches of one device, two of them, in a real store."""
    cache = StoredTimingCache(FileStore.open(tmp_path / "store"), _FOLDER, tmp_path)
    cache.replace((), b"one", 1)
    cache.replace((), b"two", 2)
    return cache


def _on_the_way(stored: StoredTimingCache, tmp_path: Path) -> FolderTimingCache:
    """Return the caches as the child process opens them: by their folder alone."""
    FolderTimingCache(tmp_path / "timings").fetch(stored)
    return FolderTimingCache(tmp_path / "timings")


def test_the_child_reads_what_is_stored(stored: StoredTimingCache, tmp_path: Path) -> None:
    assert _on_the_way(stored, tmp_path).read() == stored.read()


def test_the_new_cache_takes_the_place_of_those_that_the_child_read(stored: StoredTimingCache, tmp_path: Path) -> None:
    folder = _on_the_way(stored, tmp_path)
    stored.replace((), b"of another build", 1)
    folder.replace(folder.read(), b"one and two", 3)
    assert folder.store(stored) == ""
    assert {one.data for one in stored.read()} == {b"one and two", b"of another build"}


def test_a_build_that_measured_nothing_changes_nothing(stored: StoredTimingCache, tmp_path: Path) -> None:
    before = stored.read()
    assert _on_the_way(stored, tmp_path).store(stored) == ""
    assert stored.read() == before


def test_a_damaged_cache_arrives_with_its_problem(stored: StoredTimingCache, tmp_path: Path) -> None:
    (tmp_path / "store" / _FOLDER / "0.json").write_text("{")
    (problem,) = [one.problem for one in _on_the_way(stored, tmp_path).read() if one.data is None]
    assert "0.json" in problem


def test_a_store_that_cannot_be_written_fails_no_build(stored: StoredTimingCache, tmp_path: Path) -> None:
    folder = _on_the_way(stored, tmp_path)
    folder.replace((), b"new", 1)
    broken = StoredTimingCache(FileStore.open(tmp_path / "other"), _FOLDER, tmp_path)
    (tmp_path / "other").write_text("a file where the folder should be")
    assert str(tmp_path / "other") in folder.store(broken)
