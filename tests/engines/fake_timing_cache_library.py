"""A library's timing caches without a GPU: TensorRT for RTX, which builds on a CPU, keeps none.

A cache is a sorted list of the tactics that were measured. Everything else of a build is the real library's.
"""

import json
from collections.abc import Callable
from typing import Any

__all__ = ["FakeCacheConfig", "FakeTimingCache"]


class FakeTimingCache:
    """Takes the place of ITimingCache."""

    def __init__(self, tactics: set[str], inform: Callable[[str], None]) -> None:
        self.tactics = tactics
        self._inform = inform

    def combine(self, other: "FakeTimingCache", *, ignore_mismatch: bool) -> bool:
        """Add the other's tactics."""
        assert not ignore_mismatch
        self.tactics |= other.tactics
        return True

    def serialize(self) -> bytes:
        """Return the bytes that are stored, and log how many entries that are, as TensorRT does."""
        self._inform(f"Serialized {len(self.tactics)} timing cache entries")
        return json.dumps(sorted(self.tactics)).encode()


class FakeCacheConfig:
    """The part of IBuilderConfig that is about timing caches; damaged bytes make an empty cache and a warning."""

    def __init__(self, warn: Callable[[str], None], inform: Callable[[str], None]) -> None:
        self.cache: Any = None
        self._warn = warn
        self._inform = inform

    def create_timing_cache(self, data: bytes) -> FakeTimingCache:
        """Return a cache of the bytes."""
        try:
            return FakeTimingCache(set(json.loads(data)) if data else set(), self._inform)
        except ValueError:
            self._warn("Failed to deserialize timing cache. Returning an empty timing cache.")
            return FakeTimingCache(set(), self._inform)

    def set_timing_cache(self, cache: FakeTimingCache, *, ignore_mismatch: bool) -> bool:
        """Attach the cache."""
        assert not ignore_mismatch
        self.cache = cache
        return True
