"""What a build measured is there for the next one, however the build ended and whoever else built meanwhile."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enginesmith_contract.backends import Hardware
from enginesmith_contract.errors import BuildError
from enginesmith_contract.store_layout import TimingCachePointer, blob_name
from enginesmith_contract.timing_cache import TimingCacheUse
from enginesmith_runtime.build.timing_caches import StoredTimingCache, timing_cache_place
from enginesmith_runtime.engines.nvinfer.library import RTX_LIBRARY
from enginesmith_runtime.engines.nvinfer.messages import create_logger
from enginesmith_runtime.engines.nvinfer.timing_cache import timing_cache_in_use
from enginesmith_runtime.store.file_store import FileStore

Build = Callable[..., list[str]]

_FAKE = runpy.run_path(str(Path(__file__).with_name("fake_timing_cache_library.py")))
_FOLDER = timing_cache_place(Hardware(product="NVIDIA-H100-80GB-HBM3"), "10.6.0") or ""


@pytest.fixture
def stored(tmp_path: Path) -> StoredTimingCache:
    """Return the cache of one device in a real store."""
    return StoredTimingCache(FileStore.open(tmp_path / "store"), _FOLDER, tmp_path)


@pytest.fixture
def uses() -> list[TimingCacheUse | None]:
    """Return what each build found and added, the newest last."""
    return []


@pytest.fixture
def build(stored: StoredTimingCache, uses: list[TimingCacheUse | None]) -> Build:
    """Return a build that measures the given tactics; returns its notes. `during` is called in the middle of it."""
    module = RTX_LIBRARY.load()

    def run(*tactics: str, fails: bool = False, during: Callable[[], object] = list) -> list[str]:
        log: Any = create_logger(module)
        config = _FAKE["FakeCacheConfig"](
            lambda message: log.log(module.ILogger.WARNING, message),
            lambda message: log.log(module.ILogger.INFO, message),
        )
        notes: list[str] = []
        with timing_cache_in_use(config, stored, log, notes) as in_use:
            for tactic in set(tactics) - config.cache.tactics:
                said = f"--------------- Timing Runner: {tactic} (Shuffle[0x80000004])"
                log.log(module.ILogger.VERBOSE, said)
            known = set(config.cache.tactics)
            config.cache.tactics |= set(tactics)
            during()
            if fails:
                raise BuildError("the builder failed")
        uses.append(in_use.use)
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


def test_a_build_says_what_it_found_and_what_it_added(build: Build, uses: list[TimingCacheUse | None]) -> None:
    build("a", "b")
    build("b", "c")
    build("a")
    assert uses == [
        TimingCacheUse(found=0, added=2, timed=2),
        TimingCacheUse(found=2, added=1, timed=1),
        TimingCacheUse(found=3, added=0, timed=0),
    ]


def test_what_the_cache_was_worth_is_said_in_words() -> None:
    assert TimingCacheUse(found=0, added=2, timed=3).text() == (
        "2 entries added to a timing cache of 0, 3 layer implementations timed"
    )
    assert TimingCacheUse(found=9, added=0).text() == "all from the timing cache (9 entries)"


def test_two_builds_at_once_lose_nothing_of_each_other(build: Build, stored: StoredTimingCache) -> None:
    assert build("mine", during=lambda: build("theirs")) == []
    assert len(stored.read()) == 2
    assert build() == ["mine", "theirs"]
    assert len(stored.read()) == 1


def test_caches_that_were_stored_in_the_same_moment_become_one(build: Build, stored: StoredTimingCache) -> None:
    # What two builds leave behind that saw nothing of each other.
    for data in (b'["a"]', b'["b"]'):
        stored.replace((), data, 1)
    assert len(stored.read()) == 2
    assert build("c") == ["a", "b"]
    assert [one.data for one in stored.read()] == [b'["a", "b", "c"]']


def test_the_cache_of_an_earlier_release_is_taken_over(build: Build, stored: StoredTimingCache, tmp_path: Path) -> None:
    build("a")
    (pointer,) = (tmp_path / "store" / _FOLDER).glob("*.json")
    pointer.rename(pointer.parent.with_name(f"{pointer.parent.name}.json"))
    assert build("b") == ["a"]
    assert [Path(one.name).parent.as_posix() + "/" for one in stored.read()] == [_FOLDER]


def test_a_cache_of_another_gpu_with_a_longer_name_is_left_alone(tmp_path: Path, stored: StoredTimingCache) -> None:
    longer = timing_cache_place(Hardware(product="NVIDIA-H100-80GB-HBM3-NVL"), "10.6.0") or ""
    StoredTimingCache(FileStore.open(tmp_path / "store"), longer, tmp_path).replace((), b"[]", 0)
    assert stored.read() == ()


@pytest.mark.parametrize("damage", [b"not a cache", b""])
def test_a_damaged_cache_is_ignored_said_and_replaced(
    damage: bytes, build: Build, stored: StoredTimingCache, tmp_path: Path
) -> None:
    build("a")
    (pointer,) = (tmp_path / "store" / _FOLDER).glob("*.json")
    blob = tmp_path / "store" / blob_name(TimingCachePointer.from_json(pointer.read_bytes()).file.digest)
    blob.chmod(0o644)
    blob.write_bytes(damage)
    (note,) = build("b")
    assert note.startswith("the stored timing cache was ignored")
    assert [one.data for one in stored.read()] == [b'["b"]']
    assert build() == ["b"]


def test_a_cache_that_the_library_does_not_read_is_ignored_said_and_replaced(
    build: Build, stored: StoredTimingCache
) -> None:
    stored.replace((), b"of another library", None)
    (note,) = build("a")
    assert "Failed to deserialize timing cache" in note
    assert build() == ["a"]


def test_a_pointer_that_is_none_is_said_and_replaced(build: Build, tmp_path: Path) -> None:
    pointer = tmp_path / "store" / _FOLDER / "0.json"
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
    assert timing_cache_place(Hardware(), "10.6.0") is None
    whole = timing_cache_place(Hardware(product="A100"), "10.6.0")
    part = timing_cache_place(Hardware(product="A100", mig_profile="1g.10gb"), "10.6.0")
    assert len({whole, part, timing_cache_place(Hardware(product="A100"), "10.6.1")}) == 3


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")
def test_a_real_library_counts_its_entries_and_says_why_it_takes_no_cache(stored: StoredTimingCache) -> None:
    module = RTX_LIBRARY.load()
    log: Any = create_logger(module)
    config = module.Builder(log).create_builder_config()
    notes: list[str] = []
    for _ in range(2):
        with timing_cache_in_use(config, stored, log, notes) as in_use:
            assert config.get_timing_cache() is not None
        # This library builds without measuring, and its caches stay empty.
        assert in_use.use == TimingCacheUse(found=0, added=0, timed=0)
    # It reads one on a GPU only.
    (note,) = notes
    assert note.startswith("the stored timing cache was ignored")
    assert "The timing cache will not be used!" in note
    assert len(stored.read()) == 1
