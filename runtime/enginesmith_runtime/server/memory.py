"""Settings of the memory allocator of a server process.

A request of several megabytes passes through three buffers of its size. By default glibc returns each buffer to the
kernel when it is freed, and the kernel clears new pages for the next one. That is more than half of the cost of such a
request. So freed memory is kept, up to a limit, and shared by all threads.
"""

import ctypes
from contextlib import suppress
from typing import Final

__all__ = ["give_freed_memory_back", "keep_freed_memory"]

# Parameter numbers of mallopt in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8

_KEPT_BYTES: Final = 256 << 20
"""Bytes that are kept at the end of the heap: a few large requests for each instance of a large GPU."""

_LARGEST_KEPT_BYTES: Final = 32 << 20
"""Largest buffer that is kept, which is glibc's maximum. Larger buffers are returned to the kernel."""

_ARENAS: Final = 2
"""Number of heaps that threads share. Each heap keeps its own memory; the default allows eight for each CPU."""


def give_freed_memory_back() -> None:
    """Return free memory to the kernel once, which takes some milliseconds. Without glibc this does nothing."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed_memory() -> None:
    """Return free memory to the kernel once, and keep memory that is freed later. Without glibc this does nothing."""
    library = ctypes.CDLL(None)
    try:
        library.malloc_trim(0)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        library.mallopt(_M_ARENA_MAX, _ARENAS)
    except AttributeError:
        return
