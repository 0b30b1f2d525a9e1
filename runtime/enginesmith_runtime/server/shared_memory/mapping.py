"""Maps a client's shared memory object into this process and handles the case that the client shrinks it.

A client can shrink its object at any moment. The kernel then sends SIGBUS to each thread that touches a page beyond the
new end, and by default that ends the process. Here a handler maps private, empty memory over the missing pages, and
marks the mapping as lost. The thread continues, and its request fails when it looks at the mark.

The signal comes from the instruction that touches the page, so the handler runs only while a thread reads or writes a
tensor, and never in the allocator or under an internal lock of the interpreter. Therefore the handler can be a Python
function.
"""

import ctypes
import mmap
import signal
import threading
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from enginesmith_runtime.engines.interface import Array

__all__ = ["Mapping"]

# Constants from signal.h and siginfo.h of Linux on 64-bit machines, which all C libraries share.
_SA_SIGINFO: Final = 4
_SA_RESTART: Final = 0x10000000
_BUS_ADRERR: Final = 2
_CODE_AT, _ADDRESS_AT = 8, 16

_MAP_FIXED, _MAP_NORESERVE = 0x10, 0x4000
_MAP_FAILED: Final = ctypes.c_void_p(-1).value


class _Action(ctypes.Structure):
    """A struct sigaction; the mask has 1024 bits."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class Mapping:
    """A part of an open file in this process's memory, for reading and writing.

    Attributes:
        bytes: Mapped bytes as a uint8 array.
        lost: Whether an access to a page failed. Bytes from that page on are no longer the client's.

    Raises:
        OSError: The file cannot be mapped.
        ValueError: The file has become shorter.
    """

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        _install_guard()
        before = offset % mmap.ALLOCATIONGRANULARITY
        self._memory = mmap.mmap(descriptor, before + size, offset=offset - before)
        whole: Array = np.frombuffer(self._memory, np.uint8)
        self.bytes: Array = whole[before:]
        self.lost = False
        self._needs = offset + size
        self._begin, self._end = whole.ctypes.data, whole.ctypes.data + whole.nbytes
        _guarded[self._begin] = self

    @property
    def shrunk(self) -> bool:
        """Whether the file has become too short. Its last page still exists and is filled with zeros."""
        return self._memory.size() < self._needs

    def close(self) -> None:
        """Unmap the client's memory, which no request uses any more. Remaining views then have empty memory."""
        self.replace(self._begin)
        del _guarded[self._begin]
        del self.bytes, self._memory

    def replace(self, address: int) -> bool:
        """Map empty memory over the page at `address` and all later pages. Return whether that page is valid now."""
        if not self._begin <= address < self._end:
            return False
        self.lost = True
        page = address - address % mmap.PAGESIZE
        protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        at = _libc.mmap(page, self._end - page, protection, flags | _MAP_FIXED | _MAP_NORESERVE, -1, 0)
        return bool(at != _MAP_FAILED)


_libc: Final = ctypes.CDLL(None)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
)  # fmt: skip

_guarded: Final[dict[int, Mapping]] = {}
"""Mappings by their first address."""

_previous: Final = _Action()
_lock: Final = threading.Lock()
_installed = threading.Event()


def _on_bus_error(_number: int, info: int, _context: int) -> None:
    repaired = False
    try:
        if ctypes.c_int.from_address(info + _CODE_AT).value == _BUS_ADRERR:
            address = ctypes.c_size_t.from_address(info + _ADDRESS_AT).value
            repaired = any(mapping.replace(address) for mapping in tuple(_guarded.values()))
    finally:
        if not repaired:
            # The address is not in a client's memory: end the process, as without this handler.
            _libc.sigaction(signal.SIGBUS, ctypes.byref(_previous), None)
            signal.raise_signal(signal.SIGBUS)


_handler: Final = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(_on_bus_error)


def _install_guard() -> None:
    with _lock:
        if _installed.is_set():
            return
        action = _Action(handler=ctypes.cast(_handler, ctypes.c_void_p).value, flags=_SA_SIGINFO | _SA_RESTART)
        if _libc.sigaction(signal.SIGBUS, ctypes.byref(action), ctypes.byref(_previous)):
            raise OSError("SIGBUS cannot be handled here")
        _installed.set()
