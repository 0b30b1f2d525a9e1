"""The library's timing cache in one build: opened before it, stored after it, however the build ended.

Tactics that were measured stay measured where the builder then fails, so the cache is stored on every way out. It only
saves time: whatever is wrong with one is said in a note and never fails a build.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from enginesmith_contract.errors import StoreError
from enginesmith_runtime.engines.nvinfer.messages import MessageLog
from enginesmith_runtime.engines.timing_cache import TimingCache

__all__ = ["timing_cache_in_use"]

_EMPTY: Final = b""


@contextmanager
def timing_cache_in_use(config: Any, stored: TimingCache, log: MessageLog, notes: list[str]) -> Iterator[None]:
    """Let the builder start from the stored cache, and store what it knows at the end.

    Args:
        config: the builder's configuration; gets the cache.
        stored: of this device and this version of the library.
        log: the library's log; says why a cache was not taken.
        notes: receives a sentence for everything that was not as it should be.
    """
    begun_with = _read(stored, notes)
    cache = _attach(config, begun_with, log, notes)
    try:
        yield
    finally:
        _store(config, stored, cache, begun_with, notes)


def _read(stored: TimingCache, notes: list[str]) -> bytes:
    try:
        return stored.read() or _EMPTY
    except StoreError as error:
        notes.append(f"the stored timing cache was ignored: {error.sentence()}")
        return _EMPTY


def _attach(config: Any, data: bytes, log: MessageLog, notes: list[str]) -> Any:
    """Return the cache that the configuration got: one of `data`, or an empty one where the library refuses that."""
    mark = log.mark()
    cache = _create(config, data)
    is_taken = cache is not None and config.set_timing_cache(cache, ignore_mismatch=False)
    # Of a damaged cache the library makes an empty one, and only warns.
    complaints = log.said_since(mark) if data else []
    if is_taken and not complaints:
        return cache
    if data:
        notes.append(f"the stored timing cache was ignored: {' | '.join(complaints) or 'the library refuses it'}")
    if not is_taken:
        cache = config.create_timing_cache(_EMPTY)
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _create(config: Any, data: bytes) -> Any:
    try:
        return config.create_timing_cache(data)
    except (RuntimeError, ValueError, TypeError):  # what pybind makes of a C++ exception
        return None


def _store(config: Any, stored: TimingCache, cache: Any, begun_with: bytes, notes: list[str]) -> None:
    def combine(current: bytes | None) -> bytes:
        """Add what another build stored meanwhile; where both measured the same, this build's figure stays."""
        if current and current != begun_with:
            other = _create(config, current)
            if other is None or not cache.combine(other, ignore_mismatch=False):
                notes.append("the timing cache that another build stored meanwhile was replaced: it does not combine")
        return bytes(memoryview(cache.serialize()))

    try:
        stored.merge(combine)
    except StoreError as error:
        notes.append(f"the timing cache was not stored: {error.sentence()}")
