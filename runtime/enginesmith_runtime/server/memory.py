"""How this process keeps its memory while it serves.

A request of several megabytes passes through three buffers of its size. By default glibc gives each back to the kernel
as soon as it is free, and the kernel hands out and clears new pages for the next one: that is more than half of what
such a request costs. So freed memory is kept, up to a bound, and shared by all threads.
"""

import ctypes
from contextlib import suppress
from typing import Final

__all__ = ["give_freed_memory_back", "keep_freed_memory"]

# malloc.h of glibc: which parameter, and its value.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8

_KEPT_BYTES: Final = 256 << 20
"""At the end of the heap: a few requests of the largest usual size for each instance of a large GPU."""

_LARGEST_KEPT_BYTES: Final = 32 << 20
"""Of one buffer; glibc takes no higher value. Larger ones go back to the kernel."""

_ARENAS: Final = 2
"""Heaps among which threads are spread. Each keeps memory of its own, and there may be eight for each processor."""


def give_freed_memory_back() -> None:
    """Give what is free back to the kernel once, which takes some milliseconds; does nothing without glibc."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed_memory() -> None:
    """Give what is free back to the kernel once, and keep what is freed from now on; does nothing without glibc."""
    library = ctypes.CDLL(None)
    try:
        library.malloc_trim(0)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        library.mallopt(_M_ARENA_MAX, _ARENAS)
    except AttributeError:
        return
