"""What a build measured is there for the next one, however the build ended and whoever else built meanwhile."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enginesmith_contract.backends import Hardware
from enginesmith_contract.errors import BuildError
from enginesmith_contract.store_layout import TimingCachePointer, blob_name
from enginesmith_runtime.build.timing_caches import StoredTimingCache, timing_cache_name
from enginesmith_runtime.engines.nvinfer.library import RTX_LIBRARY
from enginesmith_runtime.engines.nvinfer.messages import create_logger
from enginesmith_runtime.engines.nvinfer.timing_cache import timing_cache_in_use
from enginesmith_runtime.store.file_store import FileStore

Build = Callable[..., list[str]]

_FAKE = runpy.run_path(str(Path(__file__).with_name("fake_timing_cache_library.py")))
_NAME = timing_cache_name(Hardware(product="NVIDIA-H100-80GB-HBM3"), "10.6.0") or ""


@pytest.fixture
def stored(tmp_path: Path) -> StoredTimingCache:
    """Return the cache of one device in a real store."""
    return StoredTimingCache(FileStore.open(tmp_path / "store"), _NAME, tmp_path)


@pytest.fixture
def build(stored: StoredTimingCache) -> Build:
    """Return a build that measures the given tactics; returns its notes. `during` is called in the middle of it."""
    module = RTX_LIBRARY.load()

    def run(*tactics: str, fails: bool = False, during: Callable[[], object] = list) -> list[str]:
        log: Any = create_logger(module)
        config = _FAKE["FakeCacheConfig"](lambda message: log.log(module.ILogger.WARNING, message))
        notes: list[str] = []
        with timing_cache_in_use(config, stored, log, notes):
            known = set(config.cache.tactics)
            config.cache.tactics |= set(tactics)
            during()
            if fails:
                raise BuildError("the builder failed")
        return [*sorted(known), *notes]

    return run


def test_the_next_build_starts_from_what_the_last_one_measured(build: Build) -> None:
    assert build("a") == []
    assert build("b") == ["a"]
    assert build() == ["a", "b"]


def test_what_a_failed_build_measured_is_kept(build: Build) -> None:
    with pytest.raises(BuildError):
        build("a", fails=True)
    assert build() == ["a"]


def test_two_builds_at_once_lose_nothing_of_each_other(build: Build) -> None:
    assert build("mine", during=lambda: build("theirs")) == []
    assert build() == ["mine", "theirs"]


@pytest.mark.parametrize("damage", [b"not a cache", b""])
def test_a_damaged_cache_is_ignored_said_and_replaced(
    damage: bytes, build: Build, stored: StoredTimingCache, tmp_path: Path
) -> None:
    build("a")
    pointer = tmp_path / "store" / _NAME
    blob = tmp_path / "store" / blob_name(TimingCachePointer.from_json(pointer.read_bytes()).file.digest)
    blob.chmod(0o644)
    blob.write_bytes(damage)
    (note,) = build("b")
    assert note.startswith("the stored timing cache was ignored")
    assert stored.read() == b'["b"]'
    assert build() == ["b"]


def test_a_cache_that_the_library_does_not_read_is_ignored_said_and_replaced(
    build: Build, stored: StoredTimingCache
) -> None:
    stored.merge(lambda _current: b"of another library")
    (note,) = build("a")
    assert "Failed to deserialize timing cache" in note
    assert build() == ["a"]


def test_a_pointer_that_is_none_is_said_and_replaced(build: Build, tmp_path: Path) -> None:
    pointer = tmp_path / "store" / _NAME
    pointer.parent.mkdir(parents=True)
    pointer.write_text("{")
    (note,) = build("a")
    assert note.startswith("the stored timing cache was ignored")
    assert build() == ["a"]


def test_a_store_that_cannot_be_written_fails_no_build(build: Build, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    notes = build("a")
    assert any(note.startswith("the timing cache was not stored") for note in notes)


def test_a_device_without_a_gpu_has_no_cache_and_a_slice_has_its_own() -> None:
    assert timing_cache_name(Hardware(), "10.6.0") is None
    whole = timing_cache_name(Hardware(product="A100"), "10.6.0")
    part = timing_cache_name(Hardware(product="A100", mig_profile="1g.10gb"), "10.6.0")
    assert len({whole, part, timing_cache_name(Hardware(product="A100"), "10.6.1")}) == 3
