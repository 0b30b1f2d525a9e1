"""The library's timing cache in one build. It is opened before the build and stored after it, even after a failure.

Measured tactics are also useful if the builder then fails. The cache only saves time, so a problem with it causes a
note and never fails a build.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from enginesmith_contract.errors import StoreError
from enginesmith_contract.timing_cache import TimingCacheUse
from enginesmith_runtime.engines.nvinfer.messages import MessageLog
from enginesmith_runtime.engines.timing_cache import KeptTimings, TimingCache

__all__ = ["CacheInUse", "timing_cache_in_use"]

_EMPTY: Final = b""


@dataclass
class CacheInUse:
    """The cache of one build.

    Attributes:
        use: Entries that the build found and added; None before it has ended, or if the library does not count them.
    """

    config: Any
    stored: TimingCache
    log: MessageLog
    notes: list[str]
    kept: tuple[KeptTimings, ...] = ()
    cache: Any = None
    found: int | None = None
    use: TimingCacheUse | None = field(default=None, init=False)

    def open(self) -> None:
        """Load the stored cache into the builder's configuration."""
        self.kept = self._read()
        for one in self.kept:
            if one.data is None:
                self._say("the stored timing cache was ignored", one.problem)
        usable = [one.data for one in self.kept if one.data is not None]
        for data in usable:
            self._take(data)
        if self.cache is None:
            self.cache = self.config.create_timing_cache(_EMPTY)
            self.config.set_timing_cache(self.cache, ignore_mismatch=False)
        self.found = self._serialize()[1]

    def store(self) -> None:
        """Store the builder's cache."""
        data, entries = self._serialize()
        if self.found is not None and entries is not None:
            added = max(0, entries - self.found)
            self.use = TimingCacheUse(found=self.found, added=added, timed=self.log.timed)
            one_is_stored = len(self.kept) == 1 and self.kept[0].data is not None
            if not self.use.added and self.found and one_is_stored:
                return
        try:
            self.stored.replace(self.kept, data, entries)
        except StoreError as error:
            self._say("the timing cache was not stored", error.sentence())

    def _read(self) -> tuple[KeptTimings, ...]:
        try:
            return self.stored.read()
        except StoreError as error:
            self._say("the stored timing cache was ignored", error.sentence())
            return ()

    def _take(self, data: bytes) -> None:
        """Create the builder's cache from `data`, or add `data` to the existing cache."""
        mark = self.log.mark()
        if self.cache is not None:
            taken = self._combine(data)
        else:
            cache = _create(self.config, data)
            # For a damaged cache the library creates an empty one and only warns.
            taken = cache is not None and not self.log.said_since(mark)
            taken = taken and self.config.set_timing_cache(cache, ignore_mismatch=False)
            self.cache = cache if taken else None
        if not taken:
            said = " | ".join(self.log.said_since(mark))
            self._say("the stored timing cache was ignored", said or "the library refuses it")

    def _combine(self, data: bytes) -> bool:
        """Add measurements. If both caches have a measurement, that of the builder is kept."""
        mark = self.log.mark()
        other = _create(self.config, data)
        if other is None or self.log.said_since(mark):
            return False
        return bool(self.cache.combine(other, ignore_mismatch=False))

    def _serialize(self) -> tuple[bytes, int | None]:
        self.log.cache_entries = None
        data = bytes(memoryview(self.cache.serialize()))
        return data, self.log.cache_entries

    def _say(self, what: str, why: str) -> None:
        self.notes.append(f"{what}: {why}")


@contextmanager
def timing_cache_in_use(config: Any, stored: TimingCache, log: MessageLog, notes: list[str]) -> Iterator[CacheInUse]:
    """Load the stored cache into the builder, and store the builder's cache at the end.

    Args:
        config: Configuration of the builder, which receives the cache.
        stored: Stored caches for this device and this version of the library.
        log: Log of the library, with the reason why a cache was refused and the number of measurements.
        notes: List that receives one sentence for each problem.
    """
    cache = CacheInUse(config, stored, log, notes)
    cache.open()
    try:
        yield cache
    finally:
        cache.store()


def _create(config: Any, data: bytes) -> Any:
    try:
        return config.create_timing_cache(data)
    except (RuntimeError, ValueError, TypeError):  # pybind translates C++ exceptions
        return None
